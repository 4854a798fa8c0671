"""Solves H C = S C E in float64, also where the overlap S is nearly singular.

Overlaps of diffuse basis sets have eigenvalues down to 1e-6, whose inverse amplifies any error of
H. Canonical orthogonalisation (Loewdin, Adv. Quantum Chem. 5, 185 (1970)) solves in the span of the
eigenvectors of S above a threshold.

Axes: a, b atomic orbitals, k orthonormal functions that are kept.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def canonical_orthogonalizers(
    overlap_ab: Tensor, thresholds: Sequence[float]
) -> tuple[Tensor, list[Tensor]]:
    """Diagonalise S once and build X = U s^-1/2, with X^T S X = 1, for every threshold.

    Returns:
        (eigenvalues of S, ascending [a]; one X [a, k] per threshold: eigenvectors whose eigenvalue
        is below it are dropped).
    """
    values_a, vectors_ab = torch.linalg.eigh(overlap_ab.double())
    orthogonalizers = []
    for threshold in thresholds:
        is_kept = values_a >= threshold
        orthogonalizers.append(vectors_ab[:, is_kept] * values_a[is_kept].rsqrt())
    return values_a, orthogonalizers


def solve_roothaan_hall(hamiltonian_ab: Tensor, orthogonalizer_ak: Tensor) -> tuple[Tensor, Tensor]:
    """Solve H C = S C E (Roothaan-Hall) in the span of X, S being the overlap that X came from.

    Returns:
        (energies E [k], ascending, in the unit of H; coefficients C [a, k], C^T S C = 1).
    """
    # In X the overlap is the unit matrix. A Cholesky factor of S would do the same without
    # dropping a direction, and amplify the error of H by the inverse of its smallest eigenvalue.
    x_ak = orthogonalizer_ak
    energies_k, vectors_kk = torch.linalg.eigh(x_ak.T @ hamiltonian_ab.double() @ x_ak)
    return energies_k, x_ak @ vectors_kk
