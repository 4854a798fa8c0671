"""The energy functional of one molecule: E[P] and F[P] of any density, in the method of the labels.

E[P] is evaluated afresh from the density (PySCF's `energy_tot`), so its error is second order in that of H. Matrices
come and go in canonical AO order.
"""

import numpy as np
from pyscf.dft.rks import RKS

from helm_scale.batch import Method, Molecule
from helm_scale.dft.molecule import build_mol, from_canonical, kohn_sham, minao_hamiltonian, to_canonical


def overlap(molecule: Molecule, basis: str) -> np.ndarray:
    """Overlap matrix [nao, nao], float64, canonical order."""
    return to_canonical(build_mol(molecule, basis).intor_symmetric("int1e_ovlp"), basis, molecule.atomic_numbers)


class EnergyFunctional:
    """One molecule in one method: grid and integrals are built once and serve every density."""

    def __init__(self, molecule: Molecule, method: Method) -> None:
        """Prepare PySCF; nothing is computed yet.

        Raises:
            ValueError: element not covered, impossible charge or multiplicity, open shell.
        """
        self._method = method
        self._numbers = molecule.atomic_numbers
        self._mol = build_mol(molecule, method.basis)
        self._solver = kohn_sham(self._mol, method)
        self._core: np.ndarray | None = None

    def energy_and_fock(self, density: np.ndarray) -> tuple[float, np.ndarray]:
        """Total energy (Hartree) and Kohn-Sham matrix [nao, nao] (Hartree) of a density matrix [nao, nao]."""
        if self._core is None:
            self._core = self._solver.get_hcore()
        dm = from_canonical(density, self._method.basis, self._numbers)
        potential = self._solver.get_veff(self._mol, dm)
        energy = self._solver.energy_tot(dm, self._core, potential)
        return float(energy), self._symmetric(self._core + np.asarray(potential))

    def baseline(self) -> np.ndarray:
        """H0 [nao, nao], Hartree: one Fock build from the minao density."""
        return self._symmetric(minao_hamiltonian(self._solver))

    def scf_cycles(self, density: np.ndarray | None, max_cycle: int = 50) -> int:
        """Cycles until the SCF converges from a density matrix [nao, nao], or from PySCF's minao guess if None.

        Raises:
            RuntimeError: not converged.
        """
        solver: RKS = kohn_sham(self._mol, self._method)
        solver.max_cycle = max_cycle
        solver.kernel(dm0=None if density is None else from_canonical(density, self._method.basis, self._numbers))
        if not solver.converged:
            raise RuntimeError(f"{self._mol.elements}: SCF did not converge in {max_cycle} cycles; raise max_cycle")
        return int(solver.cycles)

    def _symmetric(self, matrix: np.ndarray) -> np.ndarray:
        """Canonical order, equal to its transpose to the last bit."""
        ordered = to_canonical(matrix, self._method.basis, self._numbers)
        return (ordered + ordered.T) / 2
