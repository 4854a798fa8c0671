"""All blocks of a batch in one layout: one column for every irrep that a head has.

Elements differ in their shells, so packed irreps are ragged. A row of slots has a column for each
(degree, M, head row); a block fills those that its elements have, in the order of its packed
irreps. Rows are of one width: what works on them takes few operations however many elements there
are, while a device starts one operation after the other at some 10 microseconds each.

Axes: N blocks, of atoms or pairs, W columns, S packed irreps of all blocks, block after block.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis import elements, packing
from helm_scale.basis.layout import BlockLayout, all_slots_layout, head_multiplicities
from helm_scale.basis.shells import shell_counts


class Slots(NamedTuple):
    """Which columns the blocks of every kind fill, as tables on one device.

    A kind is an element (on-site) or a pair of elements, numbered by atomic numbers.

    Attributes:
        width: number of columns W.
        columns: columns of all kinds, one after another, int32, in the order of packed irreps.
        begins, sizes: where in `columns` those of a kind begin, and how many there are.
        entry, entry_begins, weight: matrix elements of a block. Element e is the sum of
            weight[k] * row[entry[k]] over entry_begins[e] <= k < entry_begins[e+1]; it is twice
            that of H where it also stands for the transposed element.
    """

    width: int
    columns: Tensor
    begins: Tensor
    sizes: Tensor
    entry: Tensor
    entry_begins: Tensor
    weight: Tensor

    def blocks(self, kind_N: Tensor, total: int) -> tuple[Tensor, Tensor]:
        """Of every packed irrep of blocks of these kinds its block, and its number in that: [S].

        Args:
            total: S, which the host knows; so it need not wait for the device.
        """
        sizes = self.sizes.index_select(0, kind_N)
        block = torch.repeat_interleave(sizes, output_size=total)
        first = sizes.cumsum(0) - sizes
        number = torch.arange(total, device=kind_N.device) - first.index_select(0, block)
        return block, number

    def places(self, kind_N: Tensor, total: int) -> Tensor:
        """Place in the flat [N, W] of every packed irrep of blocks of these kinds: [S]."""
        block, number = self.blocks(kind_N, total)
        listed = number + self.begins.index_select(0, kind_N).index_select(0, block)
        return block * self.width + self.columns.index_select(0, listed)

    def fill(self, packed_S: Tensor, places_S: Tensor, count: int) -> Tensor:
        """Rows of slots [N, W] of packed irreps; slots that a block lacks are zero."""
        flat = packed_S.new_zeros(count * self.width)
        return flat.index_copy(0, places_S, packed_S).view(count, self.width)

    def absolute_sum(self, rows_NW: Tensor) -> Tensor:
        """Sum of |H| over all matrix elements, transposed blocks included, float64."""
        summed = 0  # the mode of torch's embedding_bag that adds up
        elements_EN = torch.embedding_bag(
            rows_NW.T.contiguous(),
            self.entry,
            self.entry_begins,
            mode=summed,
            per_sample_weights=self.weight.to(rows_NW.dtype),
        )[0]
        return elements_EN.abs().sum(dtype=torch.float64)


def pair_kind(first_N: Tensor, second_N: Tensor) -> Tensor:
    """Kinds of pairs of atomic numbers."""
    return first_N * (elements.MAX_Z + 1) + second_N


@cache
def pair_slots(basis: str, device: torch.device) -> Slots:
    """Slots of off-site blocks, lower atomic number first."""
    whole, counts = all_slots_layout(basis, None), _counts(basis)
    kinds = {
        a * (elements.MAX_Z + 1) + b: (counts[a], counts[b])
        for a in counts
        for b in counts
        if a <= b
    }
    return _slots(whole, kinds, multiplicities=head_multiplicities(basis, False), device=device)


@cache
def atom_slots(basis: str, parity: str, device: torch.device) -> Slots:
    """Slots of on-site blocks; their kinds are atomic numbers."""
    whole = all_slots_layout(basis, parity)
    kinds = {z: (count, count) for z, count in _counts(basis).items()}
    return _slots(whole, kinds, multiplicities=head_multiplicities(basis, True), device=device)


def _counts(basis: str) -> dict[int, np.ndarray]:
    return {z: np.array(shell_counts(basis, z)) for z in elements.supported(basis)}


def _slots(
    whole: BlockLayout,
    kinds: dict[int, tuple[np.ndarray, np.ndarray]],
    *,
    multiplicities: dict[int, int],
    device: torch.device,
) -> Slots:
    """Tables of all kinds.

    Args:
        whole: layout of a block that fills all slots.
        kinds: kind -> number of shells of every degree, of its first and of its second element.
    """
    (l1, n1, l2, n2), column = _components(whole, multiplicities)
    columns = {
        kind: column[(n1 < first[l1]) & (n2 < second[l2])]
        for kind, (first, second) in kinds.items()
    }
    sizes = np.zeros(max(kinds) + 1, dtype=np.int64)
    sizes[list(columns)] = [len(of_kind) for of_kind in columns.values()]
    component, row, col, value = packing.packing_entries(whole)
    order = np.argsort(row * whole.shape[1] + col, kind="stable")
    _, entry_begins = np.unique((row * whole.shape[1] + col)[order], return_index=True)
    integers = {
        "columns": np.concatenate([columns[kind] for kind in sorted(columns)]).astype(np.int32),
        "begins": np.cumsum(sizes) - sizes,
        "sizes": sizes,
        "entry": column[component[order]].astype(np.int32),
        "entry_begins": entry_begins.astype(np.int32),
    }
    return Slots(
        width=sum((2 * degree + 1) * count for degree, count in multiplicities.items()),
        **{name: torch.from_numpy(table).to(device) for name, table in integers.items()},
        weight=torch.from_numpy(value[order]).to(device),
    )


def _components(
    whole: BlockLayout, multiplicities: dict[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Of every packed irrep of a layout (l1, n1, l2, n2), its shells [4, S], and its column [S]."""
    starts = np.cumsum(
        [0, *((2 * degree + 1) * multiplicities[degree] for degree in sorted(multiplicities))]
    )
    shells = [
        (group.l1, n1, group.l2, n2)
        for group in whole.groups
        for n1, n2 in zip(group.first, group.second, strict=True)
        for degree in group.degrees
        for _ in range(2 * degree + 1)
    ]
    columns = [
        starts[degree] + m * multiplicities[degree] + rows
        for degree, rows in whole.rows.items()
        for m in range(2 * degree + 1)
    ]
    return np.array(shells)[whole.order].T, np.concatenate(columns)
