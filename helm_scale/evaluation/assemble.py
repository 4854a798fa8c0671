"""Packed predictions -> dense Hamiltonians, exactly Hermitian: a block and its transpose are the
same numbers.

Axes: N atoms, P pairs, S packed components of one element or element pair.
"""

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis.layout import BlockLayout, ao_offsets, offsite_layout, onsite_layout
from helm_scale.basis.packing import unpack
from helm_scale.types import GraphBatch, Molecule, Segment


def assemble(
    batch: GraphBatch, onsite: Tensor, offsite: Tensor, basis: str, parity: str
) -> list[np.ndarray]:
    """Build one dense matrix per molecule; blocks of pairs that the batch does not list are zero.

    Args:
        onsite, offsite: flat packed irreps in the order of GraphBatch.onsite_target and
            offsite_target, Hartree.
        parity: on-site irreps that the packing kept, "semilocal" or "full".
    Returns:
        [nao, nao] float64 matrices, Hartree, canonical order, equal to their transposes to the last
        bit.
    Raises:
        ValueError: a flat vector does not have the length that the batch asks for.
    """
    molecule = batch.molecule.cpu().numpy()
    numbers = batch.atomic_numbers.cpu().numpy()
    first_atom = np.searchsorted(
        molecule, np.arange(batch.num_molecules + 1)
    )  # atoms of a molecule are consecutive
    offsets = ao_offsets(basis, numbers)
    dense = [np.zeros((size, size)) for size in np.diff(offsets[first_atom])]
    start = offsets[:-1] - offsets[first_atom[molecule]]

    atoms = batch.atom_order.cpu().numpy()
    layouts = [onsite_layout(basis, segment.first, parity) for segment in batch.atom_segments]
    for segment, blocks in _blocks("onsite", onsite, batch.atom_segments, layouts):
        same = atoms[segment.start : segment.stop]
        _place(dense, molecule, start, same, same, blocks)

    pairs = batch.pair_index.cpu().numpy()
    layouts = [
        offsite_layout(basis, segment.first, segment.second) for segment in batch.pair_segments
    ]
    for segment, blocks in _blocks("offsite", offsite, batch.pair_segments, layouts):
        first, second = pairs[:, segment.start : segment.stop]
        _place(dense, molecule, start, first, second, blocks)
    return dense


def _blocks(
    name: str, flat: Tensor, segments: tuple[Segment, ...], layouts: list[BlockLayout]
) -> list[tuple[Segment, np.ndarray]]:
    """Float64 blocks of every run."""
    sizes = [segment.count * layout.size for segment, layout in zip(segments, layouts, strict=True)]
    if flat.shape != (sum(sizes),):
        raise ValueError(
            f"{name}: got packed irreps of shape {tuple(flat.shape)}, wanted ({sum(sizes)},) for this batch"
        )
    runs = flat.detach().to("cpu", torch.float64).split(sizes) if sizes else ()
    return [
        (segment, unpack(run.view(-1, layout.size), layout).numpy())
        for segment, layout, run in zip(segments, layouts, runs, strict=True)
    ]


def _place(
    dense: list[np.ndarray],
    molecule: np.ndarray,
    start: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    blocks: np.ndarray,
) -> None:
    """Write every block and its transpose."""
    rows, columns = blocks.shape[1:]
    for i, j, block in zip(first, second, blocks, strict=True):
        matrix, row, column = dense[molecule[i]], start[i], start[j]
        matrix[row : row + rows, column : column + columns] = block
        matrix[column : column + columns, row : row + rows] = block.T


def truncate(hamiltonian: np.ndarray, molecule: Molecule, basis: str, cutoff: float) -> np.ndarray:
    """Copy with zero blocks for pairs at the cutoff (Angstrom) or beyond: the best that a model of
    this range can do."""
    near = distances(molecule) < cutoff
    sizes = np.diff(ao_offsets(basis, molecule.atomic_numbers))
    return hamiltonian * np.repeat(np.repeat(near, sizes, axis=0), sizes, axis=1)


def distances(molecule: Molecule) -> np.ndarray:
    """Distances [N, N] between atoms, Angstrom."""
    return np.linalg.norm(molecule.positions[:, None] - molecule.positions[None], axis=-1)
