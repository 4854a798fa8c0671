"""Which atoms of a molecule are how far apart (molecules have at most a few hundred atoms).

Axes: N atoms of all molecules, T pairs of atoms of one molecule, all molecules together.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

MINIMUM_DISTANCE = 0.2  # Angstrom; closer atoms are a mistake in the input
FARTHEST = 1e5  # Angstrom from the origin; beyond it a number was mistyped


def atom_pairs(
    keys: Sequence[str], sizes: Sequence[int], positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Every two atoms of each molecule, lower index first, and their distances.

    Args:
        keys, sizes: name and number of atoms of every molecule. positions: [N, 3], Angstrom.
    Returns:
        ([2, T] int64, [T] Angstrom).
    Raises:
        ValueError: a coordinate is not finite or beyond FARTHEST, or two atoms coincide; names the
            molecule.
    """
    starts = np.cumsum([0, *sizes])
    if not np.isfinite(positions).all():
        atom = np.flatnonzero(~np.isfinite(positions).all(axis=1))[0]
        key = keys[int(np.searchsorted(starts, atom, side="right")) - 1]
        raise ValueError(
            f"molecule '{key}': positions hold NaN or infinity; remove or repair the molecule"
        )
    if np.abs(positions).max(initial=0.0) > FARTHEST:
        atom, axis = np.unravel_index(np.abs(positions).argmax(), positions.shape)
        key = keys[int(np.searchsorted(starts, atom, side="right")) - 1]
        raise ValueError(
            f"molecule '{key}': a position is {positions[atom, axis]:.1e} Angstrom, wanted at most"
            f" {FARTHEST:.0e}; check the coordinates and their unit"
        )
    joined = [_upper(size) + start for size, start in zip(sizes, starts[:-1].tolist(), strict=True)]
    index = np.concatenate([np.zeros((2, 0), dtype=np.int64), *joined], axis=1)
    vector = positions[index[1]] - positions[index[0]]
    distance = np.sqrt(np.einsum("tk,tk->t", vector, vector))
    if distance.min(initial=np.inf) < MINIMUM_DISTANCE:
        place = int(np.argmax(distance < MINIMUM_DISTANCE))
        number = int(np.searchsorted(starts, index[0, place], side="right")) - 1
        i, j = index[:, place] - starts[number]
        raise ValueError(
            f"molecule '{keys[number]}': atoms {i} and {j} coincide (distance"
            f" {distance[place]:.2e} Angstrom, wanted at least {MINIMUM_DISTANCE}); check the"
            " coordinates and their unit"
        )
    return index, distance


def by_element(index: np.ndarray, atomic_numbers: np.ndarray) -> np.ndarray:
    """The pairs [2, P], lower atomic number first, equal ones as they are."""
    first, second = index
    swap = atomic_numbers[first] > atomic_numbers[second]
    return np.stack([np.where(swap, second, first), np.where(swap, first, second)])


@lru_cache(maxsize=256)
def _upper(atoms: int) -> np.ndarray:
    """Places above the diagonal of [N, N], row by row: [2, N*(N-1)/2] int64."""
    return np.stack(np.triu_indices(atoms, k=1))
