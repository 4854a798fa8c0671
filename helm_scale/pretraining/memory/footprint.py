"""Estimates what a training step needs by running the step itself on tensors without data.

torch's meta device runs no arithmetic and holds no data. A tracker sees every tensor that the step
makes there, and when it goes; the largest sum of their bytes is the peak. So the figure is no fit
to a machine, and it follows the code when that changes. What a kernel allocates for itself inside
one operation, and what an allocator loses to fragmentation, it does not see.

Axes: N atoms, E message edges (unordered), P unordered pairs, S numbers of the packed targets.
"""

import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from helm_scale import optim
from helm_scale.basis import elements, layout, slots
from helm_scale.config import ModelConfig, TrainingConfig
from helm_scale.losses.hamiltonian import HamiltonianObjective
from helm_scale.model.helm import Helm
from helm_scale.parallel import flat_shards
from helm_scale.pretraining.memory.chunks import ChunkSettings
from helm_scale.types import GraphBatch, Segment

ESTIMATED_CHUNKS = 3  # from the third on nothing changes but what grows with the edges
META = torch.device("meta")
COMMON_ELEMENTS = 2  # of the data: those that the estimated molecules consist of


class BatchSize(NamedTuple):
    """Size of a micro-batch: atoms, message edges, pairs."""

    atoms: int
    edges: int
    pairs: int


class AllocationTracker(TorchDispatchMode):
    """Counts the bytes of meta tensors that are alive, and their peak.

    Args:
        known: tensors that are there before and are not counted.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.current, self.peak = 0, 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count what it returns."""
        result = func(*args, **(kwargs or {}))
        # Tensors that were freed have been subtracted by their finalizers.
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.device.type == "meta":
                self._count(leaf.untyped_storage())
        self.peak = max(self.peak, self.current)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._sizes:
            # views share one storage: it counts once, and goes with the last of them
            self._sizes[storage._cdata] = storage.nbytes()
            self.current += storage.nbytes()
            weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, name: int) -> None:
        self.current -= self._sizes.pop(name)


class StepEstimator:
    """A model on the meta device, and the training steps that it would take.

    Args:
        composition: element symbol -> number of atoms, of the data; decides how large blocks are.
        low: whether weights and activations are bfloat16.
    """

    def __init__(
        self, config: ModelConfig, composition: Mapping[str, int], low: bool = False
    ) -> None:
        self._config, self._composition = config, _shares(composition)
        with torch.random.fork_rng(devices=[]):  # the weights that training draws stay as they are
            self.model = Helm(config).to("meta")
        for parameter in self.model.parameters() if low else ():
            parameter.data = parameter.data.to(torch.bfloat16)
        self._objective = HamiltonianObjective(
            config.basis, config.parity, self.model.reference_onsite
        )
        # Made here, so that no step is charged for making them.
        tables = [
            slots.pair_slots(config.basis, META),
            slots.atom_slots(config.basis, config.parity, META),
        ]
        self.table_bytes = sum(
            values.nbytes for table in tables for values in table if isinstance(values, Tensor)
        )
        self._peak = lru_cache(maxsize=None)(self._peak_of_size)  # a search asks again and again

    def batch(self, size: BatchSize) -> GraphBatch:
        """A micro-batch of that size, on the meta device, with labels."""
        return representative(size, self._composition, self._config)

    def activation_bytes(self, size: BatchSize, chunks: ChunkSettings, first: bool) -> int:
        """Peak bytes of forward and backward pass, beside parameters and labels.

        Args:
            first: whether it is the first micro-batch of a step, whose gradients are not there
                before; they then count.
        """
        pairs = size.pairs
        if chunks.pair_chunk:
            pairs = min(pairs, ESTIMATED_CHUNKS * chunks.pair_chunk)
        estimated = ESTIMATED_CHUNKS * chunks.message_chunk
        if chunks.recompute == "none" or size.edges <= estimated:
            return self._peak(BatchSize(size.atoms, size.edges, pairs), chunks, first)
        # Of many chunks, only what is kept per edge grows, and evenly: a line through two points.
        peak, more = (
            self._peak(BatchSize(size.atoms, edges, pairs), chunks, first)
            for edges in (estimated, estimated + chunks.message_chunk)
        )
        return peak + (more - peak) * (size.edges - estimated) // chunks.message_chunk

    def activation_bytes_of(
        self, batch: GraphBatch, chunks: ChunkSettings, first: bool = True
    ) -> int:
        """`activation_bytes` of a batch of any device, at its full size."""
        return self._peak_of(batch.to("meta"), chunks, first)

    def flops(self, size: BatchSize, recompute: str) -> int:
        """Floating-point operations of the matrix products of a step (torch's FlopCounterMode)."""
        self.model.set_memory(0, recompute, max(size.edges, 1))
        with FlopCounterMode(display=False) as counter:
            self._step(self.batch(size))
        self.model.zero_grad()
        return counter.get_total_flops()

    def optimizer_step_bytes(self, training: TrainingConfig) -> int:
        """Peak bytes of the optimiser's step beside weights, gradients and moments.

        AdamW's needs none worth counting.
        """
        spec = optim.spec_of(training.optimizer)
        if not spec.matrices_only:
            return 0
        # Whole matrices on one rank; the planner divides by the ranks that share them.
        hidden = [
            flat_shards.from_replicated(parameter) for parameter in self.model.hidden_matrices()
        ]
        for shard in hidden:
            shard.local.grad = torch.zeros_like(shard.local)
        optimizer = spec.make(hidden, training)
        optimizer.step()  # makes the moments, which are counted among the states
        with AllocationTracker() as tracker:
            for _ in range(spec.period(training)):
                optimizer.step()
        return tracker.peak

    def _peak_of_size(self, size: BatchSize, chunks: ChunkSettings, first: bool) -> int:
        return self._peak_of(self.batch(size), chunks, first)

    def _peak_of(self, batch: GraphBatch, chunks: ChunkSettings, first: bool) -> int:
        self.model.set_memory(*chunks)
        for parameter in self.model.parameters():
            parameter.grad = None if first else torch.zeros_like(parameter)
        weights = [*self.model.state_dict(keep_vars=True).values(), *self.model.buffers()]
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        labels = [value for value in vars(batch).values() if isinstance(value, Tensor)]
        with AllocationTracker([*weights, *gradients, *labels]) as tracker:
            self._step(batch)
        self.model.zero_grad()
        return tracker.peak

    def _step(self, batch: GraphBatch) -> None:
        self._objective(self.model, batch).total.backward()


