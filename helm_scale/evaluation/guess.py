"""A predicted density as the start of anybody's SCF."""

from typing import Any

import numpy as np

from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.molecule import from_canonical, from_pyscf
from helm_scale.evaluation import orbitals
from helm_scale.evaluation.prediction import predict_residual
from helm_scale.model.helm import Helm
from helm_scale.types import Method

THRESHOLD = 1e-3  # overlap eigenvalues below it are dropped; a start needs no more


def initial_density(mol: Any, model: Helm, method: Method) -> np.ndarray:
    """Closed-shell density matrix [nao, nao] of the predicted Hamiltonian, in PySCF's AO order.

    Args:
        mol: a PySCF Mole. method: of the model's labels.
    Raises:
        ValueError: another basis, no ECP, ghost atoms, or elements, charge or multiplicity outside
            the model's range.
    """
    molecule = from_pyscf(mol, method.basis)
    occupied = orbitals.occupied_count(molecule, method.basis)
    hamiltonian = predict_residual(model, molecule, method)
    if model.config.baseline != "none":
        hamiltonian = hamiltonian + EnergyFunctional(molecule, method).baseline(
            model.config.baseline
        )
    projector = orbitals.canonical_projectors(overlap(molecule, method.basis), (THRESHOLD,))[0]
    found = orbitals.solve(hamiltonian, projector, occupied)
    return from_canonical(found.density_matrix(), method.basis, molecule.atomic_numbers)
