"""Molecules -> GraphBatch: one graph, pairs sorted by element pair, labels coupled to packed irreps.

Axes: N atoms of all molecules, E message edges, P unordered pairs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis import elements
from helm_scale.batch import GraphBatch, Molecule, Segment
from helm_scale.config import ModelConfig
from helm_scale.data import codec, graph, targets


def collate(molecules: Sequence[Molecule], config: ModelConfig, matrices: Sequence[str] = ()) -> GraphBatch:
    """Join molecules into one batch; float64 targets are made where every molecule carries a Hamiltonian.

    Args:
        matrices: matrices wanted beside those that the model is conditioned on: "overlap", "baseline_hamiltonian".
    Raises:
        ValueError: element outside the basis, coincident atoms, a charge or multiplicity outside the embedded range, a
            missing matrix, or exact exchange in on-site blocks under parity "semilocal"; each names the molecule.
    """
    labelled = all(m.hamiltonian is not None for m in molecules)
    cut = (lambda: targets.dense_blocks(molecules, config)) if labelled else None
    more = {name: partial(targets.dense_matrix, molecules, name, config) for name in (*config.conditions, *matrices)}
    return _collate(molecules, cut, config, targets.new_tensor, more)


def collate_stored(
    samples: Sequence[codec.Stored],
    config: ModelConfig,
    empty: targets.Empty = targets.new_tensor,
    scratch: targets.Empty = targets.new_tensor,
    matrices: Sequence[str] = (),
) -> GraphBatch:
    """Join samples as shards hold them, each with a Hamiltonian; off-site targets are of the model's dtype.

    Args:
        empty: makes the flat tensors of the targets. scratch: makes flat tensors that are needed in between.
        matrices: as `collate`.
    Raises:
        ValueError: as `collate`.
    """
    more = {name: partial(targets.stored_matrix, samples, name, config, scratch) for name in (*config.conditions, *matrices)}
    return _collate([s.molecule for s in samples], lambda: targets.stored_blocks(samples, config, scratch), config, empty, more)


def _collate(
    molecules: Sequence[Molecule],
    cut: Callable[[], targets.Blocks] | None,
    config: ModelConfig,
    empty: targets.Empty,
    more: Mapping[str, Callable[[], targets.Blocks]],
) -> GraphBatch:
    distances = [_checked(molecule, config) for molecule in molecules]
    sizes = [len(m.atomic_numbers) for m in molecules]
    numbers = np.concatenate([m.atomic_numbers for m in molecules] or [np.zeros(0)]).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    each = zip(distances, molecules, strict=True)
    pairs = _join([graph.unordered_pairs(distance, m.atomic_numbers, config.pair_cutoff) for distance, m in each], starts)
    pairs = pairs[:, np.lexsort((pairs[0] > pairs[1], numbers[pairs[1]], numbers[pairs[0]]))]
    pair_segments = _segments(np.stack([numbers[pairs[0]], numbers[pairs[1]]]))
    atom_order = np.argsort(numbers, kind="stable")
    atom_segments = _segments(np.stack([numbers[atom_order], 0 * atom_order]))
    labels: dict[str, Any] = {}
    if cut is not None:
        blocks = cut()
        labels = {
            "onsite_target": targets.onsite_target(blocks, atom_order, atom_segments, config, empty),
            "offsite_target": targets.offsite_target(blocks, pairs, pair_segments, config, empty),
            "matrix_elements": targets.matrix_elements(blocks, starts, pairs),
        }
    for name, make in more.items():
        blocks = make()
        labels[f"onsite_{name}"] = targets.onsite_target(blocks, atom_order, atom_segments, config, empty)
        labels[f"offsite_{name}"] = targets.offsite_target(blocks, pairs, pair_segments, config, empty)
    return GraphBatch(
        keys=tuple(m.key for m in molecules),
        atomic_numbers=torch.from_numpy(numbers),
        positions=torch.from_numpy(np.concatenate([m.positions for m in molecules] or [np.zeros((0, 3))])),
        molecule=torch.from_numpy(np.repeat(np.arange(len(molecules)), sizes)),
        charge=torch.tensor([m.charge for m in molecules], dtype=torch.int64),
        spin_multiplicity=torch.tensor([m.spin_multiplicity for m in molecules], dtype=torch.int64),
        edge_index=torch.from_numpy(_join([graph.message_edges(distance, config.trunk_cutoff) for distance in distances], starts)),
        pair_index=torch.from_numpy(pairs),
        pair_segments=pair_segments,
        atom_order=torch.from_numpy(atom_order),
        atom_segments=atom_segments,
        energy=_stack([m.energy for m in molecules], np.array),
        forces=_stack([m.forces for m in molecules], np.concatenate),
        **labels,
    )


def _checked(molecule: Molecule, config: ModelConfig) -> np.ndarray:
    """Distances of the atoms of a molecule that the model can take."""
    where = f"molecule '{molecule.key}'"
    elements.check_supported(config.basis, molecule.atomic_numbers, where)
    distance = graph.distances(molecule.positions)
    graph.check_geometry(molecule.key, distance)
    if abs(molecule.charge) > config.max_charge:
        raise ValueError(f"{where}: charge {molecule.charge:+d}, wanted at most model.max_charge = {config.max_charge}")
    if not 1 <= molecule.spin_multiplicity <= config.max_multiplicity:
        raise ValueError(
            f"{where}: multiplicity {molecule.spin_multiplicity}, wanted 1 to model.max_multiplicity = {config.max_multiplicity}"
        )
    return distance


def _join(indices: list[np.ndarray], starts: np.ndarray) -> np.ndarray:
    """Concatenate [2, n] atom indices of molecules, shifted to their place in the batch."""
    shifted = [index + start for index, start in zip(indices, starts[:-1], strict=True)]
    return np.concatenate([np.zeros((2, 0), dtype=np.int64), *shifted], axis=1)


def _segments(kinds: np.ndarray) -> tuple[Segment, ...]:
    """Runs of equal columns of [2, n]."""
    if kinds.shape[1] == 0:
        return ()
    changes = np.nonzero((np.diff(kinds, axis=1) != 0).any(axis=0))[0] + 1
    bounds = [0, *changes.tolist(), kinds.shape[1]]
    return tuple(Segment(int(kinds[0, a]), int(kinds[1, a]), a, b) for a, b in pairwise(bounds))


def _stack(values: list, join) -> Tensor | None:  # type: ignore[no-untyped-def]
    if not values or any(value is None for value in values):
        return None
    return torch.from_numpy(np.asarray(join(values), dtype=np.float64))
