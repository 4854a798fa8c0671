"""Clebsch-Gordan coupling of shell-pair blocks into irreps, as orthogonal matrices in float64.

Tables come from e3nn's Wigner 3j symbols. e3nn's polar axis is y and ours is z; the coefficients
are the same because e3nn's harmonics at (y, z, x) are ours at (x, y, z), m = -l..l in both.

Axes: B blocks, p = 2*l1+1, q = 2*l2+1, M = 2*L+1.
"""

from functools import cache

import torch
from torch import Tensor


def coupled_degrees(l1: int, l2: int) -> tuple[int, ...]:
    """Degrees L that a shell pair couples to: |l1-l2| <= L <= l1+l2."""
    return tuple(range(abs(l1 - l2), l1 + l2 + 1))


@cache
def clebsch_gordan(l1: int, l2: int, degree: int) -> Tensor:
    """Return sqrt(2L+1) * w3j(l1, l2, L), float64 [p, q, M].

    It is an isometry: summed over p and q, its square is the unit matrix [M, M].
    """
    from e3nn import o3  # slow to import, needed for tables only

    return (2 * degree + 1) ** 0.5 * o3.wigner_3j(l1, l2, degree, dtype=torch.float64)


@cache
def coupling_matrix(l1: int, l2: int) -> Tensor:
    """Return the orthogonal matrix [p*q, p*q] that couples a shell pair; columns by L, then M."""
    size = (2 * l1 + 1) * (2 * l2 + 1)
    columns = [
        clebsch_gordan(l1, l2, degree).reshape(size, -1) for degree in coupled_degrees(l1, l2)
    ]
    return torch.cat(columns, dim=1)


def couple(block_Bpq: Tensor, l1: int, l2: int) -> dict[int, Tensor]:
    """Split shell-pair blocks into irreps.

    h^L_M = sqrt(2L+1) * sum_pq w3j(l1, l2, L)_pqM H_pq   (HELM, arXiv:2510.00224, Hamiltonian head)

    Args:
        block_Bpq: H between a shell of degree l1 and one of degree l2, Hartree.
    Returns:
        {L: h_BM}, Hartree; the squared norm of the block is kept.
    Raises:
        ValueError: the last two axes are not (2*l1+1, 2*l2+1).
    """
    if block_Bpq.shape[-2:] != (2 * l1 + 1, 2 * l2 + 1):
        raise ValueError(
            f"shell-pair block: got {tuple(block_Bpq.shape[-2:])}, wanted"
            f" {(2 * l1 + 1, 2 * l2 + 1)}"
        )
    degrees = coupled_degrees(l1, l2)
    matrix = coupling_matrix(l1, l2).to(block_Bpq)  # cached as float64 on the CPU
    # One product for all degrees instead of a small one for each.
    irreps = (block_Bpq.flatten(-2) @ matrix).split([2 * degree + 1 for degree in degrees], dim=-1)
    return dict(zip(degrees, irreps, strict=True))


def uncouple(irreps: dict[int, Tensor], l1: int, l2: int) -> Tensor:
    """Rebuild shell-pair blocks [B, 2*l1+1, 2*l2+1] from {L: h_BM}; inverts `couple`.

    Degrees that are absent count as zero.
    """
    blocks = [h @ clebsch_gordan(l1, l2, L).to(h).flatten(0, 1).T for L, h in irreps.items()]
    return torch.stack(blocks).sum(0).unflatten(-1, (2 * l1 + 1, 2 * l2 + 1))
