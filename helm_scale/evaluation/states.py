"""Compares two electronic states of one molecule: orbitals, density, dipole, energy, forces."""

from dataclasses import dataclass

import numpy as np

from helm_scale.evaluation import orbitals
from helm_scale.evaluation.error_sums import ErrorSums, sum_errors
from helm_scale.evaluation.orbitals import Orbitals


@dataclass(frozen=True)
class ElectronicState:
    """Orbitals and what was computed from their density.

    Attributes:
        orbitals: solutions of HC = SCe. energy: E[P], Hartree. dipole: [3], Debye. forces: [N, 3],
            Hartree/Angstrom.
    """

    orbitals: Orbitals
    energy: float | None = None
    dipole: np.ndarray | None = None
    forces: np.ndarray | None = None


def compare_states(
    state: ElectronicState, reference: ElectronicState, overlap: np.ndarray
) -> ErrorSums:
    """Errors of a state against a reference; what either lacks is left out.

    Names: occupied, homo, lumo, gap (orbital energies), energy, Hartree; dipole (length of the
    difference), Debye; forces (components), Hartree/Angstrom; density (elements of P);
    coefficients, subspace_overlap (1 when equal); lost_occupied, ghosts (orbitals per molecule).
    """
    errors = _compare_orbitals(state.orbitals, reference.orbitals, overlap)
    if state.dipole is not None and reference.dipole is not None:
        errors["dipole"] = sum_errors(float(np.linalg.norm(state.dipole - reference.dipole)))
    if state.energy is not None and reference.energy is not None:
        errors["energy"] = sum_errors(state.energy - reference.energy)
    if state.forces is not None and reference.forces is not None:
        errors["forces"] = sum_errors(state.forces - reference.forces)
    return errors


def _compare_orbitals(solution: Orbitals, reference: Orbitals, overlap: np.ndarray) -> ErrorSums:
    # Orbital energies are paired by rank, as spectra are compared; a ghost shifts all above it.
    filled = slice(0, reference.occupied)
    weights = orbitals.occupied_weights(solution, reference, overlap)
    return {
        "occupied": sum_errors(solution.energies[filled] - reference.energies[filled]),
        "homo": sum_errors(solution.homo - reference.homo),
        "lumo": sum_errors(solution.lumo - reference.lumo),
        "gap": sum_errors(solution.gap - reference.gap),
        "coefficients": sum_errors(orbitals.coefficient_similarity(solution, reference)),
        "subspace_overlap": sum_errors(orbitals.subspace_overlap(weights)),
        "lost_occupied": sum_errors(orbitals.lost_occupied(weights)),
        "ghosts": sum_errors(orbitals.ghost_count(weights)),
        "density": sum_errors(solution.density_matrix() - reference.density_matrix()),
    }
