"""From Hamiltonian to orbitals and density, in float64, safe for nearly singular overlaps.

def2-TZVPD overlaps have eigenvalues down to 1e-6. Noise on H is amplified by their inverse, and the
lowest solutions of HC = SCe become ghosts: states of no physical content below the true ones.
Canonical orthogonalisation (Loewdin, Adv. Quantum Chem. 5, 185 (1970)) drops the overlap
eigenvectors below a threshold; reference and prediction go through the same projector, and ghosts
are counted.

Axes: nao atomic orbitals, nmo <= nao orbitals kept by the projector.
"""

from dataclasses import dataclass

import numpy as np
import torch

from helm_scale.basis import eigen, electrons
from helm_scale.types import Molecule

# PySCF's own SCF drops overlap eigenvalues below it, so that no label knows their directions.
PYSCF_THRESHOLD = 1e-6
# Projection alone then costs benzene 98 meV, and 79 uEh in occupied orbital energies.
LARGEST_THRESHOLD = 1e-2
# Measured on alkanes with white noise on H; see `chosen_threshold`.
THRESHOLD_PER_ERROR = 15.0


@dataclass(frozen=True, kw_only=True)
class Projector:
    """Orthonormal basis of the kept part of AO space.

    Attributes:
        vectors: X [nao, nmo] with X^T S X = 1. overlap: S [nao, nao].
        threshold: overlap eigenvalues below it are dropped. dropped: how many were. smallest: the
            least eigenvalue of S.
    """

    vectors: np.ndarray
    overlap: np.ndarray
    threshold: float
    dropped: int
    smallest: float


@dataclass(frozen=True)
class Orbitals:
    """Solutions of HC = SCe.

    Attributes:
        energies: [nmo] Hartree, ascending. coefficients: [nao, nmo]. occupied: number of doubly
            occupied orbitals.
    """

    energies: np.ndarray
    coefficients: np.ndarray
    occupied: int

    @property
    def homo(self) -> float:
        """Energy of the highest occupied orbital, Hartree."""
        return float(self.energies[self.occupied - 1])

    @property
    def lumo(self) -> float:
        """Energy of the lowest unoccupied orbital, Hartree."""
        return float(self.energies[self.occupied])

    @property
    def gap(self) -> float:
        """LUMO - HOMO, Hartree."""
        return self.lumo - self.homo

    def density_matrix(self) -> np.ndarray:
        """Closed-shell density P = 2 C_occ C_occ^T, [nao, nao]."""
        filled = self.coefficients[:, : self.occupied]
        return 2 * filled @ filled.T

    def energy_weighted_density(self) -> np.ndarray:
        """Energy-weighted density W = 2 C_occ e_occ C_occ^T, [nao, nao], Hartree.

        Forces contract it with the derivative of S.
        """
        filled = self.coefficients[:, : self.occupied]
        return 2 * (filled * self.energies[: self.occupied]) @ filled.T


def chosen_threshold(error: float) -> float:
    """Choose the overlap threshold for a mean absolute error of H (Hartree): 15 times the error.

    It is kept between PYSCF_THRESHOLD and LARGEST_THRESHOLD.

    White noise of standard deviation sigma shifts n weakly bound directions of overlap s by up to 2
    sigma sqrt(n) / s. Alkanes of 20 to 53 atoms in def2-TZVPD with noise of 1e-5 and 6e-5 Eh lose
    their ghosts between 5 and 10 times the mean error; at 15 times truncation and noise cost about
    the same; above 1e-2 truncation alone costs 1e-4 Eh in orbital energies.
    """
    return float(np.clip(THRESHOLD_PER_ERROR * error, PYSCF_THRESHOLD, LARGEST_THRESHOLD))


def canonical_projectors(overlap: np.ndarray, thresholds: tuple[float, ...]) -> list[Projector]:
    """Canonical orthogonalisation of S [nao, nao] at several thresholds, one diagonalisation."""
    values, orthogonalizers = eigen.canonical_orthogonalizers(torch.tensor(overlap), thresholds)
    smallest = float(values[0])
    return [
        Projector(
            vectors=x.numpy(),
            overlap=overlap,
            threshold=threshold,
            dropped=len(overlap) - x.shape[1],
            smallest=smallest,
        )
        for threshold, x in zip(thresholds, orthogonalizers, strict=True)
    ]


