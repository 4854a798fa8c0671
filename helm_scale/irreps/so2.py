"""Rows of the frame in which an edge lies on the polar axis, sorted so that SO(2)-equivariant maps
are plain matrices.

Two atoms give two inputs: their sum, which is even when the atoms change places, and their
difference, which is odd. In the frame of the edge the exchange is a half turn X about an axis
across it. For every order m > 0 the coefficients +m and -m of degree l give U, which X keeps, and
V, which it turns over: (U, V) = (u, v) for even l+m, else (v, -u). For m = 0, X keeps even degrees
(U) and turns odd ones over (V). Written as p = (U of even features, V of odd features) and q = (V
of even features, -U of odd features), a turn about the edge acts on (p, q) as on (x, y) for every
feature alike, and the exchange keeps p and turns q over. So the linear maps that commute with both
are real matrices on p, applied to q as well; for m = 0 there are two, as p and q do not mix.

Axes: K = (lmax+1)^2 degree-major coefficients, k = l*l + l + m; R = rows of even (or odd) features
in the edge frame.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class So2Layout:
    """Edge-frame rows with |m| <= mmax. Order by order: the p rows, then the q rows, each by
    degree.

    Attributes:
        even: (degree-major index k, sign) of every row of an even feature, [R] int64 and [R]
            float64; odd: likewise.
        sizes: for every order the rows (p even, p odd, q even, q odd).
        parts: `sizes` as one list.
        kind: for features with even and odd halves, rows joined as in `sizes`: degree l if even,
            lmax+1+l if odd, [2R].
        orders: (degrees of p, of q) of even features, then of odd ones, for every order.
    """

    lmax: int
    mmax: int
    even: tuple[Tensor, Tensor]
    odd: tuple[Tensor, Tensor]
    sizes: tuple[tuple[int, int, int, int], ...]
    parts: tuple[int, ...]
    kind: Tensor
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
    orders, kinds = [], []
    for m in range(mmax + 1):
        kept, turned = _kept_and_turned(lmax, m)
        p_even, q_even, p_odd, q_odd = kept, turned, turned, kept
        even += [_row(degree, m, True) for degree in p_even] + [
            _row(degree, m, False) for degree in q_even
        ]
        odd += [_row(degree, m, False) for degree in p_odd] + [
            _negative(_row(degree, m, True)) for degree in q_odd
        ]
        orders.append((p_even, p_odd, q_even, q_odd))
        for number, degrees in enumerate(orders[-1]):
            kinds += [degree + (lmax + 1) * (number % 2) for degree in degrees]
    sizes = tuple((len(a), len(b), len(c), len(d)) for a, b, c, d in orders)
    return So2Layout(
        lmax=lmax,
        mmax=mmax,
        even=_columns(even),
        odd=_columns(odd),
        sizes=sizes,
        parts=sum(sizes, ()),
        kind=torch.tensor(kinds),
        orders=tuple(orders),
    )


def _kept_and_turned(lmax: int, m: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Degrees that have a U, and degrees that have a V."""
    if m == 0:
        return tuple(range(0, lmax + 1, 2)), tuple(range(1, lmax + 1, 2))
    return (tuple(range(m, lmax + 1)),) * 2


def _row(degree: int, m: int, kept: bool) -> tuple[int, float]:
    """Degree-major index and sign of U (kept) or V of one degree and order."""
    plus, minus = degree * degree + degree + m, degree * degree + degree - m
    if m == 0 or (degree + m) % 2 == 0:
        return (plus, 1.0) if kept else (minus, 1.0)
    return (minus, 1.0) if kept else (plus, -1.0)


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
