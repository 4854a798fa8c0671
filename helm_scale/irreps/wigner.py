"""Computes Wigner matrices that turn edges onto the polar axis, smooth at the poles.

The shortest rotation of a unit vector n onto +z has the quaternion (1+n_z, n_y, -n_x,
0)/sqrt(2(1+n_z)). A Wigner matrix is a homogeneous polynomial of degree 2l in the quaternion, so
one product of monomials with a constant float64 table gives all its entries, with exact derivatives
and without angles. For n_z < 0 the edge is first turned by half a turn about x, which only changes
signs: neither pole is singular. The jump of the frame at n_z = 0 is a rotation about the edge,
which SO(2)-equivariant layers undo.

Axes: E edges, K = (lmax+1)^2 degree-major coefficients, R rows in the edge frame (m-major, see
so2.py).
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from helm_scale.irreps.coupling import clebsch_gordan
from helm_scale.irreps.so2 import so2_layout

_AXES = (1, 2, 0)  # m = -1, 0, +1 of degree 1 are y, z, x


def _rotation_polynomials() -> Tensor:
    """Rotation matrix of the quaternion (w, x, y, 0), rows and columns in the order y, z, x.

    Returns:
        Coefficients [3, 3, i, j] of w^(2-i-j) x^i y^j.
    """
    # The fourth component is zero: the shortest rotation turns about an axis across +z.
    poly = torch.zeros(3, 3, 3, 3, dtype=torch.float64)
    ww, xx, yy, wx, wy, xy = (0, 0), (2, 0), (0, 2), (1, 0), (0, 1), (1, 1)
    entries = {
        (0, 0): {ww: 1, xx: 1, yy: -1}, (0, 1): {xy: 2}, (0, 2): {wy: 2},
        (1, 0): {xy: 2}, (1, 1): {ww: 1, xx: -1, yy: 1}, (1, 2): {wx: -2},
        (2, 0): {wy: -2}, (2, 1): {wx: 2}, (2, 2): {ww: 1, xx: -1, yy: -1},
    }  # fmt: skip
    for (row, column), terms in entries.items():
        for (i, j), value in terms.items():
            poly[row, column, i, j] = value
    return poly[list(_AXES)][:, list(_AXES)]


def _multiply(first: Tensor, second: Tensor) -> Tensor:
    """Kronecker product of polynomial matrices: [a, b, ...] x [c, d, ...] -> [a*c, b*d, ...]."""
    degree = first.shape[-1] + second.shape[-1] - 1
    a, b, c, d = *first.shape[:2], *second.shape[:2]
    product = torch.zeros((a, c, b, d, degree, degree), dtype=torch.float64)
    size = second.shape[-1]
    for i in range(first.shape[-1]):
        for j in range(first.shape[-1] - i):  # homogeneous: i + j is at most the degree
            term = torch.einsum("ab,cdxy->acbdxy", first[..., i, j], second)
            product[..., i : i + size, j : j + size] += term
    return product.flatten(2, 3).flatten(0, 1)


@cache
def _wigner_polynomials(degree: int) -> Tensor:
    """Coefficients [2l+1, 2l+1, 2l+1, 2l+1] of D^l, from the product of D^1 and D^(l-1)."""
    if degree == 0:
        return torch.ones(1, 1, 1, 1, dtype=torch.float64)
    if degree == 1:
        return _rotation_polynomials()
    # The largest degree that D^1 and D^(l-1) couple to; no other one is new.
    isometry = clebsch_gordan(1, degree - 1, degree).flatten(0, 1)
    product = _multiply(_rotation_polynomials(), _wigner_polynomials(degree - 1))
    return torch.einsum("am,abxy,bn->mnxy", isometry, product, isometry)


def _half_turn_signs(lmax: int) -> Tensor:
    """Signs [K] of the coefficients under the half turn (x, -y, -z)."""
    signs = [
        (-1.0) ** (degree + abs(m)) * (-1.0 if m < 0 else 1.0)
        for degree in range(lmax + 1)
        for m in range(-degree, degree + 1)
    ]
    return torch.tensor(signs, dtype=torch.float64)


def _dense_map(lmax: int, mmax: int) -> Tensor:
    """Find for every entry of [2R, K], even rows first, its place in (blocks, -blocks, zero)."""
    layout = so2_layout(lmax, mmax)
    size, count = (lmax + 1) ** 2, sum((2 * degree + 1) ** 2 for degree in range(lmax + 1))
    place = torch.full((size, size), 2 * count)
    start = 0
    for degree in range(lmax + 1):
        width = 2 * degree + 1
        block = slice(degree * degree, (degree + 1) ** 2)
        place[block, block] = start + torch.arange(width * width).view(width, width)
        start += width * width
    rows, signs = (torch.cat(columns) for columns in zip(layout.even, layout.odd, strict=True))
    shift = torch.where(signs < 0, count, 0)[:, None]
    return (place[rows] + torch.where(place[rows] < count, shift, 0)).flatten()


def _wigner_table(lmax: int) -> tuple[Tensor, Tensor]:
    """Exponents [T, 3] of the monomials of degree 2*lmax in (w, x, y), and the coefficients [T, D]
    of all blocks D^0 ... D^lmax, of their negatives, and of a zero; float64.

    As w^2 + x^2 + y^2 = 1, lower blocks times powers of that are of the same degree.
    """
    top = 2 * lmax
    exponents = [(top - i - j, i, j) for i in range(top + 1) for j in range(top + 1 - i)]
    blocks = []
    for degree in range(lmax + 1):
        poly = _wigner_polynomials(degree)
        for _ in range(lmax - degree):
            poly = _times_one(poly)
        blocks.append(torch.stack([poly[..., i, j].flatten() for _, i, j in exponents]))
    table = torch.cat(blocks, dim=1)
    table = torch.cat([table, -table, table.new_zeros(len(table), 1)], dim=1)
    return torch.tensor(exponents), table


def _times_one(poly: Tensor) -> Tensor:
    """Multiply by w^2 + x^2 + y^2: coefficients [..., i, j] of two degrees more."""
    size = poly.shape[-1]
    product = poly.new_zeros(*poly.shape[:-2], size + 2, size + 2)
    for i, j in ((0, 0), (2, 0), (0, 2)):
        product[..., i : i + size, j : j + size] += poly
    return product


class _FrameTables(NamedTuple):
    """Constants of `edge_frames` on one device.

    Attributes:
        steps: exponents 0 ... 2*lmax. exponents: [3, T]. table: [T, D] (_wigner_table).
        signs: [K] of the half turn. dense_map: as _dense_map gives it.
    """

    steps: Tensor
    exponents: Tensor
    table: Tensor
    signs: Tensor
    dense_map: Tensor


@cache
def _frame_tables(
    lmax: int, mmax: int, *, device: torch.device, dtype: torch.dtype, frame_dtype: torch.dtype
) -> _FrameTables:
    """Move the constants to a device once: a copy in every step would have the host wait."""
    exponents, table = _wigner_table(lmax)
    return _FrameTables(
        steps=torch.arange(2 * lmax + 1, device=device),
        exponents=exponents.T.contiguous().to(device),
        table=table.to(device, dtype),
        signs=_half_turn_signs(lmax).to(device, frame_dtype),
        dense_map=_dense_map(lmax, mmax).to(device),
    )


def edge_frames(
    edge_vector: Tensor, lmax: int, mmax: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the matrices that turn coefficients into the frame in which each edge points along +z.

    Args:
        edge_vector: [E, 3], any length unit, none of them zero; float64 keeps the error near 1e-14.
        dtype: of the matrices.
    Returns:
        For even and for odd features (see so2.py), each [E, R, K]: rows as in So2Layout, columns
        degree-major. D D^T = 1 where mmax = lmax; turning the harmonics of the edge itself leaves m
        = 0 only.
    """
    unit = edge_vector / edge_vector.norm(dim=-1, keepdim=True)
    lower = unit[:, 2] < 0
    # The half turn about x changes the signs of y and z. With z >= 0, norm is at least sqrt(2).
    x, y, z = unit[:, 0], torch.where(lower, -unit[:, 1], unit[:, 1]), unit[:, 2].abs()
    norm = torch.sqrt(2 * (1 + z))
    quaternion = torch.stack([(1 + z) / norm, y / norm, -x / norm], dim=-1)
    tables = _frame_tables(lmax, mmax, device=unit.device, dtype=unit.dtype, frame_dtype=dtype)
    # Integer powers by tensor exponents: 0 ** 0 is 1, and its gradient 0, in torch.
    powers = (quaternion.unsqueeze(-1) ** tables.steps).unbind(dim=1)
    w, x, y = (
        power.index_select(1, exponents)
        for power, exponents in zip(powers, tables.exponents, strict=True)
    )
    # Cast late: sums of monomials cancel, which float32 would feel at high degrees.
    flat = (w * x * y @ tables.table).to(dtype)
    # One gather places blocks, their signs and the zeros between them.
    frames = flat.index_select(1, tables.dense_map).unflatten(1, (-1, tables.signs.numel()))
    sign_EK = torch.where(lower[:, None], tables.signs, 1.0).unsqueeze(1)
    even, odd = (frames * sign_EK).chunk(2, dim=1)
    return even, odd
