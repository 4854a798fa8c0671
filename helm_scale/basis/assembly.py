"""Assembles the packed irreps of a batch into one dense matrix per molecule.

The map is linear and differentiable, in float64. A block and its transpose are the same numbers, so
matrices equal their transposes to the last bit.

Axes: N atoms, P pairs, n blocks of one segment, a x b atomic orbitals of their two atoms.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from helm_scale.basis.layout import BlockLayout, ao_offsets, offsite_layout, onsite_layout
from helm_scale.basis.packing import unpack


# Protocols, because floors import lower floors only: types.py stands above basis.
class BlockSegment(Protocol):
    """What assembly reads of a types.Segment, which stands on a higher floor."""

    @property
    def first(self) -> int: ...
    @property
    def second(self) -> int: ...
    @property
    def count(self) -> int: ...


class BlockGraph(Protocol):
    """What assembly reads of a types.GraphBatch, which stands on a higher floor."""

    @property
    def num_molecules(self) -> int: ...
    @property
    def atomic_numbers(self) -> Tensor: ...
    @property
    def molecule(self) -> Tensor: ...
    @property
    def atom_order(self) -> Tensor: ...
    @property
    def atom_segments(self) -> Sequence[BlockSegment]: ...
    @property
    def pair_index(self) -> Tensor: ...
    @property
    def pair_segments(self) -> Sequence[BlockSegment]: ...


def assemble(
    batch: BlockGraph, onsite: Tensor, offsite: Tensor, *, basis: str, parity: str
) -> list[Tensor]:
    """Build the dense matrix of every molecule; blocks of pairs that the batch lacks stay zero.

    Args:
        onsite, offsite: flat packed irreps, segment after segment, as GraphBatch.onsite_target and
            offsite_target; their unit is kept.
        parity: irreps that on-site packing kept, "semilocal" or "full".
    Returns:
        [nao, nao] float64 in canonical order, on the device of `onsite`, equal to their transposes
        to the last bit and differentiable with respect to both inputs.
    Raises:
        ValueError: a flat vector does not have the length that the batch asks for.
    """
    places = _Places(batch, basis, onsite.device)
    near = [onsite_layout(basis, s.first, parity) for s in batch.atom_segments]
    far = [offsite_layout(basis, s.first, s.second) for s in batch.pair_segments]
    atoms = torch.stack([batch.atom_order, batch.atom_order])  # both ends of an on-site block
    index, values = [], []
    for ends, blocks in _blocks(
        "onsite", onsite, segments=batch.atom_segments, layouts=near, ends=atoms
    ):
        index.append(places.of(ends[0], ends[1], blocks.shape))
        values.append(blocks)
    for ends, blocks in _blocks(
        "offsite", offsite, segments=batch.pair_segments, layouts=far, ends=batch.pair_index
    ):
        atom_i, atom_j = ends
        index += [
            places.of(atom_i, atom_j, blocks.shape),
            places.of(atom_j, atom_i, blocks.mT.shape),
        ]
        values += [blocks, blocks.mT]
    return places.matrices(index, values)


def _blocks(
    name: str,
    flat: Tensor,
    segments: Sequence[BlockSegment],
    layouts: Sequence[BlockLayout],
    ends: Tensor,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the two atoms [2, n] and the float64 blocks [n, a, b] of every segment."""
    sizes = [segment.count * layout.size for segment, layout in zip(segments, layouts, strict=True)]
    if flat.shape != (sum(sizes),):
        raise ValueError(
            f"{name}: got packed irreps of shape {tuple(flat.shape)},"
            f" wanted ({sum(sizes)},) for this batch"
        )
    # Cast before unpacking: errors of microhartrees lie in the seventh digit of on-site elements.
    irreps_by_segment = flat.double().split(sizes)
    ends_by_segment = ends.to(flat.device).split([segment.count for segment in segments], dim=1)
    for layout, irreps, atoms in zip(layouts, irreps_by_segment, ends_by_segment, strict=True):
        yield atoms, unpack(irreps.view(-1, layout.size), layout)


class _Places:
    """Finds matrix elements in one flat vector that holds the matrices of all molecules."""

    def __init__(self, batch: BlockGraph, basis: str, device: torch.device) -> None:
        """Count the orbitals of every atom and molecule; both are few, so the CPU does it."""
        offsets = torch.from_numpy(ao_offsets(basis, batch.atomic_numbers.cpu().numpy()))
        molecule = batch.molecule.cpu()
        first_atom = torch.searchsorted(molecule, torch.arange(batch.num_molecules + 1))
        first_ao = offsets[first_atom]  # atoms of a molecule are consecutive
        nao = first_ao.diff()
        self._nao: list[int] = nao.tolist()
        self._start = (offsets[:-1] - first_ao[molecule]).to(device)  # of an atom in its molecule
        self._width = nao[molecule].to(device)
        # Matrices before an atom's own take the squares of their numbers of orbitals.
        self._origin = (nao.square().cumsum(0) - nao.square())[molecule].to(device)

    def of(self, first: Tensor, second: Tensor, shape: Sequence[int]) -> Tensor:
        """Places of the elements of blocks [n, a, b] between first and second atoms, [n] each."""
        rows, columns = (torch.arange(size, device=first.device) for size in shape[1:])
        row, column = self._start[first, None] + rows, self._start[second, None] + columns
        width, origin = self._width[first, None, None], self._origin[first, None, None]
        return origin + row[:, :, None] * width + column[:, None, :]

    def matrices(self, index: Sequence[Tensor], values: Sequence[Tensor]) -> list[Tensor]:
        """Write values to their places and cut the vector into matrices [nao, nao]."""
        device = self._start.device
        flat = torch.zeros(sum(n * n for n in self._nao), dtype=torch.float64, device=device)
        if values:  # one write for all: every element has one place, so that no order matters
            joined = (torch.cat([x.flatten() for x in tensors]) for tensors in (index, values))
            flat = flat.scatter(0, *joined)
        sizes = [n * n for n in self._nao]
        return [matrix.view(n, n) for matrix, n in zip(flat.split(sizes), self._nao, strict=True)]
