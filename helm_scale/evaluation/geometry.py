"""Distances between atoms, and a Hamiltonian without the blocks of distant pairs."""

import numpy as np

from helm_scale.basis.layout import ao_offsets
from helm_scale.types import Molecule


def distances(molecule: Molecule) -> np.ndarray:
    """Distances [N, N] between atoms, Angstrom."""
    return np.linalg.norm(molecule.positions[:, None] - molecule.positions[None], axis=-1)


def truncate(hamiltonian: np.ndarray, molecule: Molecule, basis: str, cutoff: float) -> np.ndarray:
    """Copy with zero blocks for pairs at the cutoff (Angstrom) or beyond.

    No model of this range can come closer to the whole matrix.
    """
    # Strictly below, as the neighbour list of the model.
    near = distances(molecule) < cutoff
    sizes = np.diff(ao_offsets(basis, molecule.atomic_numbers))
    return hamiltonian * np.repeat(np.repeat(near, sizes, axis=0), sizes, axis=1)
