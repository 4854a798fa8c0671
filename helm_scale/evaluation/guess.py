"""Densities of predicted Hamiltonians, and the start of anybody's SCF."""

import logging

import numpy as np

from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.molecule import from_canonical
from helm_scale.evaluation import orbitals
from helm_scale.evaluation.kohn_sham import Choice
from helm_scale.evaluation.prediction import predict_hamiltonian
from helm_scale.model.helm import Helm
from helm_scale.types import Method, Molecule
from helm_scale.units import HARTREE_IN_EV

_log = logging.getLogger(__name__)

# Overlap eigenvalues below it are dropped, unless the matrix is projected. There is no true H to
# choose it by, as the evaluation does; 1e-3 suits a mean error of H of 67 uEh, and the SCF puts
# right what it costs in energy.
THRESHOLD = 1e-3
# Hartree: starts whose energies differ by less are equally good.
SAME_START = 1e-6


def predict_density(
    model: Helm, molecule: Molecule, functional: EnergyFunctional, *, choice: Choice
) -> np.ndarray:
    """Closed-shell density matrix [nao, nao] of the predicted Hamiltonian, canonical order.

    Args:
        functional: of the molecule, in the method of the labels.
        choice: whether of the Kohn-Sham matrix nearest to it.

    Raises:
        ValueError: elements, charge or multiplicity outside the model's range.
    """
    method = functional.method
    occupied = orbitals.occupied_count(molecule, method.basis)
    hamiltonian, threshold = predict_hamiltonian(model, molecule, functional), THRESHOLD
    if choice.covers(molecule, method):
        hamiltonian = functional.kohn_sham_matrix(hamiltonian)
        threshold = orbitals.PYSCF_THRESHOLD
    projector = orbitals.canonical_projectors(overlap(molecule, method.basis), (threshold,))[0]
    return orbitals.solve(hamiltonian, projector, occupied).density_matrix()


def initial_density(
    model: Helm, molecule: Molecule, method: Method, *, choice: Choice
) -> np.ndarray:
    """Predicted density [nao, nao] in PySCF's AO order; errors as predict_density."""
    functional = _functional(molecule, method)
    density = predict_density(model, molecule, functional, choice=choice)
    return from_canonical(density, method.basis, molecule.atomic_numbers)


def checked_density(
    model: Helm, molecule: Molecule, method: Method, *, choice: Choice
) -> np.ndarray:
    """As initial_density, but minao's where the predicted density is the worse start.

    Compared are the energies of the predicted density and of the one that minao's first
    diagonalisation gives. Not of minao itself: a sum of atoms belongs to no orbitals, and its
    energy may lie below that of the converged density. Costs two Fock builds and H0.
    """
    functional = _functional(molecule, method)
    density = predict_density(model, molecule, functional, choice=choice)
    every = orbitals.canonical_projectors(
        overlap(molecule, method.basis), (orbitals.PYSCF_THRESHOLD,)
    )[0]
    occupied = orbitals.occupied_count(molecule, method.basis)
    first = orbitals.solve(functional.baseline("minao"), every, occupied).density_matrix()
    predicted, minao = (functional.energy_and_fock(matrix)[0] for matrix in (density, first))
    if not predicted <= minao + SAME_START:  # NaN is worse, too
        _log.warning(
            "%s: the start is minao's: the energy of the predicted density is %.3g eV above it;"
            " train longer, or on molecules like this one",
            molecule.key,
            (predicted - minao) * HARTREE_IN_EV,
        )
        density = functional.guess("minao")
    return from_canonical(density, method.basis, molecule.atomic_numbers)


def _functional(molecule: Molecule, method: Method) -> EnergyFunctional:
    """Of a closed shell; others are refused with the reason before PySCF does."""
    orbitals.occupied_count(molecule, method.basis)
    return EnergyFunctional(molecule, method)
