"""Real labels for the evaluation's tests, straight from PySCF."""

from dataclasses import replace

import numpy as np

from helm_scale.config import ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.molecule import build_mol, kohn_sham, to_canonical
from helm_scale.types import GraphBatch, Method, Molecule
from helm_scale.units import BOHR_IN_ANGSTROM

TZVPD = Method(
    xc="pbe",
    basis="def2-tzvpd",
    ecp="def2",
    grid_level=1,
    auxbasis=None,
    conv_tol=1e-12,
    baseline="minao",
    program="PySCF",
)
SVP = replace(TZVPD, basis="def2-svp")
BENZENE = Method(
    xc="lda",
    basis="def2-tzvpd",
    ecp="def2",
    grid_level=0,
    auxbasis="weigend",
    conv_tol=1e-9,
    baseline="none",
    program="PySCF",
)
NO_THRESHOLD = 1e-12


def label(molecule: Molecule, method: Method) -> tuple[Molecule, np.ndarray]:
    """Run PySCF to convergence, with its own gradient.

    Returns the labelled molecule and its orbital energies (Hartree).
    """
    solver = kohn_sham(build_mol(molecule, method.basis), method)
    solver.conv_tol_grad = 1e-9  # orbital energies are first order in what the SCF leaves
    energy = solver.kernel()
    assert solver.converged
    hamiltonian = to_canonical(
        np.asarray(solver.get_fock(dm=solver.make_rdm1())), method.basis, molecule.atomic_numbers
    )
    labelled = replace(
        molecule,
        hamiltonian=(hamiltonian + hamiltonian.T) / 2,
        baseline_hamiltonian=EnergyFunctional(molecule, method).baseline(),
        energy=float(energy),
        forces=-solver.nuc_grad_method().kernel() / BOHR_IN_ANGSTROM,
        method=method,
    )
    return labelled, solver.mo_energy


def batch_of(
    molecules: list[Molecule], parity: str = "semilocal", pair_cutoff: float = 50.0
) -> GraphBatch:
    """Collate with labels of H itself (no H0)."""
    method = molecules[0].method
    assert method is not None
    return collate(
        molecules,
        ModelConfig(basis=method.basis, parity=parity, baseline="none", pair_cutoff=pair_cutoff),
    )


def benzene() -> tuple[Molecule, np.ndarray, np.ndarray]:
    """Benzene in def2-TZVPD with a one-shot LDA matrix: (molecule, H, S).

    276 AOs; the least overlap eigenvalue is 6e-7.
    """
    angle = np.arange(6) * np.pi / 3
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    molecule = Molecule(
        "benzene", np.repeat([6, 1], 6), np.concatenate([1.395 * ring, 2.482 * ring])
    )
    return (
        molecule,
        EnergyFunctional(molecule, BENZENE).baseline(),
        overlap(molecule, BENZENE.basis),
    )


def hexane() -> Molecule:
    """Hexane in def2-TZVPD, its label T + V of superposed atomic potentials.

    20 atoms, 348 AOs; the least overlap eigenvalue is 5e-6. The label is the one-shot Kohn-Sham
    matrix of Lehtola's tabulated potentials (J. Chem. Theory Comput. 15, 1593 (2019)).
    """
    along, across, tilt = (
        1.53 * np.sin(np.deg2rad(56)),
        1.53 * np.cos(np.deg2rad(56)),
        np.deg2rad(53),
    )
    carbons = np.array([[i * along, (i % 2) * across, 0.0] for i in range(6)])
    hydrogens = []
    for i, carbon in enumerate(carbons):
        up = 1 if i % 2 else -1
        hydrogens += [
            carbon + 1.09 * np.array([0.0, up * np.cos(tilt), side * np.sin(tilt)])
            for side in (-1, 1)
        ]
        if i in (0, 5):
            outward = np.array(
                [np.sin(np.deg2rad(56)) * (1 if i else -1), -up * np.cos(np.deg2rad(56)), 0.0]
            )
            hydrogens.append(carbon + 1.09 * outward)
    molecule = Molecule(
        "hexane", np.array([6] * 6 + [1] * 14), np.concatenate([carbons, hydrogens])
    )
    mol = build_mol(molecule, BENZENE.basis)
    matrix = mol.intor_symmetric("int1e_kin") + kohn_sham(mol, BENZENE).get_vsap()
    ordered = to_canonical(matrix, BENZENE.basis, molecule.atomic_numbers)
    return replace(
        molecule, hamiltonian=(ordered + ordered.T) / 2, baseline_hamiltonian=None, method=BENZENE
    )


def noise_like(matrix: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """Symmetric white noise of standard deviation sigma (Hartree)."""
    raw = np.random.default_rng(seed).normal(scale=sigma, size=matrix.shape)
    return np.triu(raw) + np.triu(raw, 1).T
