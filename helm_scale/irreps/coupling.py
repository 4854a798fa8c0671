"""Clebsch-Gordan coupling of shell-pair blocks into irreps, as orthogonal matrices in float64.

Tables are Racah's formula in exact fractions, turned to real harmonics, m = -l..l. They equal those
of e3nn's Wigner 3j symbols, whose import takes seconds: e3nn's polar axis is y and ours is z, but
its harmonics at (y, z, x) are ours at (x, y, z).

Axes: B blocks, p = 2*l1+1, q = 2*l2+1, M = 2*L+1.
"""

import math
from fractions import Fraction
from functools import cache

import numpy as np
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
    between_complex = torch.zeros(2 * l1 + 1, 2 * l2 + 1, 2 * degree + 1, dtype=torch.complex128)
    for m1 in range(-l1, l1 + 1):
        for m2 in range(max(-l2, -degree - m1), min(l2, degree - m1) + 1):
            value = _racah(l1, m1, l2, m2, degree)
            between_complex[l1 + m1, l2 + m2, degree + m1 + m2] = value
    first, second, third = (_complex_from_real(degree_) for degree_ in (l1, l2, degree))
    table = torch.einsum("pa,qb,cM,pqM->abc", first, second, third.T.conj(), between_complex).real
    # The same operations as e3nn's, so that tables agree to the last bit
    return (2 * degree + 1) ** 0.5 * (table / table.norm())


def _racah(l1: int, m1: int, l2: int, m2: int, degree: int) -> float:
    """<l1 m1 l2 m2 | L m1+m2> of complex harmonics (Condon and Shortley's signs)."""
    order = m1 + m2
    outer = Fraction(
        _factorials(degree + l1 - l2, degree - l1 + l2, l1 + l2 - degree)
        * _factorials(degree + order, degree - order),
        _factorials(l1 + l2 + degree + 1, l1 - m1, l1 + m1, l2 - m2, l2 + m2),
    )
    total = sum(
        (-1) ** (k + l2 + m2)
        * Fraction(
            _factorials(l2 + degree + m1 - k, l1 - m1 + k),
            _factorials(k, degree - l1 + l2 - k, degree + order - k, k + l1 - l2 - order),
        )
        for k in range(max(0, l2 - l1 + order), min(degree - l1 + l2, degree + order) + 1)
    )
    return float(((2 * degree + 1.0) * outer) ** 0.5 * total)


def _factorials(*numbers: int) -> int:
    """Product of the factorials."""
    return math.prod(math.factorial(number) for number in numbers)


def _complex_from_real(degree: int) -> Tensor:
    """Complex harmonics in terms of real ones, [complex m, real m]; complex128.

    The phase (-i)^l makes all coupling coefficients real.
    """
    matrix = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=np.complex128)
    matrix[degree, degree] = 1
    for m in range(1, degree + 1):
        sign, share = (-1) ** m, 1 / 2**0.5
        matrix[degree - m, degree + m] = share
        matrix[degree - m, degree - m] = -1j * share
        matrix[degree + m, degree + m] = sign * share
        matrix[degree + m, degree - m] = 1j * sign * share
    return torch.from_numpy((-1j) ** degree * matrix)


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
