"""The types of the data flow: Method and Molecule (numpy), BlockBatch and GraphBatch (torch).

Axes: N atoms of all molecules of a batch, B molecules, E message edges, P unordered pairs.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, is_dataclass, replace
from types import UnionType
from typing import Any, NamedTuple, Protocol, Self, cast

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis.slots import pair_kind


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a label was made; labels of two methods never mix.

    Attributes:
        xc, basis: names as PySCF spells them; ecp: "def2" where heavy atoms carry the basis' ECP.
        grid_level: PySCF's grid level. auxbasis: density-fitting basis, or None for exact Coulomb
            integrals.
        conv_tol: SCF threshold in Hartree. baseline: "none" or "minao", the H0 stored beside H.
        program: name and version.
    """

    xc: str
    basis: str
    ecp: str
    grid_level: int
    auxbasis: str | None
    conv_tol: float
    baseline: str
    program: str


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A property of whole molecules: how labels name it, and in which units it comes and goes.

    Attributes:
        name: of its label; files may also call it REF_<name>. shape: of one value, () or (3,).
        unit: in memory and in shards. file_unit: in extended XYZ and ASE databases.
            report_unit: in tables and pictures.
        in_file_unit, in_report_unit: one `unit` in these.
    """

    name: str
    shape: tuple[int, ...] = ()
    unit: str
    file_unit: str
    report_unit: str
    in_file_unit: float = 1.0
    in_report_unit: float = 1.0

    @property
    def components(self) -> int:
        """Numbers in one value."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Molecule:
    """One molecule and the labels it has.

    Attributes:
        key: unique name within a dataset, without dots.
        atomic_numbers: [N] int64. positions: [N, 3] float64, Angstrom.
        charge: total charge. spin_multiplicity: 2S+1.
        hamiltonian, baseline_hamiltonian, overlap: [nao, nao] float64, Hartree (overlap: none),
            canonical AO order.
        energy: Hartree. forces: [N, 3] Hartree/Angstrom. method: how the labels were made.
        scf_retry: what made the SCF converge where it failed at first (dft/convergence.py).
        properties: further labels of the whole molecule by name, as {"dipole": [3] e*Angstrom};
            the dipole of an ion is taken about its centre of nuclear charge.
    """

    key: str
    atomic_numbers: np.ndarray
    positions: np.ndarray
    _: KW_ONLY
    charge: int = 0
    spin_multiplicity: int = 1
    hamiltonian: np.ndarray | None = None
    baseline_hamiltonian: np.ndarray | None = None
    overlap: np.ndarray | None = None
    energy: float | None = None
    forces: np.ndarray | None = None
    method: Method | None = None
    scf_retry: str | None = None
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)

    def value(self, name: str) -> np.ndarray | None:
        """Label of the whole molecule by name, "energy" or one of `properties`, if it has it."""
        if name == "energy":
            return None if self.energy is None else np.asarray(self.energy)
        return self.properties.get(name)


@dataclass(frozen=True)
class Segment:
    """Consecutive atoms (second = 0) or pairs of one element or element pair in a batch."""

    first: int
    second: int
    start: int
    stop: int

    @property
    def count(self) -> int:
        """Number of its atoms or pairs."""
        return self.stop - self.start


@dataclass(frozen=True)
class PairChunk:
    """Consecutive pairs of a batch.

    Attributes:
        start, stop: columns of GraphBatch.pair_index.
        segments: runs of one element pair, counted from `start`.
        flat: place of their packed irreps in GraphBatch.offsite_target.
    """

    start: int
    stop: int
    segments: tuple[Segment, ...]
    flat: slice

    @property
    def size(self) -> int:
        """Number of its packed irreps."""
        return self.flat.stop - self.flat.start


