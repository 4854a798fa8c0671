"""A predicted matrix, brought back to the matrices that a Kohn-Sham operator can have.

A Kohn-Sham matrix is F = h + K + V: the core Hamiltonian, kinetic energy, nuclei and ECPs; the
exact exchange of hybrid functionals; and the matrix of a local potential v, which is the Coulomb
potential of some charge. What is fitted is the difference from a potential V0 that is known, that
of the density of free atoms ("minao"), because the difference is small; it is expanded in an
auxiliary basis:

    V_ij - V0_ij = sum_P c_P (ij|P) [+ sum_P d_P (nabla i . nabla j|P)],

the second sum for meta-GGAs, whose derivative by the kinetic-energy density stands between
gradients, and for which V0 = 0 is better, as measured. Some 2 N coefficients (4 N) are fitted to
N^2/2 elements by least squares: noise averages out, and where combinations of orbitals nearly
vanish, so does the fitted matrix, as the true one does. Noise there makes ghosts of a matrix that
was not projected.

Potentials expanded like this are those of the optimised effective potential in finite basis sets
(Yang and Wu, Phys. Rev. Lett. 89, 143002 (2002)); (ij|P) is the integral of density fitting
(Whitten, J. Chem. Phys. 58, 4496 (1973)). That they repair predicted matrices is ours.

Axes: p pairs i >= j of the N orbitals, P auxiliary functions. PySCF's AO order.
"""

import numpy as np
import torch
from pyscf import df, gto
from pyscf.dft.rks import RKS

from helm_scale.basis.eigen import canonical_orthogonalizers, solve_roothaan_hall

AUXBASIS = "def2-universal-jkfit"
MEMORY_LIMIT = 2 * 2**30  # bytes of integrals of one molecule; the peak is about five times that
PASSES = 4  # exchange matrices at most
STANDS_STILL = 1e-6  # largest change of an element of the density
OVERLAP_THRESHOLD = 1e-6  # PySCF's own SCF drops these directions


class PotentialSpace:
    """Orthonormal basis of the matrices of local potentials.

    The least-squares fit is the orthogonal projection onto it, so nothing needs regularisation:
    coefficients of nearly dependent potentials are ill defined, their matrices are not.
    """

    def __init__(self, mol: gto.Mole, auxbasis: str = AUXBASIS, *, gradients: bool = False) -> None:
        """Compute the integrals.

        Args:
            gradients: with the operators of meta-GGAs.
        Raises:
            ValueError: the integrals take more than MEMORY_LIMIT.
        """
        needed = integral_bytes(mol, auxbasis, gradients=gradients)
        if needed > MEMORY_LIMIT:
            raise ValueError(
                f"projection of {mol.nao} orbitals: integrals take {needed / 2**30:.1f} GiB, limit"
                f" {MEMORY_LIMIT / 2**30:.1f}; use the matrix as predicted (projection: off)"
            )
        self._rows = np.tril_indices(mol.nao)
        # Each element below the diagonal stands for two of the matrix.
        self._weights = np.where(self._rows[0] == self._rows[1], 1.0, np.sqrt(2.0))
        integrals_pP = self._weights[:, None] * _integrals(mol, auxbasis, gradients, self._rows)
        integrals_pP /= np.linalg.norm(integrals_pP, axis=0)
        self._basis_pP = np.linalg.qr(integrals_pP)[0]

    def __call__(self, matrix: np.ndarray) -> np.ndarray:
        """The nearest matrix of a local potential, sum of squares over all elements: [N, N]."""
        packed_p = self._weights * matrix[self._rows]
        fitted = np.zeros_like(matrix)
        fitted[self._rows] = self._basis_pP @ (self._basis_pP.T @ packed_p) / self._weights
        return fitted + np.tril(fitted, -1).T


def integral_bytes(mol: gto.Mole, auxbasis: str = AUXBASIS, *, gradients: bool = False) -> int:
    """Memory of the integrals (ij|P), i >= j, bytes."""
    auxiliary = int(df.addons.make_auxmol(mol, auxbasis).nao) * (2 if gradients else 1)
    return 8 * int(mol.nao) * (int(mol.nao) + 1) // 2 * auxiliary


