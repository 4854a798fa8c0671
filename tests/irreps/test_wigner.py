"""Edge rotations are orthogonal, exact at the poles and smooth.

They are a representation up to a turn about the edge.
"""

import pytest
import torch
from torch import Tensor

from helm_scale.irreps.so2 import so2_layout
from helm_scale.irreps.wigner import edge_frames
from tests.rotations import harmonics, random_rotation, wigner_up_to
from tests.tolerances import ALGEBRA

LMAX = 6
EXACT = ALGEBRA[torch.float64]


def edges() -> Tensor:
    """Random edges, both poles, the equator, and edges a hair beside them; float64 [E, 3]."""
    generator = torch.Generator().manual_seed(1)
    vectors = [3 * torch.randn(20, 3, dtype=torch.float64, generator=generator)]
    for tilt in (0.0, 1e-12, 1e-8, 1e-4):
        vectors.append(
            torch.tensor(
                [
                    [tilt, 0.7 * tilt, 1.0],
                    [tilt, 0.7 * tilt, -1.0],
                    [0.6, -0.8, tilt],
                    [0.6, -0.8, -tilt],
                ]
            )
        )
    return torch.cat([v.to(torch.float64) for v in vectors])


def frames(vectors: Tensor, lmax: int = LMAX, mmax: int = LMAX) -> Tensor:
    """Even and odd matrices below each other: [E, 2R, 2K].

    Rows in the joined order p even, p odd, q even, q odd, ...
    """
    even, odd = edge_frames(vectors, lmax, mmax, vectors.dtype)
    layout = so2_layout(lmax, mmax)
    both = torch.cat([torch.cat([even, 0 * even], 2), torch.cat([0 * odd, odd], 2)], 1)
    parts = torch.arange(both.shape[1]).split(
        [*layout.split_sizes[0::2], *layout.split_sizes[1::2]]
    )
    half = len(layout.split_sizes) // 2
    return both[
        :, torch.cat([parts[number // 2 + half * (number % 2)] for number in range(2 * half)])
    ]


def so2_equivariant_map(mmax: int) -> Tensor:
    """A random linear map of joined rows.

    Per order one real matrix for p and q alike, two for order 0.
    """
    generator, layout = torch.Generator().manual_seed(2), so2_layout(LMAX, mmax)
    p_even, p_odd, q_even, q_odd = layout.sizes[0]
    blocks = [
        torch.randn(n, n, dtype=torch.float64, generator=generator)
        for n in (p_even + p_odd, q_even + q_odd)
    ]
    for even, odd, _, _ in layout.sizes[1:]:
        blocks += [
            torch.randn(even + odd, even + odd, dtype=torch.float64, generator=generator)
        ] * 2
    return torch.block_diag(*blocks)


def in_space(vectors: Tensor, mmax: int) -> Tensor:
    """D^T A D of every edge, [E, 2K, 2K].

    This is what an SO(2) layer does to (even, odd) coefficients in space.
    """
    frame = frames(vectors, LMAX, mmax)
    return frame.mT @ so2_equivariant_map(mmax) @ frame


def twice(turn: Tensor) -> Tensor:
    """A turn of even and odd coefficients."""
    return torch.block_diag(turn, turn)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_edge_matrices_are_orthogonal(dtype: torch.dtype) -> None:
    frame = frames(edges().to(dtype))
    assert (frame @ frame.mT - torch.eye(frame.shape[1], dtype=dtype)).abs().max() < ALGEBRA[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_edge_s_own_harmonics_keep_only_m_0(dtype: torch.dtype) -> None:
    vectors, layout = edges(), so2_layout(LMAX, LMAX)
    own = torch.cat([harmonics(vectors, degree) for degree in range(LMAX + 1)], dim=1).to(dtype)
    for frame, rows in zip(
        edge_frames(vectors, LMAX, LMAX, dtype), (layout.even, layout.odd), strict=True
    ):
        turned = (frame @ own[:, :, None])[:, :, 0]
        assert (turned[:, : LMAX + 1] - rows[1][: LMAX + 1].to(dtype)).abs().max() < ALGEBRA[dtype]
        assert turned[:, LMAX + 1 :].abs().max() < ALGEBRA[dtype]


def test_fewer_orders_are_the_same_rows() -> None:
    for parity in (0, 1):
        frame = edge_frames(edges(), LMAX, LMAX, torch.float64)[parity]
        full, fewer = (
            (layout.even, layout.odd)[parity][0].tolist()
            for layout in (so2_layout(LMAX, LMAX), so2_layout(LMAX, 2))
        )
        assert torch.equal(
            edge_frames(edges(), LMAX, 2, torch.float64)[parity],
            frame[:, [full.index(row) for row in fewer]],
        )


@pytest.mark.parametrize("seed", [0, 1])
def test_frames_of_a_turned_edge_differ_by_a_turn_about_the_edge(seed: int) -> None:
    rotation, vectors = random_rotation(seed), edges()
    change = frames(vectors @ rotation.T) @ twice(wigner_up_to(rotation, LMAX)) @ frames(vectors).mT
    equivariant = so2_equivariant_map(LMAX)
    assert (
        change @ equivariant - equivariant @ change
    ).abs().max() < 100 * EXACT  # 49 x 49 normal entries a sum


@pytest.mark.parametrize("mmax", [LMAX, 2])
def test_an_so2_layer_turns_with_the_molecule(mmax: int) -> None:
    rotation, vectors = random_rotation(3), edges()
    turn = twice(wigner_up_to(rotation, LMAX))
    assert (
        in_space(vectors @ rotation.T, mmax) - turn @ in_space(vectors, mmax) @ turn.T
    ).abs().max() < 100 * EXACT


@pytest.mark.parametrize("mmax", [LMAX, 2])
@pytest.mark.parametrize("direction", [[0.6, -0.8, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
def test_an_so2_layer_is_continuous_at_the_equator_and_the_poles(
    direction: list[float], mmax: int
) -> None:
    here = torch.tensor([direction], dtype=torch.float64)
    around = here + 1e-10 * torch.randn(
        20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4)
    )
    assert (
        in_space(around, mmax) - in_space(here, mmax)
    ).abs().max() < 1e-6  # slope of degree 6 maps: up to 1e3


@pytest.mark.parametrize(
    "direction", [[0.0, 0.0, 1.3], [0.0, 0.0, -0.9], [1e-9, -2e-9, 1.1], [0.3, -0.5, -0.2]]
)
def test_gradients_are_finite_differences_even_at_the_poles(direction: list[float]) -> None:
    vector = torch.tensor([direction], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda v: edge_frames(v, 3, 3, torch.float64), vector, atol=1e-7
    )


def test_gradients_of_an_so2_layer_turn_with_the_edge_onto_the_pole() -> None:
    """The derivative along a rotation is known in closed form: no frame jump may leak into it."""
    pole = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    towards_x = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    _, slope = torch.func.jvp(lambda v: in_space(v, LMAX), (pole,), (towards_x,))
    generator = torch.zeros(3, 3, dtype=torch.float64)
    generator[0, 2], generator[2, 0] = 1.0, -1.0  # turns z towards x
    turn = twice(wigner_up_to(torch.linalg.matrix_exp(1e-5 * generator), LMAX))
    back = twice(wigner_up_to(torch.linalg.matrix_exp(-1e-5 * generator), LMAX))
    layer = in_space(pole, LMAX)[0]
    expected = (turn @ layer @ turn.T - back @ layer @ back.T) / 2e-5
    assert (slope[0] - expected).abs().max() < 1e-6


def test_exchanged_ends_keep_sums_and_turn_differences_over_up_to_a_turn_about_the_edge() -> None:
    vectors, equivariant = edges(), so2_equivariant_map(LMAX)
    layout = so2_layout(LMAX, LMAX)
    signs = torch.diag(
        torch.cat(
            [
                torch.ones(n) * (1 if number % 2 == 0 else -1)
                for number, n in enumerate(layout.split_sizes)
            ]
        ).double()
    )
    change = signs @ frames(-vectors) @ frames(vectors).mT
    assert (change @ equivariant - equivariant @ change).abs().max() < 100 * EXACT
    assert (
        change - signs @ change
    ).abs().max() > 0.5  # without the sign of odd features it would not commute
