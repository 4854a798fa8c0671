"""Blocks -> packed irreps, the labels of a batch, on the device that trains.

Blocks of one kind are gathered as rows, turned into the columns of a table and coupled by one
sparse product: some 3 ns per matrix element on one CPU core, next to nothing beside a training
step. Coupling here and not in the processes that read leaves them a third to a half of their work,
and a GPU does it in passing; what travels there is as large either way, as coupling is orthogonal.

Axes: N atoms of all molecules, P unordered pairs, B blocks of one kind of shape a x b, S packed
components.
"""

from collections.abc import Sequence
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
    """A sparse matrix by rows: component c is the sum of value[k] * block[element[k]], start[c] <=
    k < start[c+1]."""

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
        """Packed irreps under the names of GraphBatch, on the device and with the dtypes of the
        blocks.

        Raises:
            ValueError: parity "semilocal" would drop a part of an on-site block.
        """
        labels = {}
        for name, label in (
            ("hamiltonian", "target"),
            ("overlap", "overlap"),
            ("baseline_hamiltonian", "baseline_hamiltonian"),
        ):
            blocks: Blocks | None = getattr(self, name)
            if blocks is not None:
                labels[f"onsite_{label}"] = self._onsite(blocks, batch.atom_segments)
                labels[f"offsite_{label}"] = self._offsite(blocks, batch.pair_segments)
        return labels

    def _onsite(self, blocks: Blocks, segments: Sequence[Segment]) -> Tensor:
        """Packed irreps of the on-site blocks, segment after segment."""
        kinds = [
            layout.onsite_layout(self.basis, segment.first, self.parity) for segment in segments
        ]
        target = blocks.onsite.new_empty(
            sum(s.count * kind.size for s, kind in zip(segments, kinds, strict=True))
        )
        place, dropped = 0, []
        for segment, kind in zip(segments, kinds, strict=True):
            size, count = kind.shape[0] * (kind.shape[0] + 1) // 2, segment.count
            triangles = _rows(blocks.onsite, self.triangle[segment.start : segment.stop], size)
            packed = target[place : place + count * kind.size].view(count, kind.size)
            _couple(
                triangles,
                _onsite_coupling(self.basis, segment.first, self.parity, target.device),
                packed,
            )
            dropped.append(_dropped(triangles, packed, kind.shape[0]))
            place += packed.numel()
        _check_nothing_dropped(dropped, segments, self.parity)
        return target

    def _offsite(self, blocks: Blocks, segments: Sequence[Segment]) -> Tensor:
        """Packed irreps of the pairs' blocks, segment after segment."""
        kinds = [layout.offsite_layout(self.basis, s.first, s.second) for s in segments]
        target = blocks.offsite.new_empty(
            sum(s.count * kind.size for s, kind in zip(segments, kinds, strict=True))
        )
        place = 0
        for segment, kind, as_stored in zip(segments, kinds, self.as_stored, strict=True):
            middle = segment.start + as_stored
            for first, last, transposed in (
                (segment.start, middle, False),
                (middle, segment.stop, True),
            ):
                if first == last:
                    continue
                coupling = _offsite_coupling(
                    self.basis,
                    segment.first,
                    segment.second,
                    transposed,
                    target.dtype,
                    target.device,
                )
                for begin in self.block[first:last].split(_at_once(kind.size, target.device)):
                    packed = target[place : place + len(begin) * kind.size].view(-1, kind.size)
                    _couple(_rows(blocks.offsite, begin, kind.size), coupling, packed)
                    place += packed.numel()
        return target


def _rows(flat: Tensor, begin: Tensor, size: int) -> Tensor:
    """The runs of `size` elements that begin there: [n, size]."""
    return flat.unfold(0, size, 1).index_select(0, begin)


def _couple(rows_BE: Tensor, coupling: _Coupling, packed_BS: Tensor) -> None:
    """Couple blocks, their elements as rows.

    The sparse product is a sum of weighted rows, which is what an embedding bag is: with the blocks
    as columns of a table it runs through whole vector registers.
    """
    table = rows_BE.T.contiguous()
    product = torch.embedding_bag(
        table, coupling.element, coupling.start, mode=0, per_sample_weights=coupling.value
    )[0]  # 0: sum
    packed_BS.copy_(product.T)


def _at_once(size: int, device: torch.device) -> int:
    """Blocks of so many matrix elements that are coupled at once."""
    return max(
        LANES, (AT_ONCE_ON_CPU if device.type == "cpu" else AT_ONCE) // size // LANES * LANES
    )


@cache
def _offsite_coupling(
    basis: str, first: int, second: int, transposed: bool, dtype: torch.dtype, device: torch.device
) -> _Coupling:
    """Blocks [a, b] between two elements, or transposed [b, a] -> packed irreps."""
    kind = layout.offsite_layout(basis, first, second)
    component, row, column, value = packing.packing_entries(kind)
    element = column * kind.shape[0] + row if transposed else row * kind.shape[1] + column
    return _by_component(component, element, value, dtype, device)


@cache
def _onsite_coupling(
    basis: str, atomic_number: int, parity: str, device: torch.device
) -> _Coupling:
    """Upper triangles [a*(a+1)/2] of an element's on-site blocks -> packed irreps."""
    kind = layout.onsite_layout(basis, atomic_number, parity)
    component, row, column, value = packing.packing_entries(kind)
    low, high, size = np.minimum(row, column), np.maximum(row, column), kind.shape[0]
    return _by_component(
        component, low * size - low * (low - 1) // 2 + high - low, value, torch.float64, device
    )


def _by_component(
    component: np.ndarray,
    element: np.ndarray,
    value: np.ndarray,
    dtype: torch.dtype,
    device: torch.device,
) -> _Coupling:
    """Sort the entries by component; every component has one at least."""
    order = np.argsort(component, kind="stable")
    start = np.searchsorted(component[order], np.arange(component.max() + 1))
    places, starts = (
        torch.from_numpy(values.astype(np.int32)).to(device) for values in (element[order], start)
    )
    return _Coupling(places, starts, torch.from_numpy(value[order]).to(device, dtype))


def _dropped(triangles_BE: Tensor, packed_BS: Tensor, size: int) -> Tensor:
    """Squared norm of blocks, given as triangles, that their irreps lack, in excess of what is
    round-off."""
    kept = packed_BS.square().sum()
    return (
        (triangles_BE.square() @ _occurrences(size, triangles_BE.device)).sum()
        - kept
        - 1e-8
        - 1e-12 * kept
    )


@cache
def _occurrences(size: int, device: torch.device) -> Tensor:
    """How often a block has every element of its upper triangle: once on the diagonal, else
    twice."""
    row, column = torch.triu_indices(size, size)
    return (2.0 - (row == column).double()).to(device)


def _check_nothing_dropped(dropped: list[Tensor], segments: Sequence[Segment], parity: str) -> None:
    for segment, value in zip(
        segments, torch.stack(dropped).tolist() if dropped else (), strict=True
    ):  # waits for the device once
        if value > 0:
            raise ValueError(
                f"on-site blocks of {elements.symbol(segment.first)}: parity '{parity}' drops {value**0.5:.1e} Eh;"
                " hybrid functionals need model.parity: full (or the blocks are not symmetric)"
            )
