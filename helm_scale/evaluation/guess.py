"""Densities of predicted Hamiltonians, and the start of anybody's SCF."""

import numpy as np

from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.molecule import from_canonical
from helm_scale.evaluation import orbitals
from helm_scale.evaluation.kohn_sham import Choice
from helm_scale.evaluation.prediction import predict_hamiltonian
from helm_scale.model.helm import Helm
from helm_scale.types import Method, Molecule

# Overlap eigenvalues below it are dropped, unless the matrix is projected. There is no true H to
# choose it by, as the evaluation does; 1e-3 suits a mean error of H of 67 uEh, and the SCF puts
# right what it costs in energy.
THRESHOLD = 1e-3


def predict_density(
    model: Helm, molecule: Molecule, method: Method, *, choice: Choice
) -> np.ndarray:
    """Closed-shell density matrix [nao, nao] of the predicted Hamiltonian, canonical order.

    Args:
        choice: whether of the Kohn-Sham matrix nearest to it.

    Raises:
        ValueError: elements, charge or multiplicity outside the model's range.
    """
    occupied = orbitals.occupied_count(molecule, method.basis)
    hamiltonian, threshold = predict_hamiltonian(model, molecule, method), THRESHOLD
    if choice.covers(molecule, method):
        hamiltonian = EnergyFunctional(molecule, method).kohn_sham_matrix(hamiltonian)
        threshold = orbitals.PYSCF_THRESHOLD
    projector = orbitals.canonical_projectors(overlap(molecule, method.basis), (threshold,))[0]
    return orbitals.solve(hamiltonian, projector, occupied).density_matrix()


def initial_density(
    model: Helm, molecule: Molecule, method: Method, *, choice: Choice
) -> np.ndarray:
    """Predicted density [nao, nao] in PySCF's AO order; arguments and errors of predict_density."""
    density = predict_density(model, molecule, method, choice=choice)
    return from_canonical(density, method.basis, molecule.atomic_numbers)
