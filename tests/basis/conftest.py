"""Real matrices of one asymmetric molecule, with an ECP, in two orientations."""

import numpy as np
import pytest
from pyscf import gto, scf

from helm_scale.basis.layout import ao_offsets
from helm_scale.dft.molecule import build_mol, kohn_sham, to_canonical
from helm_scale.types import Molecule
from tests.basis.samples import BASIS, PBE, Turned
from tests.rotations import ao_rotation, random_rotation


def _matrices(mol: gto.Mole, density: np.ndarray) -> dict[str, np.ndarray]:
    """S, core Hamiltonian and the Fock matrices of HF and PBE, PySCF's order, of one density."""
    solver = scf.RHF(mol)
    return {
        "overlap": solver.get_ovlp(),
        "core": solver.get_hcore(),
        "hartree-fock": solver.get_fock(dm=density),
        "pbe": np.asarray(kohn_sham(mol, PBE).get_fock(dm=density)),
    }


@pytest.fixture(scope="session")
def turned() -> Turned:
    """Distorted HO-I in def2-TZVPD, 108 AOs.

    Its converged Hartree-Fock density fixes all Fock matrices.
    """
    numbers = np.array([8, 1, 53])
    positions = np.array([[0.0, 0.0, 0.1], [0.76, 0.1, 0.6], [-1.8, 0.7, -0.4]])
    rotation = random_rotation(7)
    found = []
    for where in (positions, positions @ rotation.numpy().T):
        mol = build_mol(Molecule("hoi", numbers, where), BASIS)
        solver = scf.RHF(mol)
        solver.conv_tol, solver.conv_tol_grad = 1e-12, 1e-7
        solver.kernel()
        assert solver.converged
        matrices = _matrices(mol, solver.make_rdm1())
        found.append(
            {name: to_canonical(matrix, BASIS, numbers) for name, matrix in matrices.items()}
        )
    return Turned(
        atomic_numbers=numbers,
        offsets=ao_offsets(BASIS, numbers),
        before=found[0],
        after=found[1],
        rotation=rotation,
        ao_rotation=ao_rotation(rotation, BASIS, numbers),
    )
