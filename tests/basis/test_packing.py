"""Packing is an isometry of exactly the true size, and the rows of the head fit together."""

import numpy as np
import pytest
import torch
from torch import Tensor

from helm_scale.basis.elements import ELEMENTS, supported
from helm_scale.basis.layout import (
    BlockLayout,
    ao_offsets,
    head_multiplicities,
    offsite_layout,
    onsite_layout,
    transposed_rows,
)
from helm_scale.basis.packing import pack, unpack
from helm_scale.basis.shells import nao, shell_counts
from tests.tolerances import ALGEBRA

PAIRS = [(1, 1), (1, 6), (6, 1), (3, 53), (8, 78), (53, 53), (19, 37), (83, 4)]
EXACT = ALGEBRA[torch.float64]


def random_blocks(*shape: int) -> Tensor:
    """Random blocks, float64."""
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))
    )


def symmetric_blocks(size: int) -> Tensor:
    """Two random symmetric blocks, float64."""
    half = random_blocks(2, size, size)
    return half + half.mT


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_offsite_blocks_survive_packing_and_count_twice(first: int, second: int) -> None:
    layout = offsite_layout("def2-tzvpd", first, second)
    blocks = random_blocks(2, nao("def2-tzvpd", first), nao("def2-tzvpd", second))
    packed = pack(blocks, layout)
    assert packed.shape == (2, blocks[0].numel()) == (2, layout.size)
    assert (unpack(packed, layout) - blocks).abs().max() < EXACT
    assert abs((packed**2).sum() / (2 * (blocks**2).sum()) - 1) < EXACT


@pytest.mark.parametrize("z", [1, 3, 6, 19, 53, 78])
def test_onsite_blocks_survive_packing_and_count_once(z: int) -> None:
    layout = onsite_layout("def2-tzvpd", z, "full")
    blocks = symmetric_blocks(nao("def2-tzvpd", z))
    packed = pack(blocks, layout)
    size = blocks.shape[-1]
    assert packed.shape == (2, size * (size + 1) // 2) == (2, layout.size)
    assert (unpack(packed, layout) - blocks).abs().max() < EXACT
    assert abs((packed**2).sum() / (blocks**2).sum() - 1) < EXACT


@pytest.mark.parametrize("parity", ["semilocal", "full"])
@pytest.mark.parametrize("z", [1, 8, 53])
def test_any_packed_onsite_vector_is_an_exactly_symmetric_block(z: int, parity: str) -> None:
    layout = onsite_layout("def2-tzvpd", z, parity)
    packed = random_blocks(3, layout.size)
    blocks = unpack(packed, layout)
    assert torch.equal(blocks, blocks.mT)
    assert (pack(blocks, layout) - packed).abs().max() < EXACT


def test_a_mean_over_packed_components_is_a_mean_over_matrix_elements() -> None:
    numbers = np.array([6, 1, 53])
    starts = ao_offsets("def2-tzvpd", numbers)
    matrix = symmetric_blocks(int(starts[-1]))[0]
    total = torch.zeros((), dtype=torch.float64)
    for i, first in enumerate(numbers):
        for j, second in enumerate(numbers[: i + 1]):
            layout = (
                onsite_layout("def2-tzvpd", first, "full")
                if i == j
                else offsite_layout("def2-tzvpd", first, second)
            )
            total += (
                pack(matrix[None, starts[i] : starts[i + 1], starts[j] : starts[j + 1]], layout)
                ** 2
            ).sum()
    assert abs(total / (matrix**2).sum() - 1) < EXACT


@pytest.mark.parametrize("z", [1, 8, 53])
def test_the_transposed_block_of_like_atoms_is_the_packed_vector_reordered(z: int) -> None:
    layout = offsite_layout("def2-tzvpd", z, z)
    blocks = random_blocks(2, *layout.shape)
    straight, transposed = (
        pack(b, layout).split([(2 * L + 1) * len(rows) for L, rows in layout.rows.items()], dim=1)
        for b in (blocks, blocks.mT)
    )
    for (degree, rows), a, b in zip(layout.rows.items(), straight, transposed, strict=True):
        index, sign = transposed_rows("def2-tzvpd")[degree]
        place = {int(row): n for n, row in enumerate(rows)}
        mirrored = a.unflatten(1, (-1, len(rows)))[
            :, :, [place[int(index[row])] for row in rows]
        ] * torch.tensor(sign[rows])
        assert (b - mirrored.flatten(1)).abs().max() < EXACT


def _rows_of(layout: BlockLayout) -> dict[int, set[int]]:
    return {degree: set(rows.tolist()) for degree, rows in layout.rows.items()}


@pytest.mark.parametrize("basis", ["def2-tzvpd", "def2-svp"])
def test_every_row_exists_in_the_head_and_sizes_add_up(basis: str) -> None:
    heads = {onsite: head_multiplicities(basis, onsite) for onsite in (True, False)}
    for z in supported(basis):
        partner = supported(basis)[z % 7]
        for onsite, layout in (
            (True, onsite_layout(basis, z, "full")),
            (False, offsite_layout(basis, z, partner)),
        ):
            assert (
                sum((2 * degree + 1) * len(rows) for degree, rows in layout.rows.items())
                == layout.size
            )
            assert sorted(layout.order) == list(range(layout.size))
            assert all(
                max(rows) < heads[onsite][degree] for degree, rows in _rows_of(layout).items()
            )


def test_the_widest_rows_couple_f_with_f_to_degree_6() -> None:
    assert max(head_multiplicities("def2-tzvpd", onsite=False)) == 6
    with_f = [z for z in ELEMENTS if shell_counts("def2-tzvpd", z)[3]]
    assert len(with_f) == 47


def test_unlike_elements_share_the_rows_of_the_slots_they_share() -> None:
    carbon, oxygen = (_rows_of(offsite_layout("def2-tzvpd", 1, z)) for z in (6, 8))
    assert all(
        carbon[degree] <= oxygen[degree] for degree in carbon
    )  # O has C's shells and one more p
    assert carbon != oxygen


def test_an_unknown_parity_is_refused() -> None:
    with pytest.raises(ValueError, match="parity: got 'even', wanted one of semilocal, full"):
        onsite_layout("def2-tzvpd", 6, "even")
