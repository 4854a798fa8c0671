"""Coupling is an isometry that turns with the molecule and knows the transpose."""

import itertools

import pytest
import torch
from e3nn import o3
from torch import Tensor

from helm_scale.irreps.coupling import clebsch_gordan, couple, coupling_matrix, uncouple
from tests.rotations import random_rotation, wigner
from tests.tolerances import ALGEBRA

PAIRS = list(itertools.product(range(4), repeat=2))
EXACT = ALGEBRA[torch.float64]


def blocks(l1: int, l2: int) -> Tensor:
    """Three random blocks [3, 2*l1+1, 2*l2+1], float64."""
    return torch.randn(
        3,
        2 * l1 + 1,
        2 * l2 + 1,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(10 * l1 + l2),
    )


@pytest.mark.parametrize(("l1", "l2"), PAIRS)
def test_coupling_matrices_are_orthogonal_float64(l1: int, l2: int) -> None:
    matrix = coupling_matrix(l1, l2)
    assert matrix.dtype == torch.float64
    assert (matrix.T @ matrix - torch.eye(len(matrix), dtype=torch.float64)).abs().max() < EXACT


def test_tables_are_those_of_e3nn_for_all_degrees_up_to_ten() -> None:
    for l1, l2 in [*itertools.product(range(5), repeat=2), (1, 9), (6, 3)]:
        for degree in range(abs(l1 - l2), l1 + l2 + 1):
            wanted = (2 * degree + 1) ** 0.5 * o3.wigner_3j(l1, l2, degree, dtype=torch.float64)
            assert (clebsch_gordan(l1, l2, degree) - wanted).abs().max() < EXACT


@pytest.mark.parametrize(("l1", "l2"), PAIRS)
def test_uncoupling_undoes_coupling_and_the_norm_is_kept(l1: int, l2: int) -> None:
    block = blocks(l1, l2)
    irreps = couple(block, l1, l2)
    assert sorted(irreps) == list(range(abs(l1 - l2), l1 + l2 + 1))
    assert (uncouple(irreps, l1, l2) - block).abs().max() < EXACT
    norm = torch.stack([(part**2).sum() for part in irreps.values()]).sum()
    assert abs(norm / (block**2).sum() - 1) < EXACT


@pytest.mark.parametrize(("l1", "l2"), PAIRS)
def test_coupling_turns_with_the_molecule(l1: int, l2: int) -> None:
    rotation, block = random_rotation(5), blocks(l1, l2)
    turned = couple(wigner(rotation, l1) @ block @ wigner(rotation, l2).T, l1, l2)
    for degree, part in couple(block, l1, l2).items():
        assert (turned[degree] - part @ wigner(rotation, degree).T).abs().max() < EXACT


@pytest.mark.parametrize(("l1", "l2"), PAIRS)
def test_the_transposed_block_has_the_same_irreps_up_to_a_sign(l1: int, l2: int) -> None:
    transposed = couple(blocks(l1, l2).mT, l2, l1)
    for degree, part in couple(blocks(l1, l2), l1, l2).items():
        assert (transposed[degree] - (-1) ** (l1 + l2 + degree) * part).abs().max() < EXACT


def test_symmetric_blocks_of_one_shell_have_even_degrees_only() -> None:
    block = blocks(3, 3)
    irreps = couple(block + block.mT, 3, 3)
    assert max(irreps[degree].abs().max() for degree in (1, 3, 5)) < EXACT
    assert min(irreps[degree].abs().max() for degree in (0, 2, 4, 6)) > 0.1


def test_absent_irreps_count_as_zero() -> None:
    irreps = couple(blocks(2, 1), 2, 1)
    whole = sum(uncouple({degree: part}, 2, 1) for degree, part in irreps.items())
    assert (whole - blocks(2, 1)).abs().max() < EXACT


def test_a_block_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(3, 5\), wanted \(5, 3\)"):
        couple(blocks(1, 2), 2, 1)
