"""Forces of several densities at once are PySCF's own, for every kind of functional."""

from dataclasses import replace

import numpy as np
import pytest

from helm_scale.dft.energies import EnergyFunctional
from helm_scale.dft.forces import gradients
from helm_scale.dft.molecule import build_mol, kohn_sham, to_canonical
from helm_scale.types import Method, Molecule
from helm_scale.units import BOHR_IN_ANGSTROM

METHOD = Method(
    xc="pbe",
    basis="def2-tzvpd",
    ecp="def2",
    grid_level=0,
    auxbasis="def2-universal-jkfit",
    conv_tol=1e-9,
    baseline="none",
    program="PySCF",
)
HYDROGEN_IODIDE = Molecule("hi", np.array([53, 1]), np.array([[0.1, 0.0, -0.2], [0.9, 1.1, 0.5]]))
NITROXYL = Molecule(
    "hno", np.array([7, 8, 1]), np.array([[0.0, 0.05, 0.0], [1.05, 0.6, 0.1], [-0.9, 0.4, 0.5]])
)
WATER = Molecule(
    "water", np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.1], [0.76, 0.1, 0.68], [-0.74, 0.0, 0.58]])
)
SVP = replace(METHOD, basis="def2-svp")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("molecule", "method"),
    [
        (HYDROGEN_IODIDE, METHOD),
        (NITROXYL, replace(METHOD, xc="tpss")),
        (NITROXYL, replace(METHOD, xc="pbe0")),
        (HYDROGEN_IODIDE, replace(METHOD, xc="wb97x")),
        (WATER, replace(SVP, xc="lda,vwn", auxbasis=None)),
        (WATER, replace(SVP, xc="b3lyp5", auxbasis=None)),
        (WATER, replace(SVP, xc="wb97x", auxbasis=None)),
        (WATER, replace(SVP, xc="hf", auxbasis=None)),
        (WATER, replace(SVP, xc="wb97m-v")),
    ],
    ids=lambda value: (
        value.key
        if isinstance(value, Molecule)
        else f"{value.xc}-{'fitted' if value.auxbasis else 'exact'}"
    ),
)
def test_forces_of_two_densities_are_those_of_pyscf_one_by_one(
    molecule: Molecule, method: Method
) -> None:
    solver = kohn_sham(build_mol(molecule, method.basis), method)
    solver.nlcgrids.level = 0
    expected, densities, weighted = [], [], []
    for guess in ("minao", "atom"):
        energies, coefficients = solver.eig(
            solver.get_fock(dm=solver.get_init_guess(key=guess)), solver.get_ovlp()
        )
        state = energies, coefficients, solver.get_occ(energies, coefficients)
        gradient = solver.nuc_grad_method()
        expected.append(gradient.kernel(*state))
        densities.append(np.asarray(solver.make_rdm1(*state[1:])))
        weighted.append(gradient.make_rdm1e(*state))
    found = gradients(solver, densities, weighted)
    assert np.abs(found - expected).max() < 1e-9
    assert np.abs(found[0] - found[1]).max() > 1e-3  # none is the other's


def test_forces_of_a_converged_density_are_the_slope_of_the_energy() -> None:
    method = replace(SVP, grid_level=3, conv_tol=1e-12)
    solver = kohn_sham(build_mol(WATER, method.basis), method)
    solver.kernel()
    densities = solver.make_rdm1(), solver.nuc_grad_method().make_rdm1e()
    ordered = [
        to_canonical(np.asarray(matrix), method.basis, WATER.atomic_numbers) for matrix in densities
    ]
    forces = EnergyFunctional(WATER, method).forces(*[[matrix] for matrix in ordered])[0]
    step = np.zeros((3, 3))
    step[1, 0] = 1e-3
    ends = [
        kohn_sham(
            build_mol(replace(WATER, positions=WATER.positions + s * step), method.basis), method
        ).kernel()
        for s in (1, -1)
    ]
    assert forces[1, 0] == pytest.approx(
        -(ends[0] - ends[1]) / 2e-3, abs=3e-4
    )  # Hartree/Angstrom; the grid does not respond
    assert np.abs(forces).max() > 10 * 3e-4
    assert forces[1, 0] * BOHR_IN_ANGSTROM == pytest.approx(
        -solver.nuc_grad_method().kernel()[1, 0], abs=1e-9
    )
