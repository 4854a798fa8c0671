"""Edges and pairs of one molecule, from all distances (molecules have at most a few hundred atoms)."""

import numpy as np

MINIMUM_DISTANCE = 0.2  # Angstrom; closer atoms are a mistake in the input


def check_geometry(key: str, positions: np.ndarray) -> None:
    """Raise ValueError naming the molecule if a coordinate is not finite or two atoms coincide."""
    if not np.isfinite(positions).all():
        raise ValueError(f"molecule '{key}': positions hold NaN or infinity; remove or repair the molecule")
    distance = _distances(positions) + 1e9 * np.eye(len(positions))
    if len(positions) > 1 and distance.min() < MINIMUM_DISTANCE:
        i, j = np.unravel_index(distance.argmin(), distance.shape)
        raise ValueError(
            f"molecule '{key}': atoms {min(i, j)} and {max(i, j)} coincide (distance {distance.min():.2e} Angstrom,"
            f" wanted at least {MINIMUM_DISTANCE}); check the coordinates and their unit"
        )


def message_edges(positions: np.ndarray, cutoff: float) -> np.ndarray:
    """Pairs of atoms closer than cutoff (Angstrom), each once, lower index first: [2, E] int64."""
    return np.stack(np.nonzero(np.triu(_distances(positions) < cutoff, k=1))).astype(np.int64)


def unordered_pairs(positions: np.ndarray, atomic_numbers: np.ndarray, cutoff: float) -> np.ndarray:
    """Pairs closer than cutoff (Angstrom), lower atomic number first, equal ones in input order: [2, P] int64."""
    first, second = np.nonzero(np.triu(_distances(positions) < cutoff, k=1))
    swap = atomic_numbers[first] > atomic_numbers[second]
    return np.stack([np.where(swap, second, first), np.where(swap, first, second)]).astype(np.int64)


def _distances(positions: np.ndarray) -> np.ndarray:
    return np.linalg.norm(positions[:, None] - positions[None], axis=-1)
