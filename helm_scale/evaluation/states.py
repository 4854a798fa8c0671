"""Two electronic states of one molecule, compared: orbitals, density, dipole, energy, forces."""

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
    found: ElectronicState, reference: ElectronicState, overlap: np.ndarray
) -> ErrorSums:
    """Errors of a state against another; what either lacks is left out.

    Names: occupied, homo, lumo, gap (orbital energies), energy, Hartree; dipole (length of the
    difference), Debye; forces (components), Hartree/Angstrom; density (elements of P);
    coefficients, subspace_overlap (1 when equal); lost_occupied, ghosts (orbitals per molecule).
    """
    result = _orbitals(found.orbitals, reference.orbitals, overlap)
    if found.dipole is not None and reference.dipole is not None:
        result["dipole"] = sum_errors(float(np.linalg.norm(found.dipole - reference.dipole)))
    if found.energy is not None and reference.energy is not None:
        result["energy"] = sum_errors(found.energy - reference.energy)
    if found.forces is not None and reference.forces is not None:
        result["forces"] = sum_errors(found.forces - reference.forces)
    return result


def _orbitals(found: Orbitals, reference: Orbitals, overlap: np.ndarray) -> ErrorSums:
    filled = slice(0, reference.occupied)
    weights = orbitals.occupied_weights(found, reference, overlap)
    return {
        "occupied": sum_errors(found.energies[filled] - reference.energies[filled]),
        "homo": sum_errors(found.homo - reference.homo),
        "lumo": sum_errors(found.lumo - reference.lumo),
        "gap": sum_errors(found.gap - reference.gap),
        "coefficients": sum_errors(orbitals.coefficient_similarity(found, reference)),
        "subspace_overlap": sum_errors(orbitals.subspace_overlap(weights)),
        "lost_occupied": sum_errors(orbitals.lost_occupied(weights)),
        "ghosts": sum_errors(orbitals.ghost_count(weights)),
        "density": sum_errors(found.density_matrix() - reference.density_matrix()),
    }
