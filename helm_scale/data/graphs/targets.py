"""Blocks -> packed irreps: the labels of a batch, on the device that trains.

Blocks of one shape are gathered as rows, turned into the columns of a table and coupled by one
sparse product: some 3 ns per matrix element on one CPU core, next to nothing beside a training
step. Coupling here and not in the processes that read saves them a third to a half of their work,
and a GPU does it in passing. What travels is as large either way, as coupling is orthogonal.

Axes: N atoms of all molecules, P unordered pairs, B blocks of one shape a x b, E their elements,
S packed components.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis import elements, layout, packing
from helm_scale.types import BlockBatch, Segment

AT_ONCE_ON_CPU = 3 << 15  # matrix elements coupled at once: they stay in the processor's cache
AT_ONCE = 3 << 22  # on other devices: a bound for what stands beside blocks and targets
LANES = 16  # blocks are coupled in multiples of a vector register


@dataclass(frozen=True)
class Blocks:
    """One matrix of every molecule of a batch, molecule after molecule.

    Attributes:
        onsite: upper triangles of the atoms' blocks, row-major, float64.
        offsite: blocks of the pairs i < j of each molecule, row-major, float64 or the model's
            dtype.
    """

    onsite: Tensor
    offsite: Tensor


@dataclass(frozen=True)
class _Coupling:
    """A sparse matrix by rows, one for every packed component.

    Component c is the sum of value[k] * block[element[k]] over start[c] <= k < start[c+1].
    """

    element: Tensor
    start: Tensor
    value: Tensor


@dataclass(frozen=True, kw_only=True)
class BlockLabels:
    """Labels of a batch before they are coupled.

    Attributes:
        triangle: [N] where in `Blocks.onsite` the triangle of atom atom_order[n] begins.
        block: [P] where in `Blocks.offsite` the block of a pair begins.
        as_stored: how many pairs of every segment come first because their block is stored as it is
            wanted; the others' blocks are stored transposed.
        hamiltonian: H - H0, Hartree. baseline_hamiltonian, overlap: where wanted.
    """

    basis: str
    parity: str
    triangle: Tensor
    block: Tensor
    as_stored: tuple[int, ...]
    hamiltonian: Blocks | None = None
    baseline_hamiltonian: Blocks | None = None
    overlap: Blocks | None = None

    @torch.no_grad()
    def coupled(self, batch: BlockBatch) -> dict[str, Tensor]:
        """Packed irreps by their names in GraphBatch; device and dtypes are those of the blocks.

        Raises:
            ValueError: parity "semilocal" would drop a part of an on-site block.
        """
        labels = {}
        for matrix, label in (
            ("hamiltonian", "target"),
            ("overlap", "overlap"),
            ("baseline_hamiltonian", "baseline_hamiltonian"),
        ):
            blocks: Blocks | None = getattr(self, matrix)
            if blocks is not None:
                labels[f"onsite_{label}"] = self._onsite(blocks, batch.atom_segments)
                labels[f"offsite_{label}"] = self._offsite(blocks, batch.pair_segments)
        return labels

    def _onsite(self, blocks: Blocks, segments: Sequence[Segment]) -> Tensor:
        """Packed irreps of the on-site blocks, segment after segment."""
        layouts = [layout.onsite_layout(self.basis, s.first, self.parity) for s in segments]
        target = _empty_like(blocks.onsite, segments, layouts)
        begins = self.triangle.split([segment.count for segment in segments])
        dropped, place = [], 0
        for segment, block, begin in zip(segments, layouts, begins, strict=True):
            aos = block.shape[0]
            triangles = _rows(blocks.onsite, begin, aos * (aos + 1) // 2)
            coupling = _onsite_coupling(self.basis, segment.first, self.parity, target.device)
            packed = target[place : place + segment.count * block.size].view(-1, block.size)
            _couple(triangles, coupling, packed)
            dropped.append(_dropped(triangles, packed, aos))
            place += packed.numel()
        _check_nothing_dropped(dropped, segments, self.parity)
        return target

    def _offsite(self, blocks: Blocks, segments: Sequence[Segment]) -> Tensor:
        """Packed irreps of the pairs' blocks, segment after segment."""
        layouts = [layout.offsite_layout(self.basis, s.first, s.second) for s in segments]
        target, place = _empty_like(blocks.offsite, segments, layouts), 0
        for segment, block, transposed, begins in self._runs(segments, layouts):
            coupling = _offsite_coupling(
                self.basis,
                (segment.first, segment.second),
                transposed=transposed,
                dtype=target.dtype,
                device=target.device,
            )
            # Few at a time, so that their table stays in the processor's cache.
            for begin in begins.split(_at_once(block.size, target.device)):
                packed = target[place : place + len(begin) * block.size].view(-1, block.size)
                _couple(_rows(blocks.offsite, begin, block.size), coupling, packed)
                place += packed.numel()
        return target

    def _runs(
        self, segments: Sequence[Segment], layouts: Sequence[layout.BlockLayout]
    ) -> Iterator[tuple[Segment, layout.BlockLayout, bool, Tensor]]:
        """Pairs of one segment whose blocks are stored alike: where each of them begins.

        First those stored as they are wanted, then the transposed ones.
        """
        for segment, block, as_stored in zip(segments, layouts, self.as_stored, strict=True):
            middle = segment.start + as_stored
            if as_stored:
                yield segment, block, False, self.block[segment.start : middle]
            if middle < segment.stop:
                yield segment, block, True, self.block[middle : segment.stop]


