"""Computes the features of five small molecules, which every copy of a bundle must reproduce.

They cover what may break: a molecule without symmetry, a charge, a heavy element, an open shell,
and an atom without edges.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis.elements import supported
from helm_scale.config import ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.model.trunk import Trunk
from helm_scale.types import Geometry, GraphBatch, Molecule

# the fields of Geometry, as the loader names them
INPUTS = ("positions", "atomic_numbers", "edge_index", "batch", "charge", "spin")
TOLERANCE = 1e-5  # relative to the largest feature: float32 sums in another order


def molecules(config: ModelConfig) -> list[Molecule]:
    """The golden molecules whose charge and multiplicity the model embeds.

    The halogen is iodine, or bromine where the basis ends before it.
    """
    halogen = 53 if 53 in supported(config.basis) else 35
    # Written out: whoever loads a bundle in ten years needs the same numbers, not the same ASE.
    rows: list[tuple[str, list[int], list[list[float]], int, int]] = [
        ("methanol", [6, 8, 1, 1, 1, 1],
         [[-0.05, 0.66, 0.02], [0.04, -0.75, -0.03], [-1.06, 0.99, 0.11],
          [0.46, 1.05, 0.92], [0.49, 1.03, -0.87], [0.87, -1.05, 0.35]], 0, 1),
        ("ammonium", [7, 1, 1, 1, 1],
         [[0.0, 0.02, 0.01], [0.61, 0.58, 0.60], [-0.60, -0.57, 0.62],
          [-0.62, 0.61, -0.57], [0.58, -0.63, -0.60]], 1, 1),
        ("hypohalous_acid", [halogen, 8, 1],
         [[0.02, 0.0, -0.53], [0.05, 0.1, 1.46], [0.91, -0.2, 1.70]], 0, 1),
        ("oxygen", [8, 8], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.21]], 0, 3),
        ("lithium_ion", [3], [[0.0, 0.0, 0.0]], 1, 1),
    ]  # fmt: skip
    return [
        Molecule(
            key,
            np.array(atomic_numbers),
            np.array(positions),
            charge=charge,
            spin_multiplicity=multiplicity,
        )
        for key, atomic_numbers, positions, charge, multiplicity in rows
        if charge <= config.max_charge and multiplicity <= config.max_multiplicity
    ]


def batch_of_all(config: ModelConfig) -> GraphBatch:
    """The golden molecules as one batch."""
    return collate(molecules(config), config.backbone())


def compute(trunk: Trunk, config: ModelConfig) -> dict[str, Tensor]:
    """Inputs and features of the golden molecules as '<molecule>.<name>'."""
    tensors: dict[str, Tensor] = {}
    for molecule in molecules(config):
        geometry = collate([molecule], config.backbone()).geometry
        with torch.no_grad():
            tensors[f"{molecule.key}.features"] = trunk(geometry)
        for name, value in zip(INPUTS, geometry, strict=True):
            tensors[f"{molecule.key}.{name}"] = value
    return tensors


def deviation(
    features: Callable[[Geometry], Tensor], golden: dict[str, Tensor], where: str
) -> float:
    """Recompute the golden features and return their largest deviation.

    It is relative to the largest feature of the molecule.

    Raises:
        ValueError: a molecule deviates by more than TOLERANCE; names `where`, the molecule, got and
            wanted.
    """
    largest = 0.0
    for key in sorted({name.partition(".")[0] for name in golden}):
        wanted = golden[f"{key}.features"]
        with torch.no_grad():
            got = features(Geometry(*(golden[f"{key}.{name}"] for name in INPUTS)))
        error = float((got - wanted).abs().max() / wanted.abs().max())
        if not error <= TOLERANCE:  # so that NaN is an error too
            raise ValueError(
                f"{where}: golden molecule '{key}': features deviate by {error:.1e},"
                f" wanted at most {TOLERANCE:.0e}; export again"
            )
        largest = max(largest, error)
    return largest
