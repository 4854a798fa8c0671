"""Slots hold the blocks of all elements in one layout, and lose nothing."""

import pytest
import torch
from torch import Tensor

from helm_scale.basis.layout import offsite_layout, onsite_layout
from helm_scale.basis.packing import pack, unpack
from helm_scale.basis.slots import atom_slots, pair_kind, pair_slots
from tests import tolerances

PAIRS = ((1, 6), (6, 53), (6, 53), (8, 8), (53, 83))  # with d and f shells, each in a column
CPU = torch.device("cpu")
EXACT = tolerances.MODEL[torch.float64]


def pair_blocks() -> tuple[Tensor, Tensor, float]:
    """Kinds and packed irreps of random off-site blocks, and the sum of |H| of both triangles."""
    layouts = [offsite_layout("def2-tzvpd", a, b) for a, b in PAIRS]
    generator = torch.Generator().manual_seed(0)
    blocks = [
        torch.randn(1, *layout.shape, generator=generator, dtype=torch.float64)
        for layout in layouts
    ]
    packed = [pack(b, layout).flatten() for b, layout in zip(blocks, layouts, strict=True)]
    kinds = pair_kind(*torch.tensor(PAIRS).T)
    return kinds, torch.cat(packed), 2 * sum(float(block.abs().sum()) for block in blocks)


def test_packed_irreps_are_found_in_their_slots_in_order() -> None:
    kinds, packed, _ = pair_blocks()
    table = pair_slots("def2-tzvpd", CPU)
    places = table.places(kinds, len(packed))
    rows = table.fill(packed, places, len(kinds))
    assert torch.equal(rows.flatten()[places], packed)
    assert rows.count_nonzero() == packed.count_nonzero()
    block, number = table.blocks(kinds, len(packed))
    assert torch.equal(block, places // table.width)
    assert [int(n) for n in number[block.diff(prepend=block[:1] - 1) > 0]] == [0] * len(PAIRS)


@pytest.mark.parametrize("pair", sorted(set(PAIRS)))
def test_columns_are_those_of_the_rows_of_the_layout(pair: tuple[int, int]) -> None:
    layout, table = offsite_layout("def2-tzvpd", *pair), pair_slots("def2-tzvpd", CPU)
    multiplicities = (114, 229, 239, 161, 73, 24, 4)  # head rows of every degree
    starts = [sum((2 * d + 1) * multiplicities[d] for d in range(degree)) for degree in range(8)]
    wanted = [
        starts[degree] + m * multiplicities[degree] + int(row)
        for degree, rows in layout.rows.items()
        for m in range(2 * degree + 1)
        for row in rows
    ]
    kind = pair_kind(*torch.tensor([pair]).T)
    assert table.width == starts[-1]
    assert table.places(kind, layout.size).tolist() == wanted


def test_absolute_values_of_pairs_count_both_triangles() -> None:
    kinds, packed, total = pair_blocks()
    table = pair_slots("def2-tzvpd", CPU)
    rows = table.fill(packed, table.places(kinds, len(packed)), len(kinds))
    assert abs(float(table.absolute_sum(rows)) / total - 1) < EXACT


@pytest.mark.parametrize("parity", ["semilocal", "full"])
def test_absolute_values_of_atoms_count_every_element_once(parity: str) -> None:
    packed, total = [], 0.0
    for z in (1, 6, 53, 83):
        layout = onsite_layout("def2-tzvpd", z, parity)
        generator = torch.Generator().manual_seed(z)
        irreps = torch.randn(1, layout.size, generator=generator, dtype=torch.float64)
        packed.append(irreps.flatten())
        total += float(unpack(irreps, layout).abs().sum())
    kinds, flat = torch.tensor([1, 6, 53, 83]), torch.cat(packed)
    table = atom_slots("def2-tzvpd", parity, CPU)
    rows = table.fill(flat, table.places(kinds, len(flat)), len(kinds))
    assert abs(float(table.absolute_sum(rows)) / total - 1) < EXACT


def test_no_blocks_are_no_irreps() -> None:
    table, none = pair_slots("def2-tzvpd", CPU), torch.zeros(0, dtype=torch.int64)
    places = table.places(none, 0)
    assert len(places) == 0
    assert float(table.absolute_sum(table.fill(torch.zeros(0), places, 0))) == 0
