"""Index tables of the edge frame: coefficients sorted by order m instead of by degree l.

Once an edge lies on the polar axis, rotations about it mix only +m and -m of the same degree. The m-major order puts
m = 0 first (l = 0..lmax), then for each m > 0 all +m (l = m..lmax) and all -m (l = m..lmax), so that a layer cuts the
coefficients into contiguous pieces.

Axes: K = (lmax+1)^2 degree-major coefficients, k = l*l + l + m; R = rows kept in the edge frame.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class So2Layout:
    """Edge-frame order of the coefficients with |m| <= mmax.

    Attributes:
        rows: degree-major index k of every edge-frame row, m-major, [R] int64.
        degree_of_row: degree l of every edge-frame row, [R] int64.
        sizes: number of rows of every order: lmax+1 for m = 0, then 2*(lmax-m+1), m = 1..mmax.
    """

    lmax: int
    mmax: int
    rows: Tensor
    degree_of_row: Tensor
    sizes: tuple[int, ...]


@cache
def so2_layout(lmax: int, mmax: int) -> So2Layout:
    """Build the edge-frame order for degrees up to lmax and orders up to mmax.

    Raises:
        ValueError: not 0 <= mmax <= lmax.
    """
    if not 0 <= mmax <= lmax:
        raise ValueError(f"mmax: got {mmax}, wanted 0 <= mmax <= lmax = {lmax}")
    pairs = [(degree, 0) for degree in range(lmax + 1)]
    sizes = [lmax + 1]
    for m in range(1, mmax + 1):
        pairs += [(degree, m) for degree in range(m, lmax + 1)] + [(degree, -m) for degree in range(m, lmax + 1)]
        sizes.append(2 * (lmax - m + 1))
    rows = torch.tensor([degree * degree + degree + m for degree, m in pairs])
    return So2Layout(lmax, mmax, rows, torch.tensor([degree for degree, _ in pairs]), tuple(sizes))


def degree_of_coefficient(lmax: int) -> Tensor:
    """Degree l of every degree-major coefficient, [K] int64."""
    degrees = torch.arange(lmax + 1)
    return torch.repeat_interleave(degrees, 2 * degrees + 1)
