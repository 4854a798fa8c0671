"""Edge-frame order: every coefficient once, orders together, +m before -m."""

import pytest
import torch

from helm_scale.irreps.so2 import degree_of_coefficient, so2_layout


@pytest.mark.parametrize(("lmax", "mmax"), [(0, 0), (1, 1), (4, 2), (6, 6), (8, 0)])
def test_every_coefficient_up_to_mmax_appears_once(lmax: int, mmax: int) -> None:
    layout = so2_layout(lmax, mmax)
    wanted = [degree * degree + degree + m for degree in range(lmax + 1) for m in range(-degree, degree + 1) if abs(m) <= mmax]
    assert sorted(layout.rows.tolist()) == wanted
    assert sum(layout.sizes) == len(layout.rows)
    assert torch.equal(layout.degree_of_row, degree_of_coefficient(lmax)[layout.rows])


def test_pieces_hold_plus_m_then_minus_m_by_degree() -> None:
    layout = so2_layout(5, 3)
    for order, piece in enumerate(layout.rows.split(layout.sizes)):
        degrees = torch.arange(order, 6)
        plus, minus = degrees * degrees + degrees + order, degrees * degrees + degrees - order
        assert torch.equal(piece, torch.cat([plus, minus]) if order else plus)


@pytest.mark.parametrize("mmax", [-1, 4])
def test_an_order_beyond_the_degree_is_refused(mmax: int) -> None:
    with pytest.raises(ValueError, match=f"mmax: got {mmax}, wanted 0 <= mmax <= lmax = 3"):
        so2_layout(3, mmax)