def label_bytes(batch: GraphBatch) -> int:
    """Bytes of the targets of a batch."""
    return sum(
        target.nbytes
        for target in (batch.onsite_target, batch.offsite_target)
        if target is not None
    )


def representative(size: BatchSize, shares: Mapping[int, float], config: ModelConfig) -> GraphBatch:
    """Make a molecule on the meta device with so many atoms, edges and pairs.

    Elements occur by their shares, and element pairs as often as by chance.

    Args:
        shares: atomic number -> share of the atoms.
    """
    atoms, pairs = _atom_segments(size.atoms, shares), _pair_segments(size.pairs, shares)
    onsite = sum(
        s.count * layout.onsite_layout(config.basis, s.first, config.parity).size for s in atoms
    )
    offsite = sum(
        s.count * layout.offsite_layout(config.basis, s.first, s.second).size for s in pairs
    )

    def integers(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int64, device="meta")

    working = getattr(torch, config.dtype)

    def floats(*shape: int, dtype: torch.dtype = working) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    conditions: dict[str, Any] = {}
    for name in config.conditions:
        conditions |= {f"onsite_{name}": floats(onsite), f"offsite_{name}": floats(offsite)}
    return GraphBatch(
        keys=("representative",),
        atomic_numbers=integers(size.atoms),
        positions=floats(size.atoms, 3, dtype=torch.float64),
        molecule=integers(size.atoms),
        charge=integers(1),
        spin_multiplicity=integers(1),
        edge_index=integers(2, size.edges),
        pair_index=integers(2, size.pairs),
        pair_segments=pairs,
        atom_order=integers(size.atoms),
        atom_segments=atoms,
        onsite_target=floats(onsite, dtype=torch.float64),
        offsite_target=floats(offsite),
        matrix_elements=integers(1),
        **conditions,
    )


def _atom_segments(atoms: int, shares: Mapping[int, float]) -> tuple[Segment, ...]:
    return _segments([(z, 0) for z in shares], _apportioned(atoms, list(shares.values())))


def _pair_segments(pairs: int, shares: Mapping[int, float]) -> tuple[Segment, ...]:
    element_pairs = [(a, b) for a in shares for b in shares if a <= b]
    # a pair of unlike elements comes about in two ways
    weights = [shares[a] * shares[b] * (1 if a == b else 2) for a, b in element_pairs]
    return _segments(element_pairs, _apportioned(pairs, weights))


def _shares(composition: Mapping[str, int]) -> dict[int, float]:
    """Shares of the most common elements, by ascending atomic number."""
    common = sorted(composition, key=lambda symbol: -composition[symbol])[:COMMON_ELEMENTS]
    total = sum(composition[symbol] for symbol in common)
    return {
        number: composition[elements.symbol(number)] / total
        for number in sorted(map(elements.atomic_number, common))
    }


def _apportioned(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `total`, in proportion to the weights."""
    # Bounds are rounded and not the numbers, so that these sum to the total.
    bounds = np.rint(np.cumsum([0.0, *weights]) / sum(weights) * total).astype(np.int64)
    return np.diff(bounds).tolist()


def _segments(numbers: Sequence[tuple[int, int]], counts: Sequence[int]) -> tuple[Segment, ...]:
    """Consecutive segments of so many atoms or pairs each, those without any left out."""
    starts = np.cumsum([0, *counts])
    return tuple(
        Segment(*elements_of, int(a), int(b))
        for elements_of, a, b in zip(numbers, starts, starts[1:], strict=False)
        if b > a
    )