class Geometry(NamedTuple):
    """What a network sees of molecules, as plain tensors: a pytree, which torch.export takes.

    Attributes:
        positions: [N, 3] float64, Angstrom. atomic_numbers: [N].
        edge_index: [2, E] the two atoms of every edge, each edge once, in either order.
        molecule: [N] index of each atom's molecule. charge, spin_multiplicity: [B] integers.
    """

    positions: Tensor
    atomic_numbers: Tensor
    edge_index: Tensor
    molecule: Tensor
    charge: Tensor
    spin_multiplicity: Tensor


class Labels(Protocol):
    """Matrices of molecules as blocks (data/graphs/targets.py)."""

    def coupled(self, batch: "BlockBatch") -> dict[str, Any]:
        """The packed irreps that the blocks become, by their names in GraphBatch."""


@dataclass(frozen=True, kw_only=True)
class MolecularGraph:
    """Several molecules as one graph; what batches with blocks and with irreps have in common.

    Attributes:
        keys: names of the molecules.
        atomic_numbers: [N]. positions: [N, 3] float64, Angstrom. molecule: [N] index of an atom's
            molecule.
        charge, spin_multiplicity: [B].
        edge_index: [2, E] the two atoms of every message edge, each edge once; messages go both
            ways.
        pair_index: [2, P] atoms of each unordered pair, lower atomic number first, sorted by
            element pair.
        pair_segments: runs of one element pair in pair_index.
        atom_order: [N] atoms sorted by element. atom_segments: runs of one element in atom_order.
        matrix_elements: [B] matrix elements (both triangles) of the labelled Hamiltonians, or None.
        energy: [B] float64 Hartree or None. forces: [N, 3] float64 Hartree/Angstrom or None.
        noise_seed: with the keys, fixes all random numbers of this batch; in training, the step.
        pair_world_size: how many processes hold this batch and share its edges and pairs; each
            counts its sums over atoms and molecules as this fraction.
    """

    keys: tuple[str, ...]
    atomic_numbers: Tensor
    positions: Tensor
    molecule: Tensor
    charge: Tensor
    spin_multiplicity: Tensor
    edge_index: Tensor
    pair_index: Tensor
    pair_segments: tuple[Segment, ...]
    atom_order: Tensor
    atom_segments: tuple[Segment, ...]
    matrix_elements: Tensor | None = None
    energy: Tensor | None = None
    forces: Tensor | None = None
    noise_seed: int = 0
    pair_world_size: int = 1

    @property
    def num_molecules(self) -> int:
        """Number of molecules B."""
        return len(self.keys)

    def to(self, device: torch.device | str) -> Self:
        """Copy with every tensor on the device."""
        return cast(Self, with_leaves(self, lambda tensor: tensor.to(device)))


@dataclass(frozen=True, kw_only=True)
class BlockBatch(MolecularGraph):
    """A batch as processes that read it make it: its labels are blocks, which are not yet coupled.

    Attributes:
        labels: matrices of the molecules, block by block.
    """

    labels: Labels