def _empty_like(
    flat: Tensor, segments: Sequence[Segment], layouts: Sequence[layout.BlockLayout]
) -> Tensor:
    """Uninitialised packed irreps of all segments, flat."""
    return flat.new_empty(
        sum(s.count * block.size for s, block in zip(segments, layouts, strict=True))
    )


def _rows(flat: Tensor, begin: Tensor, size: int) -> Tensor:
    """The runs of `size` elements that begin there: [n, size]."""
    return flat.unfold(0, size, 1).index_select(0, begin)


def _couple(rows_BE: Tensor, coupling: _Coupling, packed_BS: Tensor) -> None:
    """Couple blocks, their elements as rows, into `packed_BS`.

    The sparse product is a sum of weighted rows, which is what an embedding bag is: with the blocks
    as columns of a table it runs through whole vector registers.
    """
    table = rows_BE.T.contiguous()
    summed = 0  # the mode of torch's embedding_bag that adds up
    product = torch.embedding_bag(
        table, coupling.element, coupling.start, mode=summed, per_sample_weights=coupling.value
    )[0]
    packed_BS.copy_(product.T)


def _at_once(size: int, device: torch.device) -> int:
    """How many blocks of so many matrix elements are coupled at once."""
    elements_at_once = AT_ONCE_ON_CPU if device.type == "cpu" else AT_ONCE
    return max(LANES, elements_at_once // size // LANES * LANES)


@cache
def _offsite_coupling(
    basis: str,
    numbers: tuple[int, int],
    *,
    transposed: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> _Coupling:
    """Blocks [a, b] between two elements, or transposed [b, a] -> packed irreps."""
    block = layout.offsite_layout(basis, *numbers)
    component, row, column, value = packing.packing_entries(block)
    element = column * block.shape[0] + row if transposed else row * block.shape[1] + column
    return _by_component(component, element, torch.from_numpy(value).to(dtype), device)


@cache
def _onsite_coupling(
    basis: str, atomic_number: int, parity: str, device: torch.device
) -> _Coupling:
    """Upper triangles [a*(a+1)/2] of an element's on-site blocks -> packed irreps."""
    block = layout.onsite_layout(basis, atomic_number, parity)
    component, row, column, value = packing.packing_entries(block)
    low, high, size = np.minimum(row, column), np.maximum(row, column), block.shape[0]
    element = low * size - low * (low - 1) // 2 + high - low  # place in the triangle, row-major
    return _by_component(component, element, torch.from_numpy(value), device)


def _by_component(
    component: np.ndarray, element: np.ndarray, value: Tensor, device: torch.device
) -> _Coupling:
    """Sort the entries by component; every component has one at least."""
    order = np.argsort(component, kind="stable")
    start = np.searchsorted(component[order], np.arange(component.max() + 1))
    # embedding_bag takes 32-bit indices, too: half as many bytes to read
    elements_of, starts = (
        torch.from_numpy(index.astype(np.int32)).to(device) for index in (element[order], start)
    )
    return _Coupling(elements_of, starts, value[torch.from_numpy(order)].to(device))


def _dropped(triangles_BE: Tensor, packed_BS: Tensor, size: int) -> Tensor:
    """Squared norm that blocks have and their irreps lack, in excess of round-off."""
    kept = packed_BS.square().sum()
    whole = (triangles_BE.square() @ _occurrences(size, triangles_BE.device)).sum()
    return whole - kept - 1e-8 - 1e-12 * kept


@cache
def _occurrences(size: int, device: torch.device) -> Tensor:
    """How often a block has an element of its upper triangle: once on the diagonal, else twice."""
    row, column = torch.triu_indices(size, size)
    return (2.0 - (row == column).double()).to(device)


def _check_nothing_dropped(dropped: list[Tensor], segments: Sequence[Segment], parity: str) -> None:
    # one transfer of all values, for which the host waits for the device once
    norms = torch.stack(dropped).tolist() if dropped else []
    for segment, value in zip(segments, norms, strict=True):
        if value > 0:
            raise ValueError(
                f"on-site blocks of {elements.symbol(segment.first)}: parity '{parity}' drops"
                f" {value**0.5:.1e} Eh; hybrid functionals need model.parity: full (or the blocks"
                " are not symmetric)"
            )
