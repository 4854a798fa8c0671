"""Edge-frame rows hold every coefficient once.

Turns about the edge and the exchange of its ends act on p and q as stated.
"""

import pytest
import torch
from torch import Tensor

from helm_scale.irreps.so2 import So2Layout, so2_layout
from tests.rotations import wigner_up_to
from tests.tolerances import ALGEBRA

EXACT = ALGEBRA[torch.float64]


def embedding(rows: tuple[Tensor, Tensor], size: int) -> Tensor:
    """Signed selection [R, K] of degree-major coefficients."""
    index, sign = rows
    matrix = torch.zeros(len(index), size, dtype=torch.float64)
    matrix[torch.arange(len(index)), index] = sign
    return matrix


def joined(layout: So2Layout, turn: Tensor) -> Tensor:
    """What a turn [K, K] does to the joined rows of an even and an odd feature, [2R, 2R].

    In the order of So2Layout.split_sizes.
    """
    even, odd = (embedding(rows, (layout.lmax + 1) ** 2) for rows in (layout.even, layout.odd))
    both = torch.block_diag(even @ turn @ even.T, odd @ turn @ odd.T)
    order = joined_order(layout)
    return both[order][:, order]


def joined_order(layout: So2Layout) -> Tensor:
    """Place among (even rows, odd rows) of every joined row."""
    parts = torch.arange(len(layout.irrep_of_row)).split(
        [*layout.split_sizes[0::2], *layout.split_sizes[1::2]]
    )
    half = len(layout.split_sizes) // 2
    return torch.cat([parts[number // 2 + half * (number % 2)] for number in range(2 * half)])


@pytest.mark.parametrize(("lmax", "mmax"), [(1, 1), (4, 2), (6, 6), (7, 0)])
def test_every_coefficient_up_to_mmax_appears_once(lmax: int, mmax: int) -> None:
    layout = so2_layout(lmax, mmax)
    wanted = [
        degree * degree + degree + m
        for degree in range(lmax + 1)
        for m in range(-degree, degree + 1)
        if abs(m) <= mmax
    ]
    for index, sign in (layout.even, layout.odd):
        assert sorted(index.tolist()) == wanted
        assert set(sign.abs().tolist()) == {1.0}
    assert sum(layout.split_sizes) == len(layout.irrep_of_row) == 2 * len(wanted)


@pytest.mark.parametrize(("lmax", "mmax"), [(4, 4), (5, 3)])
def test_kinds_are_the_degrees_of_the_rows(lmax: int, mmax: int) -> None:
    layout = so2_layout(lmax, mmax)
    degrees = (
        torch.cat([layout.even[0], layout.odd[0]]).double().sqrt().long()[joined_order(layout)]
    )
    parity = torch.cat([torch.zeros(len(layout.even[0])), torch.ones(len(layout.odd[0]))]).long()[
        joined_order(layout)
    ]
    assert torch.equal(layout.irrep_of_row, degrees + (lmax + 1) * parity)


def test_a_turn_about_the_edge_mixes_p_and_q_of_all_features_alike() -> None:
    layout, angle = so2_layout(4, 4), torch.tensor(0.7, dtype=torch.float64)
    cos, sin = angle.cos(), angle.sin()
    about_z = torch.stack(
        [
            torch.stack([cos, -sin, 0 * cos]),
            torch.stack([sin, cos, 0 * cos]),
            torch.tensor([0.0, 0.0, 1.0]),
        ]
    )
    found = joined(layout, wigner_up_to(about_z, 4))
    blocks = [torch.eye(sum(layout.sizes[0]), dtype=torch.float64)]
    for m, sizes in enumerate(layout.sizes[1:], start=1):
        turn = torch.tensor(
            [[(m * angle).cos(), -(m * angle).sin()], [(m * angle).sin(), (m * angle).cos()]]
        )
        blocks.append(torch.kron(turn, torch.eye(sum(sizes[:2]), dtype=torch.float64)))
    expected = torch.block_diag(*blocks)
    assert (found - expected).abs().max() < EXACT


def test_the_exchange_of_the_ends_keeps_p_and_turns_q_over() -> None:
    layout = so2_layout(4, 4)
    half_turn = wigner_up_to(torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)), 4)
    signs = torch.cat(
        [
            torch.ones(n) * (1 if number % 2 == 0 else -1)
            for number, n in enumerate(layout.split_sizes)
        ]
    )
    exchange = signs[:, None] * joined(layout, half_turn)  # odd features also change sign
    keeps = torch.cat(
        [
            torch.ones(n) * (1 if number % 4 < 2 else -1)
            for number, n in enumerate(layout.split_sizes)
        ]
    ).double()
    assert (exchange - torch.diag(keeps)).abs().max() < EXACT


@pytest.mark.parametrize("mmax", [-1, 4])
def test_an_order_beyond_the_degree_is_refused(mmax: int) -> None:
    with pytest.raises(ValueError, match=f"mmax: got {mmax}, wanted 0 <= mmax <= lmax = 3"):
        so2_layout(3, mmax)
