"""Edge rotations: orthogonal, exact at the poles, smooth, and a representation up to a turn about the edge."""

import pytest
import torch
from torch import Tensor

from helm_scale.irreps.so2 import So2Layout, so2_layout
from helm_scale.irreps.wigner import edge_wigner
from tests.rotations import harmonics, random_rotation, wigner_up_to
from tests.tolerances import ALGEBRA

LMAX = 6
EXACT = ALGEBRA[torch.float64]


def edges() -> Tensor:
    """Random edges, both poles, edges a hair beside them, and edges on and beside the equator; float64 [E, 3]."""
    generator = torch.Generator().manual_seed(1)
    vectors = [3 * torch.randn(20, 3, dtype=torch.float64, generator=generator)]
    for tilt in (0.0, 1e-12, 1e-8, 1e-4):
        vectors.append(torch.tensor([[tilt, 0.7 * tilt, 1.0], [tilt, 0.7 * tilt, -1.0], [0.6, -0.8, tilt], [0.6, -0.8, -tilt]]))
    return torch.cat([v.to(torch.float64) for v in vectors])


def so2_equivariant_map(layout: So2Layout) -> Tensor:
    """A random linear map [R, R] that commutes with turns about z: [[a, -b], [b, a]] for every m > 0."""
    generator = torch.Generator().manual_seed(2)
    blocks = [torch.randn(layout.sizes[0], layout.sizes[0], dtype=torch.float64, generator=generator)]
    for size in layout.sizes[1:]:
        real, imaginary = torch.randn(2, size // 2, size // 2, dtype=torch.float64, generator=generator)
        blocks.append(torch.cat([torch.cat([real, -imaginary], 1), torch.cat([imaginary, real], 1)]))
    return torch.block_diag(*blocks)


def in_space(vectors: Tensor, mmax: int) -> Tensor:
    """D^T A D of every edge: what an SO(2) layer does to coefficients in space, [E, K, K]."""
    frame = edge_wigner(vectors, LMAX, mmax)
    return frame.mT @ so2_equivariant_map(so2_layout(LMAX, mmax)) @ frame


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_edge_matrices_are_orthogonal(dtype: torch.dtype) -> None:
    frame = edge_wigner(edges().to(dtype), LMAX, LMAX)
    assert (frame @ frame.mT - torch.eye(frame.shape[1], dtype=dtype)).abs().max() < ALGEBRA[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_edge_s_own_harmonics_keep_only_m_0(dtype: torch.dtype) -> None:
    vectors = edges()
    own = torch.cat([harmonics(vectors, degree) for degree in range(LMAX + 1)], dim=1).to(dtype)
    turned = (edge_wigner(vectors.to(dtype), LMAX, LMAX) @ own[:, :, None])[:, :, 0]
    assert (turned[:, : LMAX + 1] - 1).abs().max() < ALGEBRA[dtype]
    assert turned[:, LMAX + 1 :].abs().max() < ALGEBRA[dtype]


def test_fewer_orders_are_the_same_rows() -> None:
    frame = edge_wigner(edges(), LMAX, LMAX)
    rows = so2_layout(LMAX, LMAX).rows.tolist()
    kept = [rows.index(row) for row in so2_layout(LMAX, 2).rows.tolist()]
    assert torch.equal(edge_wigner(edges(), LMAX, 2), frame[:, kept])


@pytest.mark.parametrize("seed", [0, 1])
def test_frames_of_a_turned_edge_differ_by_a_turn_about_the_edge(seed: int) -> None:
    rotation, vectors = random_rotation(seed), edges()
    change = edge_wigner(vectors @ rotation.T, LMAX, LMAX) @ wigner_up_to(rotation, LMAX) @ edge_wigner(vectors, LMAX, LMAX).mT
    equivariant = so2_equivariant_map(so2_layout(LMAX, LMAX))
    assert (change @ equivariant - equivariant @ change).abs().max() < 100 * EXACT  # 49 x 49 normal entries a sum


@pytest.mark.parametrize("mmax", [LMAX, 2])
def test_an_so2_layer_turns_with_the_molecule(mmax: int) -> None:
    rotation, vectors = random_rotation(3), edges()
    turn = wigner_up_to(rotation, LMAX)
    assert (in_space(vectors @ rotation.T, mmax) - turn @ in_space(vectors, mmax) @ turn.T).abs().max() < 100 * EXACT


@pytest.mark.parametrize("mmax", [LMAX, 2])
@pytest.mark.parametrize("direction", [[0.6, -0.8, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
def test_an_so2_layer_is_continuous_at_the_equator_and_the_poles(direction: list[float], mmax: int) -> None:
    here = torch.tensor([direction], dtype=torch.float64)
    around = here + 1e-10 * torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    assert (in_space(around, mmax) - in_space(here, mmax)).abs().max() < 1e-6  # slope of degree 6 maps: up to 1e3


@pytest.mark.parametrize("direction", [[0.0, 0.0, 1.3], [0.0, 0.0, -0.9], [1e-9, -2e-9, 1.1], [0.3, -0.5, -0.2]])
def test_gradients_are_finite_differences_even_at_the_poles(direction: list[float]) -> None:
    vector = torch.tensor([direction], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: edge_wigner(v, 4, 4), vector, atol=1e-7)


def test_gradients_of_an_so2_layer_turn_with_the_edge_onto_the_pole() -> None:
    """The derivative along a rotation is known in closed form: no frame jump may leak into it."""
    pole = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(lambda v: in_space(v, LMAX), pole)[0, :, :, 0]
    generator = torch.zeros(3, 3, dtype=torch.float64)
    generator[0, 2], generator[2, 0] = 1.0, -1.0  # turns z towards x
    turn = wigner_up_to(torch.linalg.matrix_exp(1e-5 * generator), LMAX)
    back = wigner_up_to(torch.linalg.matrix_exp(-1e-5 * generator), LMAX)
    layer = in_space(pole, LMAX)[0]
    expected = (turn @ layer @ turn.T - back @ layer @ back.T) / 2e-5
    assert (slope[..., 0] - expected).abs().max() < 1e-6
