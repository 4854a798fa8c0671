"""Computes energy, Fock matrix, forces and dipole of any density of one molecule.

The method is that of the labels. E[P] is evaluated afresh from the density (PySCF's `energy_tot`),
so its error is second order in that of H. Grid, integrals and fitting tensors are made once and
serve every density. Matrices come and go in canonical AO order.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from helm_scale.dft import device
from helm_scale.dft.forces import gradients
from helm_scale.dft.molecule import (
    baseline_hamiltonian,
    build_mol,
    from_canonical,
    kohn_sham,
    to_canonical,
)
from helm_scale.dft.potential import Projection
from helm_scale.types import Method, Molecule
from helm_scale.units import BOHR_IN_ANGSTROM


@dataclass(frozen=True)
class ScfRun:
    """What one SCF took.

    Attributes:
        cycles: as PySCF counts: diagonalisations up to the one after which energy and orbital
            gradient are below their thresholds. From a converged density it is 1, which only
            confirms. The extra one that PySCF adds is not counted.
        energy: Hartree, of the last cycle. seconds: without grid and integrals, which were there.
    """

    cycles: int
    energy: float
    seconds: float
    converged: bool


def overlap(molecule: Molecule, basis: str) -> np.ndarray:
    """Overlap matrix [nao, nao], float64, canonical order."""
    return to_canonical(
        build_mol(molecule, basis).intor_symmetric("int1e_ovlp"), basis, molecule.atomic_numbers
    )


class EnergyFunctional:
    """One molecule in one method: grid and integrals are built once and serve every density.

    Attributes:
        method: that of all energies and matrices.
    """

    def __init__(self, molecule: Molecule, method: Method) -> None:
        """Prepare PySCF; nothing is computed yet.

        Raises:
            ValueError: element not covered, impossible charge or multiplicity, open shell.
        """
        self.method = method
        self._numbers = molecule.atomic_numbers
        self._mol = build_mol(molecule, method.basis)
        self._solver = kohn_sham(self._mol, method)
        self._builder = device.builder(self._solver, method.program)
        self._core: np.ndarray | None = None
        self._baselines: dict[str, np.ndarray] = {}
        self._projection: Projection | None = None

    def prepare(self) -> None:
        """Compute core Hamiltonian, grid and fitting tensors now, not with the first energy."""
        self._core = self._solver.get_hcore()
        # with_non0tab: which AOs vanish on which grid blocks, without which PySCF evaluates all.
        self._solver.grids.build(with_non0tab=True)
        if self.method.auxbasis:
            self._solver.with_df.build()

    def energy_and_fock(self, density: np.ndarray) -> tuple[float, np.ndarray]:
        """Compute total energy and Kohn-Sham matrix [nao, nao], Hartree, of a density matrix."""
        if self._core is None:
            self.prepare()
        assert self._core is not None
        dm, core = (
            device.send(self._pyscf(density), self._builder),
            device.send(self._core, self._builder),
        )
        # The potential carries the energies that it came with (ecoul, exc): energy_tot reads them
        # and does no second quadrature.
        potential = self._builder.get_veff(self._mol, dm)
        energy = self._builder.energy_tot(dm, core, potential)
        return float(energy), self._canonical(self._core + device.fetch(potential))

    def forces(self, densities: Sequence[np.ndarray], weighted: Sequence[np.ndarray]) -> np.ndarray:
        """Analytic forces [n, N, 3], Hartree/Angstrom.

        Args:
            densities, weighted: n density matrices and energy-weighted ones, [nao, nao] each.
        """
        states = (
            [self._pyscf(matrix) for matrix in matrices] for matrices in (densities, weighted)
        )
        # Forces are minus the gradient; dividing turns Hartree/bohr into Hartree/Angstrom.
        return -gradients(self._solver, *states) / BOHR_IN_ANGSTROM

    def dipole(self, density: np.ndarray) -> np.ndarray:
        """Dipole moment [3] of a density matrix, Debye, about the origin of the coordinates."""
        return np.asarray(
            self._solver.dip_moment(self._mol, self._pyscf(density), unit="Debye", verbose=0)
        )

    def guess(self, key: str) -> np.ndarray:
        """Build PySCF's initial density matrix [nao, nao]: "minao", or "atom" (isolated atoms)."""
        return self._canonical(np.asarray(self._solver.get_init_guess(key=key)))

    def baseline(self, kind: str = "minao") -> np.ndarray:
        """H0 [nao, nao], Hartree: the Fock matrix of the density "minao" or "atoms", built once."""
        if kind not in self._baselines:
            self._baselines[kind] = self._canonical(baseline_hamiltonian(self._solver, kind))
        return self._baselines[kind]

    def kohn_sham_matrix(self, hamiltonian: np.ndarray) -> np.ndarray:
        """The Kohn-Sham matrix nearest to a predicted one, [nao, nao], Hartree (potential.py).

        Raises:
            ValueError: the integrals of the molecule take too much memory.
        """
        if self._projection is None:
            self._projection = Projection(
                self._solver, minao_fock=self._pyscf(self.baseline("minao"))
            )
        return self._canonical(self._projection(self._pyscf(hamiltonian)))

    def scf(self, density: np.ndarray, max_cycle: int = 50) -> ScfRun:
        """Run the SCF from a density matrix [nao, nao], with PySCF's settings.

        The energy threshold is that of the method.
        """
        # A solver of its own: an SCF leaves DIIS history and orbitals behind. Grid and integrals
        # are shared, so that the seconds are those of the cycles.
        solver: Any = kohn_sham(self._mol, self.method)
        solver.max_cycle, solver.grids, solver._eri = (
            max_cycle,
            self._solver.grids,
            self._solver._eri,
        )
        if self.method.auxbasis:
            solver.with_df = self._solver.with_df
        solver = device.builder(solver, self.method.program)
        start = time.perf_counter()
        energy = solver.kernel(dm0=device.send(self._pyscf(density), solver))
        return ScfRun(
            int(solver.cycles), float(energy), time.perf_counter() - start, bool(solver.converged)
        )

    @property
    def gradient_limit(self) -> float:
        """Norm of the orbital gradient below which the SCF stops, Hartree."""
        # PySCF's rule where conv_tol_grad is not set: the energy is second order in the gradient.
        return float(self.method.conv_tol**0.5)

    def _pyscf(self, matrix: np.ndarray) -> np.ndarray:
        return from_canonical(matrix, self.method.basis, self._numbers)

    def _canonical(self, matrix: np.ndarray) -> np.ndarray:
        """Reorder into canonical order and make the matrix symmetric to the last bit."""
        # PySCF's threads add in any order, so that H_ij and H_ji differ in their last bits.
        ordered = to_canonical(matrix, self.method.basis, self._numbers)
        return (ordered + ordered.T) / 2
