"""The true H gives PySCF's orbital energies.

Noise makes ghosts; canonical orthogonalisation cures them.
"""

import numpy as np
import pytest

from helm_scale.basis.assembly import assemble
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.molecule import build_mol, kohn_sham
from helm_scale.evaluation import orbitals
from helm_scale.types import Molecule
from tests.evaluation.labels import BENZENE, NO_THRESHOLD, SVP, TZVPD, batch_of, benzene, noise_like
from tests.tolerances import CONVERGED_FOCK, TRUE_H_ENERGY


@pytest.mark.parametrize(
    "name", ["hydrogen_iodide", "nitroxyl"]
)  # an ECP, and all-electron f shells
@pytest.mark.parametrize("parity", ["semilocal", "full"])
def test_the_true_hamiltonian_gives_the_scf_energy_and_orbital_energies(
    name: str, parity: str, request: pytest.FixtureRequest
) -> None:
    molecule, mo_energy = request.getfixturevalue(name)
    batch = batch_of([molecule], parity)
    assert batch.onsite_target is not None and batch.offsite_target is not None
    targets = (batch.onsite_target, batch.offsite_target)
    matrix = assemble(batch, *targets, basis=TZVPD.basis, parity=parity)[0].numpy()
    projector = orbitals.canonical_projectors(overlap(molecule, TZVPD.basis), (NO_THRESHOLD,))[0]
    found = orbitals.solve(matrix, projector, orbitals.occupied_count(molecule, TZVPD.basis))
    energy, fock = EnergyFunctional(molecule, TZVPD).energy_and_fock(found.density_matrix())
    assert projector.dropped == 0
    assert abs(energy - molecule.energy) < TRUE_H_ENERGY
    assert np.abs(found.energies - mo_energy).max() < TRUE_H_ENERGY
    assert np.abs(fock - matrix).max() < CONVERGED_FOCK


def test_the_orbital_gradient_is_that_which_pyscf_converges(
    water: tuple[Molecule, np.ndarray],
) -> None:
    molecule, _ = water
    assert molecule.hamiltonian is not None and molecule.baseline_hamiltonian is not None
    functional, solver = (
        EnergyFunctional(molecule, SVP),
        kohn_sham(build_mol(molecule, SVP.basis), SVP),
    )
    projector = orbitals.canonical_projectors(overlap(molecule, SVP.basis), (NO_THRESHOLD,))[0]
    guess, truth = (
        orbitals.solve(matrix, projector, 5)
        for matrix in (molecule.baseline_hamiltonian, molecule.hamiltonian)
    )
    energies, coefficients = solver.eig(
        solver.get_fock(dm=solver.get_init_guess(key="minao")), solver.get_ovlp()
    )
    filled = solver.get_occ(energies, coefficients)
    expected = np.linalg.norm(
        solver.get_grad(
            coefficients, filled, solver.get_fock(dm=solver.make_rdm1(coefficients, filled))
        )
    )
    found = [
        orbitals.gradient_norm(one, functional.energy_and_fock(one.density_matrix())[1])
        for one in (guess, truth)
    ]
    assert found[0] == pytest.approx(expected, rel=1e-6) and found[0] > 0.1
    assert found[1] < 1e-6


def test_a_projector_keeps_orthonormal_vectors_of_the_overlap() -> None:
    _, _, overlap_ = benzene()
    for projector in orbitals.canonical_projectors(overlap_, (NO_THRESHOLD, 1e-4, 1e-3)):
        kept = projector.vectors.shape[1]
        assert kept + projector.dropped == len(overlap_)
        assert (
            np.abs(projector.vectors.T @ overlap_ @ projector.vectors - np.eye(kept)).max() < 1e-8
        )
    assert projector.smallest < 1e-6


