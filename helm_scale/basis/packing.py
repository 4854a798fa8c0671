"""Packs blocks of a Hamiltonian into irreps and unpacks them again.

Packing is an isometry: the squared norm over all packed vectors of a molecule is ||H||^2. An
off-site block counts for itself and its transpose, so its irreps carry sqrt(2), as do those of
on-site shell pairs a < b. A mean of squares over packed components divided by nao^2 therefore is
the mean of squares over matrix elements.

Axes: B blocks of one layout, S = layout.size packed components.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis.layout import BlockLayout, ShellGroup
from helm_scale.irreps.coupling import coupled_degrees, coupling_matrix


@cache
def _kept_columns(l1: int, l2: int, degrees: tuple[int, ...]) -> Tensor:
    """Coupling matrix [p*q, n] with the columns of the given degrees only."""
    start, columns = 0, []
    for degree in coupled_degrees(l1, l2):
        columns += list(range(start, start + 2 * degree + 1)) if degree in degrees else []
        start += 2 * degree + 1
    return coupling_matrix(l1, l2)[:, columns]


@cache
def _listed_place(layout: BlockLayout) -> Tensor:
    """Place in the packed vector of every group-major component."""
    # layout.order maps the other way, and argsort inverts a permutation.
    return torch.from_numpy(np.argsort(layout.order))


@cache
def _group_index(layout: BlockLayout, group: ShellGroup) -> tuple[np.ndarray, np.ndarray]:
    """AO rows [G, p, 1] and columns [G, 1, q] of a group's blocks."""
    starts = _degree_starts(layout)
    row = (
        starts[0][group.l1]
        + np.array(group.first)[:, None] * (2 * group.l1 + 1)
        + np.arange(2 * group.l1 + 1)
    )
    column = (
        starts[1][group.l2]
        + np.array(group.second)[:, None] * (2 * group.l2 + 1)
        + np.arange(2 * group.l2 + 1)
    )
    return row[:, :, None], column[:, None, :]


def _degree_starts(layout: BlockLayout) -> tuple[dict[int, int], dict[int, int]]:
    """First AO of the shells of every degree, for the first and the second atom."""
    starts: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for side in (0, 1):
        counts: dict[int, int] = {}
        for group in layout.groups:
            degree, shells = (group.l1, group.first) if side == 0 else (group.l2, group.second)
            counts[degree] = max(counts.get(degree, 0), max(shells) + 1)
        position = 0
        for degree in sorted(counts):
            starts[side][degree] = position
            position += counts[degree] * (2 * degree + 1)
    return starts


def pack(blocks_Bab: Tensor, layout: BlockLayout) -> Tensor:
    """Couple blocks [B, *layout.shape] (Hartree, canonical order) into packed irreps [B, S]."""
    irreps = []
    for group in layout.groups:
        row, column = _group_index(layout, group)
        shell_pairs = blocks_Bab[:, row, column].flatten(2)
        matrix = group.weight * _kept_columns(group.l1, group.l2, group.degrees).to(shell_pairs)
        irreps.append((shell_pairs @ matrix).flatten(1))
    return torch.cat(irreps, dim=1)[:, layout.order]


def unpack(packed_BS: Tensor, layout: BlockLayout) -> Tensor:
    """Rebuild blocks [B, *layout.shape] from packed irreps [B, S].

    On-site blocks come out symmetric to the last bit.
    """
    blocks = packed_BS.new_zeros(len(packed_BS), *layout.shape)
    # Only on-site layouts have pairs of a shell with itself, whose weight is 1.
    symmetric = any(group.weight == 1.0 for group in layout.groups)
    for group, values in _group_values(packed_BS, layout):
        row, column = _group_index(layout, group)
        if group.weight == 1.0:
            values = (values + values.mT) / 2  # symmetric already, but for round-off
        blocks[:, row, column] = values
        if symmetric and group.weight != 1.0:
            blocks[:, column, row] = values
    return blocks


def _group_values(packed_BS: Tensor, layout: BlockLayout) -> Iterator[tuple[ShellGroup, Tensor]]:
    """Matrix elements [B, G, p, q] of every shell group."""
    sizes = [
        len(group.first) * _kept_columns(group.l1, group.l2, group.degrees).shape[1]
        for group in layout.groups
    ]
    listed = packed_BS.index_select(1, _listed_place(layout).to(packed_BS.device)).split(
        sizes, dim=1
    )
    for group, irreps in zip(layout.groups, listed, strict=True):
        matrix = _kept_columns(group.l1, group.l2, group.degrees).to(packed_BS) / group.weight
        values = irreps.unflatten(1, (len(group.first), -1)) @ matrix.T
        yield group, values.unflatten(2, (2 * group.l1 + 1, 2 * group.l2 + 1))


def packing_entries(layout: BlockLayout) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """List `pack` as a sparse linear map: packed[component] += value * block[row, column].

    Returns:
        component, row, column (int64) and value (float64), one entry per nonzero: two to four per
        matrix element.
    """
    # Batches are coupled by these entries (data/graphs/targets.py), whatever their molecules: the
    # dense map of a block is mostly zeros.
    entries: list[tuple[np.ndarray, ...]] = []
    start = 0
    for group in layout.groups:
        row, column = (
            axis.reshape(-1) for axis in np.broadcast_arrays(*_group_index(layout, group))
        )
        matrix = group.weight * _kept_columns(group.l1, group.l2, group.degrees).numpy()
        # What round-off leaves of a zero is no entry.
        place, column_of = np.nonzero(np.abs(matrix) > 1e-12)
        shell_pair = np.arange(len(group.first))[:, None]
        element = (shell_pair * matrix.shape[0] + place).reshape(-1)
        component = (start + shell_pair * matrix.shape[1] + column_of).reshape(-1)
        entries.append(
            (
                component,
                row[element],
                column[element],
                np.tile(matrix[place, column_of], len(group.first)),
            )
        )
        start += len(group.first) * matrix.shape[1]
    component, row, column, value = (np.concatenate(x) for x in zip(*entries, strict=True))
    return np.argsort(layout.order)[component], row, column, value
