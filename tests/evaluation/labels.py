"""Real labels for the evaluation's tests, straight from PySCF."""

from dataclasses import replace

import numpy as np

from helm_scale.batch import GraphBatch, Method, Molecule
from helm_scale.config import ModelConfig
from helm_scale.data.collate import collate
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.molecule import build_mol, kohn_sham, to_canonical

TZVPD = Method("pbe", "def2-tzvpd", "def2", 1, None, 1e-12, "minao", "PySCF")
SVP = replace(TZVPD, basis="def2-svp")
BENZENE = Method("lda", "def2-tzvpd", "def2", 0, "weigend", 1e-9, "none", "PySCF")
NO_THRESHOLD = 1e-12


def label(molecule: Molecule, method: Method) -> tuple[Molecule, np.ndarray]:
    """Run PySCF to convergence; return the labelled molecule and PySCF's orbital energies (Hartree)."""
    solver = kohn_sham(build_mol(molecule, method.basis), method)
    solver.conv_tol_grad = 1e-9  # orbital energies are first order in what the SCF leaves
    energy = solver.kernel()
    assert solver.converged
    hamiltonian = to_canonical(np.asarray(solver.get_fock(dm=solver.make_rdm1())), method.basis, molecule.atomic_numbers)
    labelled = replace(
        molecule,
        hamiltonian=(hamiltonian + hamiltonian.T) / 2,
        baseline_hamiltonian=EnergyFunctional(molecule, method).baseline(),
        energy=float(energy),
        method=method,
    )
    return labelled, solver.mo_energy


def batch_of(molecules: list[Molecule], parity: str = "semilocal", pair_cutoff: float = 50.0) -> GraphBatch:
    """Collate with labels of H itself (no H0)."""
    method = molecules[0].method
    assert method is not None
    return collate(molecules, ModelConfig(basis=method.basis, parity=parity, baseline="none", pair_cutoff=pair_cutoff))


def benzene() -> tuple[Molecule, np.ndarray, np.ndarray]:
    """Benzene in def2-TZVPD with a one-shot LDA matrix: (molecule, H, S); 276 AOs, least overlap eigenvalue 6e-7."""
    angle = np.arange(6) * np.pi / 3
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    molecule = Molecule("benzene", np.repeat([6, 1], 6), np.concatenate([1.395 * ring, 2.482 * ring]))
    return molecule, EnergyFunctional(molecule, BENZENE).baseline(), overlap(molecule, BENZENE.basis)


def noise_like(matrix: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """Symmetric white noise of standard deviation sigma (Hartree)."""
    raw = np.random.default_rng(seed).normal(scale=sigma, size=matrix.shape)
    return np.triu(raw) + np.triu(raw, 1).T
