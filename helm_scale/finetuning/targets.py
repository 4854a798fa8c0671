"""What finetuning learns: a head of the table by its name, or forces with energies; its labels.

Axes: M molecules, D components of one value, Z atomic numbers.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis.elements import MAX_Z
from helm_scale.config import FinetuneConfig, HeadConfig, ModelConfig
from helm_scale.model.energy import EnergyModel
from helm_scale.model.heads import HEADS, Head
from helm_scale.model.heads.energy import ENERGY
from helm_scale.model.properties import PropertyModel
from helm_scale.types import Molecule, Quantity


def head_of(config: FinetuneConfig) -> Head:
    """The head that a config asks for; forces are the gradient of the energy's.

    Raises:
        ValueError: no such target; names the known ones.
    """
    if config.target == "forces":
        return ENERGY
    if config.target not in HEADS:
        raise ValueError(
            f"target: got {config.target!r}, wanted one of {', '.join([*HEADS, 'forces'])}"
        )
    return HEADS[config.target]


def new_property_model(config: ModelConfig, head: Head, head_config: HeadConfig) -> PropertyModel:
    """An untrained model; that of energies also gives forces."""
    if head is ENERGY:
        return EnergyModel(config, head_config)
    return PropertyModel(config, head, head_config)


def label_of(molecule: Molecule, quantity: Quantity) -> np.ndarray:
    """The label of a molecule, in the quantity's unit.

    Raises:
        ValueError: the molecule has none, or one of another shape.
    """
    value = molecule.value(quantity.name)
    if value is None:
        raise ValueError(
            f"molecule '{molecule.key}': no {quantity.name}; generate the data with it"
        )
    if value.shape != quantity.shape:
        raise ValueError(
            f"molecule '{molecule.key}': {quantity.name} has shape {value.shape},"
            f" wanted {quantity.shape}"
        )
    return value


def label_values(molecules: Sequence[Molecule], quantity: Quantity) -> Tensor:
    """Labels [M, *shape], float64."""
    values = [label_of(molecule, quantity) for molecule in molecules]
    return torch.from_numpy(np.array(values, dtype=np.float64).reshape(-1, *quantity.shape))


def reference_features(molecules: Sequence[Molecule], head: Head) -> np.ndarray:
    """How one value per element enters every component of the property: [M*D, Z] float64."""
    rows = [np.bincount(m.atomic_numbers, minlength=MAX_Z + 1) for m in molecules]
    counts = np.array(rows, dtype=np.float64).reshape(len(molecules), MAX_Z + 1)
    if head.reference == "none":
        # No element alone gives a vector: it would not turn
        return np.zeros((len(molecules) * head.quantity.components, MAX_Z + 1))
    return counts if head.reference == "sum" else counts / counts.sum(axis=1, keepdims=True)
