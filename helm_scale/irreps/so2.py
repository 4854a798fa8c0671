"""Sorts coefficients in the frame of an edge so that SO(2)-equivariant maps are plain matrices.

Two atoms give two inputs: their sum, which is even when the atoms change places, and their
difference, which is odd. In the frame of the edge, where it lies on the polar axis, the exchange is
a half turn X about an axis across it. For every order m > 0 the coefficients u and v of +m and -m
of degree l give U, which X leaves alone, and V, whose sign X changes: (U, V) = (u, v) for even l+m,
else (v, -u). For m = 0, X leaves even degrees alone (U) and changes the sign of odd ones (V).

Let p = (U of even features, V of odd features) and q = (V of even features, -U of odd features).
Then a rotation about the edge acts on (p, q) as on (x, y) for every feature alike, and the exchange
keeps p and changes the sign of q. So the linear maps that commute with both are real matrices on p,
applied to q as well; for m = 0 there are two, as p and q do not mix.

Axes: K = (lmax+1)^2 degree-major coefficients, k = l*l + l + m; R = rows of even (or odd) features
in the edge frame.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class So2Layout:
    """Edge-frame rows with |m| <= mmax, order by order: the p rows, then the q rows, by degree.

    Attributes:
        even: (degree-major index k, sign) of every row of an even feature, [R] int64 and [R]
            float64; odd: likewise.
        sizes: for every order the rows (p even, p odd, q even, q odd).
        split_sizes: `sizes` as one list, as torch.split takes it.
        irrep_of_row: for features with even and odd halves, rows joined as in `sizes`: degree l if
            even, lmax+1+l if odd, [2R].
        orders: (degrees of p, of q) of even features, then of odd ones, for every order.
    """

    lmax: int
    mmax: int
    even: tuple[Tensor, Tensor]
    odd: tuple[Tensor, Tensor]
    sizes: tuple[tuple[int, int, int, int], ...]
    split_sizes: tuple[int, ...]
    irrep_of_row: Tensor
    orders: tuple[tuple[tuple[int, ...], ...], ...]


@cache
def so2_layout(lmax: int, mmax: int) -> So2Layout:
    """Build the edge-frame rows for degrees up to lmax and orders up to mmax.

    Raises:
        ValueError: not 0 <= mmax <= lmax.
    """
    if not 0 <= mmax <= lmax:
        raise ValueError(f"mmax: got {mmax}, wanted 0 <= mmax <= lmax = {lmax}")
    even: list[tuple[int, float]] = []
    odd: list[tuple[int, float]] = []
    orders, irrep_of_row = [], []
    for m in range(mmax + 1):
        degrees_u, degrees_v = _degrees_of_u_and_v(lmax, m)
        # The exchange of atoms changes odd features once more, so U and V trade places there.
        p_even, q_even, p_odd, q_odd = degrees_u, degrees_v, degrees_v, degrees_u
        even += [_row(degree, m, True) for degree in p_even] + [
            _row(degree, m, False) for degree in q_even
        ]
        odd += [_row(degree, m, False) for degree in p_odd] + [
            _negative(_row(degree, m, True)) for degree in q_odd
        ]
        orders.append((p_even, p_odd, q_even, q_odd))
        for number, degrees in enumerate(orders[-1]):
            irrep_of_row += [degree + (lmax + 1) * (number % 2) for degree in degrees]
    sizes = tuple((len(a), len(b), len(c), len(d)) for a, b, c, d in orders)
    return So2Layout(
        lmax=lmax,
        mmax=mmax,
        even=_columns(even),
        odd=_columns(odd),
        sizes=sizes,
        split_sizes=sum(sizes, ()),
        irrep_of_row=torch.tensor(irrep_of_row),
        orders=tuple(orders),
    )


def _degrees_of_u_and_v(lmax: int, m: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Degrees that have a U, and degrees that have a V."""
    if m == 0:  # one coefficient per degree, which is either
        return tuple(range(0, lmax + 1, 2)), tuple(range(1, lmax + 1, 2))
    return (tuple(range(m, lmax + 1)),) * 2


def _row(degree: int, m: int, is_u: bool) -> tuple[int, float]:
    """Degree-major index and sign of U, or else of V, of one degree and order."""
    plus, minus = degree * degree + degree + m, degree * degree + degree - m
    if m == 0 or (degree + m) % 2 == 0:
        return (plus, 1.0) if is_u else (minus, 1.0)
    return (minus, 1.0) if is_u else (plus, -1.0)


def _negative(row: tuple[int, float]) -> tuple[int, float]:
    return row[0], -row[1]


def _columns(rows: list[tuple[int, float]]) -> tuple[Tensor, Tensor]:
    return torch.tensor([k for k, _ in rows]), torch.tensor(
        [sign for _, sign in rows], dtype=torch.float64
    )


def degree_of_coefficient(lmax: int) -> Tensor:
    """Degree l of every degree-major coefficient, [K] int64."""
    degrees = torch.arange(lmax + 1)
    return torch.repeat_interleave(degrees, 2 * degrees + 1)