@dataclass(frozen=True, kw_only=True)
class GraphBatch(MolecularGraph):
    """A batch as models and losses take it: its labels, where it has any, are packed irreps.

    Attributes:
        onsite_target: packed irreps of H - H0 of the on-site blocks, run after run, row-major,
            float64 Hartree, or None.
        offsite_target: the same for the pairs within the Hamiltonian cutoff; from shards in the
            dtype of the model.
        onsite_overlap, offsite_overlap: packed irreps of S, laid out as the targets, where a
            setting asks for them.
        onsite_baseline_hamiltonian, offsite_baseline_hamiltonian: the same of H0, Hartree.
    """

    onsite_target: Tensor | None = None
    offsite_target: Tensor | None = None
    onsite_overlap: Tensor | None = None
    offsite_overlap: Tensor | None = None
    onsite_baseline_hamiltonian: Tensor | None = None
    offsite_baseline_hamiltonian: Tensor | None = None

    @property
    def geometry(self) -> Geometry:
        """What a network sees of the molecules."""
        return Geometry(
            positions=self.positions,
            atomic_numbers=self.atomic_numbers,
            edge_index=self.edge_index,
            molecule=self.molecule,
            charge=self.charge,
            spin_multiplicity=self.spin_multiplicity,
        )

    @property
    def atom_kinds(self) -> Tensor:
        """Atomic numbers, sorted as `atom_order`: kinds of on-site blocks (basis/slots.py)."""
        return self.atomic_numbers.index_select(0, self.atom_order)

    def pair_kinds(self, chunk: PairChunk) -> Tensor:
        """Kinds of the off-site blocks of a chunk (basis/slots.py)."""
        first, second = self.pair_index[:, chunk.start : chunk.stop]
        return pair_kind(
            self.atomic_numbers.index_select(0, first), self.atomic_numbers.index_select(0, second)
        )

    def pair_chunks(
        self, length: int, size_of: Callable[[Segment], int], *, rank: int = 0, world_size: int = 1
    ) -> list[PairChunk]:
        """Cut one rank's share of the pairs into chunks of at most `length`; 0: one chunk of all.

        Args:
            size_of: packed components of one block of an element pair.
        Returns:
            at least one chunk, even where there are no pairs.
        """
        total = self.pair_index.shape[1]
        first, last = total * rank // world_size, total * (rank + 1) // world_size
        # The share begins where the irreps of all pairs before it end.
        chunks, place = [], self._chunk(0, first, 0, size_of).flat.stop
        for start in range(first, max(last, first + 1), length or max(total, 1)):
            chunks.append(self._chunk(start, min(start + (length or total), last), place, size_of))
            place = chunks[-1].flat.stop
        return chunks

    def _chunk(
        self, start: int, stop: int, place: int, size_of: Callable[[Segment], int]
    ) -> PairChunk:
        """Pairs from start to stop; place: where their packed irreps begin."""
        segments = tuple(
            Segment(s.first, s.second, max(s.start, start) - start, min(s.stop, stop) - start)
            for s in self.pair_segments
            if s.start < stop and s.stop > start
        )
        size = sum(s.count * size_of(s) for s in segments)
        return PairChunk(start, stop, segments, flat=slice(place, place + size))


Batch = BlockBatch | GraphBatch


class Prediction(NamedTuple):
    """What a model predicts: packed irreps of H - H0 - reference, Hartree.

    They are laid out as GraphBatch.onsite_target and offsite_target.
    """

    onsite: Tensor
    offsite: Tensor


class PairSums(NamedTuple):
    """A prediction whose pairs a loss has summed up, chunk by chunk.

    Attributes:
        onsite: packed irreps, as in Prediction. offsite: [S] what the loss gave, summed over pairs.
    """

    onsite: Tensor
    offsite: Tensor


# From a chunk of pairs and its predicted irreps, flat, to the sums [S] of a loss; only the first
# of them brings a gradient.
PairLoss = Callable[[PairChunk, Tensor], Tensor]


def couple_labels(batch: Batch, device: torch.device | str) -> GraphBatch:
    """Move a batch to a device and couple its blocks to irreps there.

    On a GPU the coupling costs next to nothing, while processes that read would spend a third to a
    half of their time on it. A batch of irreps only moves.
    """
    if isinstance(batch, GraphBatch):
        return batch.to(device)
    moved = batch.to(device)
    graph = {name: value for name, value in vars(moved).items() if name != "labels"}
    return GraphBatch(**graph, **moved.labels.coupled(moved))


def with_leaves(value: Any, change: Callable[[Any], Any], leaves: type | UnionType = Tensor) -> Any:
    """Copy a dataclass with its leaves changed, at any depth; everything else stays."""
    if isinstance(value, leaves):
        return change(value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return replace(
        value,
        **{f.name: with_leaves(getattr(value, f.name), change, leaves) for f in fields(value)},
    )
