"""Molecules -> GraphBatch: one graph, pairs sorted by element pair, labels coupled to packed irreps.

Axes: N atoms of all molecules, E message edges, P unordered pairs.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis import elements, layout, packing
from helm_scale.batch import GraphBatch, Molecule, Segment
from helm_scale.config import ModelConfig
from helm_scale.data import graph


def collate(molecules: Sequence[Molecule], config: ModelConfig) -> GraphBatch:
    """Join molecules into one batch; targets are made where every molecule carries a Hamiltonian.

    Raises:
        ValueError: element outside the basis, coincident atoms, a charge or multiplicity outside the embedded range, a
            missing H0, or exact exchange in on-site blocks under parity "semilocal"; each names the molecule.
    """
    for molecule in molecules:
        _check(molecule, config)
    sizes = [len(m.atomic_numbers) for m in molecules]
    numbers = np.concatenate([m.atomic_numbers for m in molecules] or [np.zeros(0)]).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    pairs = _join([graph.unordered_pairs(m.positions, m.atomic_numbers, config.pair_cutoff) for m in molecules], starts)
    pairs = pairs[:, np.lexsort((numbers[pairs[1]], numbers[pairs[0]]))]
    pair_segments = _segments(np.stack([numbers[pairs[0]], numbers[pairs[1]]]))
    atom_order = np.argsort(numbers, kind="stable")
    atom_segments = _segments(np.stack([numbers[atom_order], 0 * atom_order]))
    labels: dict[str, Any] = {}
    if all(m.hamiltonian is not None for m in molecules):
        blocks = _Blocks(molecules, starts, config)
        labels = {
            "onsite_target": _onsite_target(blocks, atom_order, atom_segments, config),
            "offsite_target": _offsite_target(blocks, pairs, pair_segments, config),
            "matrix_elements": torch.from_numpy(_matrix_elements(numbers, pairs, starts, config.basis)),
        }
    return GraphBatch(
        keys=tuple(m.key for m in molecules),
        atomic_numbers=torch.from_numpy(numbers),
        positions=torch.from_numpy(np.concatenate([m.positions for m in molecules] or [np.zeros((0, 3))])),
        molecule=torch.from_numpy(np.repeat(np.arange(len(molecules)), sizes)),
        charge=torch.tensor([m.charge for m in molecules], dtype=torch.int64),
        spin_multiplicity=torch.tensor([m.spin_multiplicity for m in molecules], dtype=torch.int64),
        edge_index=torch.from_numpy(_join([graph.message_edges(m.positions, config.trunk_cutoff) for m in molecules], starts)),
        pair_index=torch.from_numpy(pairs),
        pair_segments=pair_segments,
        atom_order=torch.from_numpy(atom_order),
        atom_segments=atom_segments,
        energy=_stack([m.energy for m in molecules], np.array),
        forces=_stack([m.forces for m in molecules], np.concatenate),
        **labels,
    )


def _check(molecule: Molecule, config: ModelConfig) -> None:
    where = f"molecule '{molecule.key}'"
    elements.check_supported(config.basis, molecule.atomic_numbers, where)
    graph.check_geometry(molecule.key, molecule.positions)
    if abs(molecule.charge) > config.max_charge:
        raise ValueError(f"{where}: charge {molecule.charge:+d}, wanted at most model.max_charge = {config.max_charge}")
    if not 1 <= molecule.spin_multiplicity <= config.max_multiplicity:
        raise ValueError(
            f"{where}: multiplicity {molecule.spin_multiplicity}, wanted 1 to model.max_multiplicity = {config.max_multiplicity}"
        )
    if molecule.hamiltonian is not None and config.baseline != "none" and molecule.baseline_hamiltonian is None:
        raise ValueError(
            f"{where}: model.baseline is '{config.baseline}' but the data holds no H0; generate it with --baseline {config.baseline}"
        )


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


class _Blocks:
    """Blocks of H - H0 of all molecules, addressed by atoms of the batch."""

    def __init__(self, molecules: Sequence[Molecule], starts: np.ndarray, config: ModelConfig) -> None:
        self.matrices = [_residual(m, config) for m in molecules]
        self.offsets = [layout.ao_offsets(config.basis, m.atomic_numbers) for m in molecules]
        self.starts = starts
        self.molecule = np.repeat(np.arange(len(molecules)), np.diff(starts))

    def stack(self, first: np.ndarray, second: np.ndarray) -> Tensor:
        """Blocks between atoms `first` and `second`, all of one kind: [B, a, b] float64."""
        return torch.from_numpy(np.stack(list(self._iterate(first, second))))

    def _iterate(self, first: np.ndarray, second: np.ndarray) -> Iterator[np.ndarray]:
        for i, j in zip(first, second, strict=True):
            index = self.molecule[i]
            offsets, start = self.offsets[index], self.starts[index]
            rows = slice(offsets[i - start], offsets[i - start + 1])
            columns = slice(offsets[j - start], offsets[j - start + 1])
            yield self.matrices[index][rows, columns]


def _residual(molecule: Molecule, config: ModelConfig) -> np.ndarray:
    assert molecule.hamiltonian is not None
    expected = int(layout.ao_offsets(config.basis, molecule.atomic_numbers)[-1])
    if molecule.hamiltonian.shape != (expected, expected):
        raise ValueError(
            f"molecule '{molecule.key}': hamiltonian has shape {molecule.hamiltonian.shape},"
            f" wanted {(expected, expected)} in {config.basis}"
        )
    if config.baseline == "none":
        return molecule.hamiltonian
    assert molecule.baseline_hamiltonian is not None
    return molecule.hamiltonian - molecule.baseline_hamiltonian


def _onsite_target(blocks: _Blocks, order: np.ndarray, segments: tuple[Segment, ...], config: ModelConfig) -> Tensor:
    parts = [torch.zeros(0, dtype=torch.float64)]
    for segment in segments:
        atoms = order[segment.start : segment.stop]
        kind = layout.onsite_layout(config.basis, segment.first, config.parity)
        stacked = blocks.stack(atoms, atoms)
        packed = packing.pack(stacked, kind)
        dropped = float(stacked.square().sum() - packed.square().sum())
        if dropped > 1e-8 + 1e-12 * float(packed.square().sum()):
            raise ValueError(
                f"on-site blocks of {elements.symbol(segment.first)}: parity '{config.parity}' drops {max(dropped, 0.0) ** 0.5:.1e} Eh;"
                " hybrid functionals need model.parity: full (or the blocks are not symmetric)"
            )
        parts.append(packed.flatten())
    return torch.cat(parts)


def _offsite_target(blocks: _Blocks, pairs: np.ndarray, segments: tuple[Segment, ...], config: ModelConfig) -> Tensor:
    parts = [torch.zeros(0, dtype=torch.float64)]
    for segment in segments:
        kind = layout.offsite_layout(config.basis, segment.first, segment.second)
        first, second = pairs[:, segment.start : segment.stop]
        parts.append(packing.pack(blocks.stack(first, second), kind).flatten())
    return torch.cat(parts)


def _matrix_elements(numbers: np.ndarray, pairs: np.ndarray, starts: np.ndarray, basis: str) -> np.ndarray:
    """Matrix elements of every molecule within the Hamiltonian cutoff, both triangles: [B] int64."""
    sizes = np.diff(layout.ao_offsets(basis, numbers))
    counted = sizes**2
    np.add.at(counted, pairs[0], 2 * sizes[pairs[0]] * sizes[pairs[1]])
    return np.add.reduceat(counted, starts[:-1])