def occupied_count(molecule: Molecule, basis: str) -> int:
    """Doubly occupied orbitals: half of the electrons that the ECPs leave.

    Raises:
        ValueError: not a closed shell.
    """
    return electrons.occupied_orbitals(
        basis,
        molecule.atomic_numbers,
        charge=molecule.charge,
        multiplicity=molecule.spin_multiplicity,
        where=molecule.key,
    )


def solve(hamiltonian: np.ndarray, projector: Projector, occupied: int) -> Orbitals:
    """Solve HC = SCe inside the projector's space.

    Args:
        hamiltonian: [nao, nao] float64, Hartree, in the AO order of the projector's overlap.
    Raises:
        ValueError: the matrix has another size than the overlap, or the projector keeps no more
            orbitals than are occupied.
    """
    if hamiltonian.shape != projector.overlap.shape:
        raise ValueError(
            f"hamiltonian: got shape {hamiltonian.shape}, wanted {projector.overlap.shape} as the"
            " overlap has"
        )
    nmo = projector.vectors.shape[1]
    if nmo <= occupied:  # equality leaves no LUMO
        raise ValueError(
            f"overlap threshold {projector.threshold:g} keeps {nmo} orbitals, wanted more than"
            f" {occupied}; lower it"
        )
    # torch.tensor copies: an array read from a file may be read-only, which from_numpy warns of.
    energies, coefficients = eigen.solve_roothaan_hall(
        torch.tensor(hamiltonian), torch.from_numpy(projector.vectors)
    )
    return Orbitals(energies.numpy(), coefficients.numpy(), occupied)


def occupied_weights(orbitals: Orbitals, reference: Orbitals, overlap: np.ndarray) -> np.ndarray:
    """Weight, 0 to 1, of each occupied orbital in the reference's occupied space: [occupied]."""
    filled, target = (
        orbitals.coefficients[:, : orbitals.occupied],
        reference.coefficients[:, : reference.occupied],
    )
    return np.square(filled.T @ overlap @ target).sum(axis=1)


def coefficient_similarity(orbitals: Orbitals, reference: Orbitals) -> np.ndarray:
    """Cosine |<C_k, C_ref,k>| / (|C_k| |C_ref,k|) of every occupied orbital: [occupied].

    It leaves out the overlap matrix, as the field reports it. Undefined inside degenerate
    subspaces, where any rotation is as good; `subspace_overlap` is defined there too.
    """
    filled, target = (
        orbitals.coefficients[:, : orbitals.occupied],
        reference.coefficients[:, : reference.occupied],
    )
    # The absolute value, because the sign of an eigenvector is arbitrary.
    return np.abs((filled * target).sum(axis=0)) / (
        np.linalg.norm(filled, axis=0) * np.linalg.norm(target, axis=0)
    )


def gradient_norm(orbitals: Orbitals, fock: np.ndarray) -> float:
    """Norm of the orbital gradient 2 C_virtual^T F C_occupied, Hartree; F [nao, nao].

    It is zero if F belongs to the density of these orbitals and the SCF has converged.
    """
    filled, empty = np.split(orbitals.coefficients, [orbitals.occupied], axis=1)
    return 2 * float(np.linalg.norm(empty.T @ fock @ filled))


def subspace_overlap(weights: np.ndarray) -> float:
    """Tr(P S P_ref S) / (4 N_occ): 1 when both fill the same space."""
    return float(weights.mean())


def lost_occupied(weights: np.ndarray) -> float:
    """How many occupied orbitals of the reference are missing: N_occ - Tr(P S P_ref S) / 4.

    It need not be an integer: an orbital can be half missing.
    """
    return float(len(weights) - weights.sum())


def ghost_count(weights: np.ndarray) -> int:
    """Count occupied orbitals with less than half of their weight in the reference's space."""
    # A true orbital may mix with its neighbours; a ghost lies almost wholly outside.
    return int((weights < 0.5).sum())
