"""The energy functional: PySCF's own energy, and F as its derivative."""

import importlib.util
import logging
from dataclasses import replace

import numpy as np
import pytest

from helm_scale.dft import device
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.molecule import (
    baseline_hamiltonian,
    build_mol,
    from_canonical,
    kohn_sham,
    to_canonical,
)
from helm_scale.types import Molecule
from tests.evaluation.labels import SVP, TZVPD

HYDROGEN_IODIDE = Molecule("hi", np.array([53, 1]), np.array([[0.1, 0.0, -0.2], [0.9, 1.1, 0.5]]))


@pytest.fixture(scope="module")
def converged() -> tuple[EnergyFunctional, np.ndarray, float]:
    """Functional, canonical density matrix and energy (Hartree) of HI."""
    solver = kohn_sham(build_mol(HYDROGEN_IODIDE, TZVPD.basis), TZVPD)
    energy = solver.kernel()
    density = to_canonical(solver.make_rdm1(), TZVPD.basis, HYDROGEN_IODIDE.atomic_numbers)
    return EnergyFunctional(HYDROGEN_IODIDE, TZVPD), density, energy


def test_the_converged_density_has_the_scf_energy(
    converged: tuple[EnergyFunctional, np.ndarray, float],
) -> None:
    functional, density, energy = converged
    assert abs(functional.energy_and_fock(density)[0] - energy) < 1e-9


def test_fock_is_the_derivative_of_the_energy(
    converged: tuple[EnergyFunctional, np.ndarray, float],
) -> None:
    functional, density, _ = converged
    fock = functional.energy_and_fock(density)[1]
    assert np.array_equal(fock, fock.T)
    step = np.random.default_rng(2).normal(scale=1e-5, size=density.shape)
    step += step.T
    difference = (
        functional.energy_and_fock(density + step)[0]
        - functional.energy_and_fock(density - step)[0]
    )
    assert difference / 2 == pytest.approx(np.sum(fock * step), rel=1e-5)


def test_the_baseline_is_one_fock_build_from_the_minao_density() -> None:
    water = Molecule(
        "water",
        np.array([8, 1, 1]),
        np.array([[0.0, 0.0, 0.1], [0.76, 0.1, 0.68], [-0.74, 0.0, 0.58]]),
    )
    solver = kohn_sham(build_mol(water, SVP.basis), SVP)
    expected = np.asarray(solver.get_fock(dm=solver.get_init_guess(key="minao")))
    found = from_canonical(EnergyFunctional(water, SVP).baseline(), SVP.basis, water.atomic_numbers)
    assert np.abs(found - expected).max() < 1e-10
    assert np.array_equal(found, found.T)


def test_a_record_of_gpu4pyscf_gives_the_same_numbers_and_says_where_it_is_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    water = Molecule(
        "water",
        np.array([8, 1, 1]),
        np.array([[0.0, 0.0, 0.1], [0.76, 0.1, 0.68], [-0.74, 0.0, 0.58]]),
    )
    method = replace(SVP, auxbasis="def2-universal-jfit", conv_tol=1e-9)
    device._ready.cache_clear()
    with caplog.at_level(logging.WARNING, "helm_scale"):
        on_gpu, plain = (
            EnergyFunctional(water, replace(method, program=name))
            for name in ("gpu4pyscf 1.4", "PySCF")
        )
    missing = (
        "labels by gpu4pyscf 1.4; missing here: gpu4pyscf, cupy. PySCF on the CPU does the same"
        in caplog.text
    )
    assert missing == (
        importlib.util.find_spec("gpu4pyscf") is None and importlib.util.find_spec("cupy") is None
    )
    density = plain.guess("minao")
    (energy, fock), (expected, matrix) = (one.energy_and_fock(density) for one in (on_gpu, plain))
    assert abs(energy - expected) < 1e-8 and np.abs(fock - matrix).max() < 1e-8
    assert abs(on_gpu.scf(density).energy - plain.scf(density).energy) < 1e-8


def test_matrices_equal_their_transposes_where_those_of_pyscf_do_not() -> None:
    nitroxyl = Molecule(
        "hno", np.array([7, 8, 1]), np.array([[0.0, 0.05, 0.0], [1.05, 0.6, 0.1], [-0.9, 0.4, 0.5]])
    )
    method = replace(TZVPD, xc="tpss")
    raw = baseline_hamiltonian(kohn_sham(build_mol(nitroxyl, method.basis), method), "minao")
    found = EnergyFunctional(nitroxyl, method).baseline()
    assert not np.array_equal(raw, raw.T) and np.array_equal(found, found.T)


def test_the_overlap_counts_the_electrons(
    converged: tuple[EnergyFunctional, np.ndarray, float],
) -> None:
    _, density, _ = converged
    matrix = overlap(HYDROGEN_IODIDE, TZVPD.basis)
    assert np.trace(density @ matrix) == pytest.approx(26.0, abs=1e-9)  # 54 less 28 in the ECP
    assert np.abs(np.diag(matrix) - 1).max() < 1e-12


def test_a_converged_density_needs_fewer_cycles_than_the_default_guess(
    converged: tuple[EnergyFunctional, np.ndarray, float],
) -> None:
    functional, density, energy = converged
    near, far = functional.scf(density), functional.scf(functional.guess("minao"))
    assert near.converged and far.converged and near.cycles < far.cycles
    assert abs(near.energy - energy) < 1e-9 and abs(far.energy - energy) < 1e-7
    assert not functional.scf(functional.guess("minao"), max_cycle=1).converged


def test_the_dipole_points_from_iodine_to_hydrogen(
    converged: tuple[EnergyFunctional, np.ndarray, float],
) -> None:
    functional, density, _ = converged
    dipole = functional.dipole(density)
    along = HYDROGEN_IODIDE.positions[1] - HYDROGEN_IODIDE.positions[0]
    assert dipole @ along / np.linalg.norm(dipole) / np.linalg.norm(along) == pytest.approx(
        1.0, abs=1e-6
    )
    assert 0.3 < np.linalg.norm(dipole) < 0.8  # 0.45 Debye by experiment


def test_an_open_shell_is_refused() -> None:
    with pytest.raises(ValueError, match=r"multiplicity 3: only closed shells"):
        EnergyFunctional(
            Molecule(
                "o2",
                np.array([8, 8]),
                np.array([[0.0, 0, 0], [0, 0, 1.2]]),
                charge=0,
                spin_multiplicity=3,
            ),
            SVP,
        )


def test_the_baseline_of_isolated_atoms_is_a_fock_build_from_their_densities() -> None:
    water = Molecule(
        "water",
        np.array([8, 1, 1]),
        np.array([[0.0, 0.0, 0.1], [0.76, 0.1, 0.68], [-0.74, 0.0, 0.58]]),
    )
    functional = EnergyFunctional(water, SVP)
    found = functional.baseline("atoms")
    assert np.abs(found - functional.energy_and_fock(functional.guess("atom"))[1]).max() < 1e-9
    assert np.abs(found - functional.baseline()).max() > 1e-3
