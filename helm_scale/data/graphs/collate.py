"""Molecules -> one graph: pairs sorted by element pair, labels as packed irreps or as blocks.

Axes: N atoms of all molecules, E message edges, P unordered pairs.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis import elements
from helm_scale.config import ModelConfig
from helm_scale.data.format import codec
from helm_scale.data.graphs import blocks, neighbors
from helm_scale.types import (
    BlockBatch,
    GraphBatch,
    MolecularGraph,
    Molecule,
    Segment,
    couple_labels,
)


def collate(
    molecules: Sequence[Molecule], config: ModelConfig, matrices: Sequence[str] = ()
) -> GraphBatch:
    """Join molecules into one batch, with float64 targets where all of them have a Hamiltonian.

    Args:
        matrices: matrices wanted beside those that the model is conditioned on: "overlap",
            "baseline_hamiltonian".
    Raises:
        ValueError: element outside the basis, coincident atoms, a charge or multiplicity outside
            the embedded range, a missing matrix, or exact exchange in on-site blocks under parity
            "semilocal"; each names the molecule.
    """
    labelled = all(m.hamiltonian is not None for m in molecules)
    wanted = (*(["hamiltonian"] if labelled else []), *config.conditions, *matrices)
    graph = _graph(molecules, config)
    if not wanted:
        return GraphBatch(**vars(graph))
    cut = {name: blocks.dense_blocks(molecules, name, config) for name in wanted}
    return couple_labels(blocks.label(graph, cut, config), "cpu")


def collate_stored(
    samples: Sequence[codec.StoredSample],
    config: ModelConfig,
    empty: blocks.Empty = blocks.new_tensor,
    matrices: Sequence[str] = (),
) -> BlockBatch:
    """Join samples as shards hold them, each with a Hamiltonian.

    Off-site blocks have the dtype of the model.

    Args:
        empty: makes the flat tensors of the blocks. matrices: as `collate`.
    Raises:
        ValueError: as `collate`.
    """
    graph = _graph([sample.molecule for sample in samples], config)
    cut = {
        name: blocks.stored_blocks(samples, name, config, empty)
        for name in ("hamiltonian", *config.conditions, *matrices)
    }
    return blocks.label(graph, cut, config)


def _graph(molecules: Sequence[Molecule], config: ModelConfig) -> MolecularGraph:
    """The molecules without their matrices."""
    for molecule in molecules:
        _check(molecule, config)
    keys, sizes = tuple(m.key for m in molecules), [len(m.atomic_numbers) for m in molecules]
    numbers = np.concatenate([np.zeros(0, np.int64), *(m.atomic_numbers for m in molecules)])
    positions = np.concatenate([np.zeros((0, 3)), *(m.positions for m in molecules)])
    numbers = numbers.astype(np.int64)
    index, distance = neighbors.atom_pairs(keys, sizes, positions)
    pairs = neighbors.by_element(index[:, distance < config.pair_cutoff], numbers)
    # By element pair; within one, first the pairs whose blocks are stored as they are wanted.
    pairs = pairs[:, np.lexsort((pairs[0] > pairs[1], numbers[pairs[1]], numbers[pairs[0]]))]
    atom_order = np.argsort(numbers, kind="stable")
    return MolecularGraph(
        keys=keys,
        atomic_numbers=torch.from_numpy(numbers),
        positions=torch.from_numpy(positions),
        molecule=torch.from_numpy(np.repeat(np.arange(len(molecules)), sizes)),
        charge=torch.tensor([m.charge for m in molecules], dtype=torch.int64),
        spin_multiplicity=torch.tensor([m.spin_multiplicity for m in molecules], dtype=torch.int64),
        edge_index=torch.from_numpy(index[:, distance < config.trunk_cutoff]),
        pair_index=torch.from_numpy(pairs),
        pair_segments=_segments(np.stack([numbers[pairs[0]], numbers[pairs[1]]])),
        atom_order=torch.from_numpy(atom_order),
        atom_segments=_segments(np.stack([numbers[atom_order], 0 * atom_order])),
        energy=_stack([m.energy for m in molecules], np.array),
        forces=_stack([m.forces for m in molecules], np.concatenate),
    )


def _check(molecule: Molecule, config: ModelConfig) -> None:
    """Raise ValueError for a molecule that the model cannot take."""
    where = f"molecule '{molecule.key}'"
    elements.check_supported(config.basis, molecule.atomic_numbers, where)
    if abs(molecule.charge) > config.max_charge:
        raise ValueError(
            f"{where}: charge {molecule.charge:+d},"
            f" wanted at most model.max_charge = {config.max_charge}"
        )
    if not 1 <= molecule.spin_multiplicity <= config.max_multiplicity:
        raise ValueError(
            f"{where}: multiplicity {molecule.spin_multiplicity},"
            f" wanted 1 to model.max_multiplicity = {config.max_multiplicity}"
        )


def _segments(numbers: np.ndarray) -> tuple[Segment, ...]:
    """Runs of equal columns of sorted atomic numbers [2, n]."""
    if numbers.shape[1] == 0:
        return ()
    changes = np.nonzero((np.diff(numbers, axis=1) != 0).any(axis=0))[0] + 1
    bounds = [0, *changes.tolist(), numbers.shape[1]]
    return tuple(
        Segment(int(numbers[0, start]), int(numbers[1, start]), start, stop)
        for start, stop in pairwise(bounds)
    )


def _stack(values: list[Any], join: Callable[[list[Any]], np.ndarray]) -> Tensor | None:
    if not values or any(value is None for value in values):
        return None
    return torch.from_numpy(np.asarray(join(values), dtype=np.float64))
