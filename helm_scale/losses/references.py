"""What is taken off labels before learning: element by element, on-site means or energies."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from helm_scale.basis import layout
from helm_scale.types import GraphBatch


def fit_hamiltonian_reference(
    batches: Iterable[GraphBatch], basis: str, parity: str, rows: int, width: int
) -> tuple[Tensor, float]:
    """Fit the mean on-site l = 0 components of every element, and the scale of what is left.

    Args:
        rows, width: shape of the table, [atomic number, component].
    Returns:
        (table [rows, width] float64 Hartree, scale in Hartree: sqrt(sum of squares / matrix
        elements)).
    """
    total = torch.zeros(rows, width, dtype=torch.float64)
    atoms = torch.zeros(rows, 1, dtype=torch.float64)
    squares, elements = 0.0, 0.0
    for batch in batches:
        assert (
            batch.onsite_target is not None
            and batch.offsite_target is not None
            and batch.matrix_elements is not None
        )
        squares += float(batch.offsite_target.square().sum())
        elements += float(batch.matrix_elements.sum())
        start = 0
        for segment in batch.atom_segments:
            block = layout.onsite_layout(basis, segment.first, parity)
            count = segment.count
            packed = batch.onsite_target[start : start + count * block.size].view(count, block.size)
            scalars = len(block.rows[0])
            squares += float(packed.square().sum())
            total[segment.first, :scalars] += packed[:, :scalars].sum(0)
            atoms[segment.first] += count
            start += count * block.size
    table = total / atoms.clamp(min=1)
    squares -= float((atoms * table.square()).sum())
    return table, max((max(squares, 0.0) / max(elements, 1.0)) ** 0.5, 1e-12)


def fit_atomic_energies(
    compositions_MZ: Tensor, energies: Tensor, known: Mapping[int, float] | None = None
) -> tuple[Tensor, float]:
    """Least-squares energy per element: the solution of least norm, the limit of a vanishing ridge.

    Args:
        compositions_MZ: atoms of every element in every molecule, float64. energies: [M] float64
            Hartree.
        known: energies of elements that are given, not fitted (free atoms), Hartree.
    Returns:
        (table [Z] float64 Hartree, root mean square of what is left, Hartree).
    """
    given = known or {}
    rest, left = compositions_MZ.clone(), energies.clone()
    for number, energy in given.items():
        left -= energy * rest[:, number]
        rest[:, number] = 0.0
    table = torch.linalg.lstsq(rest, left.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    for number, energy in given.items():
        table[number] = energy
    return table, max(float((energies - compositions_MZ @ table).square().mean().sqrt()), 1e-6)