def test_noise_makes_ghosts_and_canonical_orthogonalisation_cures_them() -> None:
    molecule, hamiltonian, overlap_ = benzene()
    occupied = orbitals.occupied_count(molecule, BENZENE.basis)

    def judge(sigma: float, threshold: float) -> tuple[int, float, float]:
        projector = orbitals.canonical_projectors(overlap_, (threshold,))[0]
        reference = orbitals.solve(hamiltonian, projector, occupied)
        found = orbitals.solve(hamiltonian + noise_like(hamiltonian, sigma, 0), projector, occupied)
        weights = orbitals.occupied_weights(found, reference, overlap_)
        error = np.abs(found.energies - reference.energies)[:occupied].mean()
        return orbitals.ghost_count(weights), orbitals.lost_occupied(weights), float(error)

    ghosts, lost, error = judge(1e-5, NO_THRESHOLD)
    assert (
        ghosts >= 3 and lost == pytest.approx(ghosts, abs=0.1) and error > 0.1
    )  # collapse: 0.7 Eh
    ghosts, lost, error = judge(1e-5, 1e-4)
    assert ghosts == 0 and lost < 1e-4 and error < 1e-5
    ghosts, lost, error = judge(1e-4, 1e-4)
    assert ghosts >= 1 and lost > 0.9 and error > 1e-2
    ghosts, lost, error = judge(1e-4, 1e-3)
    assert ghosts == 0 and lost < 1e-2 and error < 1.5e-4


def test_an_occupied_space_overlaps_itself_completely_whatever_its_rotation() -> None:
    molecule, hamiltonian, overlap_ = benzene()
    found = orbitals.solve(hamiltonian, orbitals.canonical_projectors(overlap_, (1e-4,))[0], 21)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(21, 21)))[0]
    mixed = found.coefficients.copy()
    mixed[:, :21] = mixed[:, :21] @ rotation
    weights = orbitals.occupied_weights(
        orbitals.Orbitals(found.energies, mixed, 21), found, overlap_
    )
    assert orbitals.subspace_overlap(weights) == pytest.approx(1.0, abs=1e-9)
    assert np.trace(found.density_matrix() @ overlap_) == pytest.approx(42.0, abs=1e-8)
    assert len(molecule.atomic_numbers) == 12


def test_an_ecp_leaves_its_valence_electrons_and_open_shells_are_refused() -> None:
    where = np.array([[0.0, 0, 0], [0, 0, 1.6]])
    assert orbitals.occupied_count(Molecule("hi", np.array([1, 53]), where), "def2-tzvpd") == 13
    for charge, occupied in ((2, 12), (-2, 14)):  # a cation has lost electrons
        ion = Molecule("hi", np.array([1, 53]), where, charge=charge)
        assert orbitals.occupied_count(ion, "def2-tzvpd") == occupied
    for charge, multiplicity in ((1, 1), (0, 3), (1, 2)):
        with pytest.raises(
            ValueError, match=r"hi: .* wanted an even number of electrons and multiplicity 1"
        ):
            orbitals.occupied_count(
                Molecule(
                    "hi", np.array([1, 53]), where, charge=charge, spin_multiplicity=multiplicity
                ),
                "def2-tzvpd",
            )


def test_a_threshold_that_leaves_too_few_orbitals_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"overlap threshold 10 keeps 0 orbitals, wanted more than 1; lower it"
    ):
        orbitals.solve(np.eye(3), orbitals.canonical_projectors(np.eye(3), (10.0,))[0], 1)
    with pytest.raises(ValueError, match=r"hamiltonian: got shape \(2, 2\), wanted \(3, 3\)"):
        orbitals.solve(np.eye(2), orbitals.canonical_projectors(np.eye(3), (0.1,))[0], 1)


def test_ghosts_lie_mostly_outside_the_space_that_they_should_fill() -> None:
    weights = np.array([1.0, 0.9, 0.7, 0.1, 0.4])  # of orbitals, inside the reference's space
    assert orbitals.ghost_count(weights) == 2
    assert orbitals.lost_occupied(weights) == pytest.approx(1.9)
    assert orbitals.subspace_overlap(weights) == pytest.approx(0.62)
