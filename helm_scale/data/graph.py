"""Edges and pairs of one molecule, from all distances (molecules have at most a few hundred atoms)."""

from functools import lru_cache

import numpy as np

MINIMUM_DISTANCE = 0.2  # Angstrom; closer atoms are a mistake in the input


def distances(positions: np.ndarray) -> np.ndarray:
    """Distance of every two atoms, Angstrom: [N, N]."""
    difference = positions[:, None] - positions[None]
    return np.sqrt(np.einsum("ijk,ijk->ij", difference, difference))


def check_geometry(key: str, distance: np.ndarray) -> None:
    """Raise ValueError naming the molecule if a coordinate is not finite or two atoms coincide.

    Args:
        distance: of every two atoms, Angstrom, as `distances` gives them.
    """
    i, j = _upper(len(distance))
    shortest = distance[i, j].min(initial=np.inf) if np.isfinite(distance).all() else np.nan
    if np.isnan(shortest):
        raise ValueError(f"molecule '{key}': positions hold NaN or infinity; remove or repair the molecule")
    if shortest < MINIMUM_DISTANCE:
        place = distance[i, j].argmin()
        raise ValueError(
            f"molecule '{key}': atoms {i[place]} and {j[place]} coincide (distance {shortest:.2e} Angstrom,"
            f" wanted at least {MINIMUM_DISTANCE}); check the coordinates and their unit"
        )


def message_edges(distance: np.ndarray, cutoff: float) -> np.ndarray:
    """Pairs of atoms closer than cutoff (Angstrom), each once, lower index first: [2, E] int64."""
    i, j = _upper(len(distance))
    near = distance[i, j] < cutoff
    return np.stack([i[near], j[near]])


def unordered_pairs(distance: np.ndarray, atomic_numbers: np.ndarray, cutoff: float) -> np.ndarray:
    """Pairs closer than cutoff (Angstrom), lower atomic number first, equal ones in input order: [2, P] int64."""
    i, j = message_edges(distance, cutoff)
    swap = atomic_numbers[i] > atomic_numbers[j]
    return np.stack([np.where(swap, j, i), np.where(swap, i, j)])


@lru_cache(maxsize=256)
def _upper(atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Places above the diagonal of [N, N], row by row."""
    return np.triu_indices(atoms, k=1)
