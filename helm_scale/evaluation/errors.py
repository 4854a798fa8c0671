"""Errors of a Hamiltonian by element, element pair, distance and irrep degree.

All nao^2 matrix elements count, both triangles. The parts of one kind add up to the whole.

Axes: N atoms, D = 2l+1, S shells of one degree.
"""

from itertools import combinations_with_replacement

import numpy as np
import torch

from helm_scale.basis import elements
from helm_scale.basis.layout import ao_offsets
from helm_scale.basis.shells import shells_of
from helm_scale.evaluation.error_sums import ErrorSums, sum_errors
from helm_scale.evaluation.geometry import distances
from helm_scale.irreps.coupling import couple
from helm_scale.types import Molecule

# Bin edges, Angstrom: narrow where bonds lie and |H| falls by orders of magnitude, wide beyond.
DISTANCE_EDGES = np.array(
    [
        0.0,
        *np.arange(0.75, 3.0, 0.25),
        *np.arange(3.0, 8.0, 0.5),
        *np.arange(8.0, 20.0, 1.0),
        np.inf,
    ]
)


def hamiltonian_errors(
    difference: np.ndarray, hamiltonian: np.ndarray, molecule: Molecule, basis: str
) -> ErrorSums:
    """Sums of |dH| and counts of matrix elements, Hartree, by part of the matrix.

    Names: `all`; `onsite`, `offsite`; `element/C` (on-site); `pair/H-C` (off-site, lower atomic
    number first); `distance/1.00` (off-site, by the lower edge of the bin in Angstrom;
    `magnitude/1.00` holds |H| and `apart/1.00` the distances there); `degree/3` (|dh^L| of all
    coupled entries, which are as many as the matrix elements; `degree_square/3` holds their
    squares, which add up to ||dH||^2).

    Args:
        difference: H_predicted - H [nao, nao]. hamiltonian: H [nao, nao]. Canonical order, Hartree.
    """
    # Reduced to atom blocks first: everything but the irreps needs only [N, N] sums and counts.
    sums = _atom_blocks(np.abs(difference), molecule, basis)
    counts = _atom_blocks(np.ones_like(difference), molecule, basis)
    onsite = np.eye(len(sums), dtype=bool)
    errors: ErrorSums = {"all": sum_errors(difference)}
    for name, mask in (("onsite", onsite), ("offsite", ~onsite)):
        errors[name] = float(sums[mask].sum()), float(counts[mask].sum())
    errors |= _by_element(sums, counts, onsite, molecule.atomic_numbers)
    magnitudes = _atom_blocks(np.abs(hamiltonian), molecule, basis)
    errors |= _by_distance(sums, magnitudes, counts, apart=distances(molecule), mask=~onsite)
    return errors | _by_degree(difference, molecule, basis)


def _atom_blocks(matrix: np.ndarray, molecule: Molecule, basis: str) -> np.ndarray:
    """Sum of the elements of every atom block, [N, N]."""
    # reduceat sums from each start to the next; the end of the last atom is implied.
    starts = ao_offsets(basis, molecule.atomic_numbers)[:-1]
    return np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)


def _by_element(
    sums: np.ndarray, counts: np.ndarray, onsite: np.ndarray, numbers: np.ndarray
) -> ErrorSums:
    errors: ErrorSums = {}
    present = sorted({int(z) for z in numbers})
    for z in present:
        mask = onsite & (numbers == z)
        errors[f"element/{elements.symbol(z)}"] = float(sums[mask].sum()), float(counts[mask].sum())
    for low, high in combinations_with_replacement(present, 2):
        ordered = (numbers[:, None] == low) & (numbers[None] == high)
        mask = (ordered | ordered.T) & ~onsite
        if mask.any():  # a lone carbon makes no C-C pair
            errors[f"pair/{elements.symbol(low)}-{elements.symbol(high)}"] = (
                float(sums[mask].sum()),
                float(counts[mask].sum()),
            )
    return errors


def _by_distance(
    sums: np.ndarray,
    magnitudes: np.ndarray,
    counts: np.ndarray,
    apart: np.ndarray,
    mask: np.ndarray,
) -> ErrorSums:
    number = np.histogram(apart[mask], DISTANCE_EDGES, weights=counts[mask])[0]
    errors: ErrorSums = {}
    for name, values in (("distance", sums), ("magnitude", magnitudes), ("apart", apart * counts)):
        total = np.histogram(apart[mask], DISTANCE_EDGES, weights=values[mask])[0]
        # Not strict: there is one edge more than bins, the last one, infinity.
        for edge, value, count in zip(DISTANCE_EDGES, total, number, strict=False):
            if count:
                errors[f"{name}/{edge:.2f}"] = float(value), float(count)
    return errors


def _by_degree(difference: np.ndarray, molecule: Molecule, basis: str) -> ErrorSums:
    """Couple every shell pair of the molecule, both triangles, degree pair by degree pair."""
    shells = [degree for z in molecule.atomic_numbers for degree in shells_of(basis, int(z))]
    degree_of_ao = np.repeat(shells, [2 * degree + 1 for degree in shells])
    rows = {degree: np.flatnonzero(degree_of_ao == degree) for degree in sorted(set(shells))}
    errors: ErrorSums = {}
    for l1, rows1 in rows.items():
        for l2, rows2 in rows.items():
            # Axis 1 is unflattened first: unflattening axis 0 would move it.
            block_SDSD = (
                torch.from_numpy(difference[np.ix_(rows1, rows2)])
                .unflatten(1, (-1, 2 * l2 + 1))
                .unflatten(0, (-1, 2 * l1 + 1))
            )
            for degree, h in couple(block_SDSD.transpose(1, 2).flatten(0, 1), l1, l2).items():
                for name, value in (("degree", h.abs().sum()), ("degree_square", h.square().sum())):
                    before = errors.get(f"{name}/{degree}", (0.0, 0.0))
                    errors[f"{name}/{degree}"] = before[0] + float(value), before[1] + h.numel()
    return errors