def _integrals(
    mol: gto.Mole, auxbasis: str, gradients: bool, rows: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """(ij|P), and (nabla i . nabla j|P) beside them where wanted: [p, P]."""
    auxiliary = df.addons.make_auxmol(mol, auxbasis)
    families = [df.incore.aux_e2(mol, auxiliary, "int3c2e", aosym="s2ij")]
    if gradients:
        nine = df.incore.aux_e2(mol, auxiliary, "int3c2e_ipvip1", comp=9)
        families.append((nine[0] + nine[4] + nine[8])[rows])
    return np.hstack(families)


class Projection:
    """Projects matrices of one molecule; integrals are made once."""

    def __init__(
        self, solver: RKS, auxbasis: str = AUXBASIS, *, minao_fock: np.ndarray | None = None
    ) -> None:
        """Prepare for the functional of a Kohn-Sham solver.

        Args:
            minao_fock: the Fock matrix of the density "minao", where the caller has it.
        Raises:
            ValueError: as PotentialSpace.
        """
        self._solver = solver
        self._space = PotentialSpace(solver.mol, auxbasis, gradients=is_meta_gga(solver))
        self._fixed = _fixed_part(solver, minao_fock)
        overlap = torch.from_numpy(solver.get_ovlp())
        (self._orthogonalizer,) = canonical_orthogonalizers(overlap, [OVERLAP_THRESHOLD])[1]

    def __call__(self, hamiltonian: np.ndarray) -> np.ndarray:
        """The Kohn-Sham matrix nearest to a matrix: [N, N] float64, Hartree.

        Exchange is that of the density of the fit, in passes until the density stands still.

        Property: h + V0 + V comes back to 1e-10 for any V of the space; turns with the molecule.
        """
        residual = hamiltonian - self._fixed
        if not is_hybrid(self._solver):
            return np.asarray(self._fixed + self._space(residual))
        exchange, before = np.zeros_like(residual), np.full_like(residual, np.inf)
        for _ in range(PASSES):
            density = self._density(self._fixed + exchange + self._space(residual - exchange))
            if np.abs(density - before).max() < STANDS_STILL:
                break
            exchange, before = exact_exchange(self._solver, density), density
        return np.asarray(self._fixed + exchange + self._space(residual - exchange))

    def _density(self, hamiltonian: np.ndarray) -> np.ndarray:
        """Closed-shell density of a matrix."""
        _, orbitals = solve_roothaan_hall(torch.from_numpy(hamiltonian), self._orthogonalizer)
        filled = orbitals[:, : self._solver.mol.nelectron // 2].numpy()
        return 2 * filled @ filled.T


def _fixed_part(solver: RKS, minao_fock: np.ndarray | None) -> np.ndarray:
    """What is not fitted: h + V0, for meta-GGAs h alone. [N, N], Hartree."""
    if is_meta_gga(solver):
        return np.asarray(solver.get_hcore())
    density = solver.get_init_guess(key="minao")
    fock = solver.get_fock(dm=density) if minao_fock is None else minao_fock
    if is_hybrid(solver):
        fock = fock - exact_exchange(solver, density)
    return np.asarray(fock)


def is_hybrid(solver: RKS) -> bool:
    """Whether the functional has exact exchange."""
    return bool(solver._numint.libxc.is_hybrid_xc(solver.xc))


def is_meta_gga(solver: RKS) -> bool:
    """Whether the functional reads the kinetic-energy density."""
    return str(solver._numint._xc_type(solver.xc)) == "MGGA"


def exact_exchange(solver: RKS, density: np.ndarray) -> np.ndarray:
    """What a hybrid functional, range-separated or not, adds of exact exchange: [N, N], Hartree."""
    omega, long_range, short_range = solver._numint.rsh_and_hybrid_coeff(solver.xc)
    exchange = -0.5 * short_range * solver.get_k(dm=density)
    if omega:
        exchange -= 0.5 * (long_range - short_range) * solver.get_k(dm=density, omega=omega)
    return np.asarray(exchange)
