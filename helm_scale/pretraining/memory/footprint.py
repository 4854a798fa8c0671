"""What a training step needs, found by rehearsing it: the step's own code on tensors that have
shapes but no memory.

torch's meta device runs no arithmetic and holds no data. A ledger sees every tensor that the step
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
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from helm_scale.basis import elements, layout
from helm_scale.config import ModelConfig, TrainingConfig
from helm_scale.losses.hamiltonian import HamiltonianObjective
from helm_scale.model.helm import Helm
from helm_scale.optim import optimizers
from helm_scale.parallel import flat_shards
from helm_scale.types import GraphBatch, Segment

REHEARSED = 3  # chunks; from the third on nothing changes but what grows with the edges
COMMON = 2  # elements of the rehearsed molecules: the most common ones of the data


class Load(NamedTuple):
    """Size of a micro-batch: atoms, message edges, pairs."""

    atoms: int
    edges: int
    pairs: int


class Memory(NamedTuple):
    """What is held for the backward pass; see ExecutionConfig."""

    pair_chunk: int
    recompute: str
    message_chunk: int


class Ledger(TorchDispatchMode):
    """Bytes of the meta tensors that are alive, and their peak.

    Args:
        known: tensors that are there before and are not counted.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and enter what it returns."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.device.type == "meta":
                self._enter(leaf.untyped_storage())
        self.peak = max(self.peak, self.alive)
        return made

    def _enter(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._sizes:
            self._sizes[storage._cdata] = storage.nbytes()
            self.alive += storage.nbytes()
            weakref.finalize(storage, self._leave, storage._cdata)

    def _leave(self, name: int) -> None:
        self.alive -= self._sizes.pop(name)


class Rehearsal:
    """A model on the meta device, and the steps that it would take.

    Args:
        composition: element symbol -> number of atoms, of the data; decides how large blocks are.
        low: whether weights and activations are bfloat16.
    """

    def __init__(
        self, config: ModelConfig, composition: Mapping[str, int], low: bool = False
    ) -> None:
        self._config, self._composition = config, _shares(composition)
        with torch.random.fork_rng(devices=[]):
            self.model = Helm(config).to("meta")
        for parameter in self.model.parameters() if low else ():
            parameter.data = parameter.data.to(torch.bfloat16)
        self._objective = HamiltonianObjective(
            config.basis, config.parity, self.model.reference_onsite
        )
        self._peak = lru_cache(maxsize=None)(self._rehearse)

    def batch(self, load: Load) -> GraphBatch:
        """A micro-batch of that size, on the meta device, with labels."""
        return representative(load, self._composition, self._config)

    def activations(self, load: Load, memory: Memory, first: bool) -> int:
        """Peak bytes of forward and backward pass, beside parameters and labels.

        Args:
            first: whether it is the first micro-batch of a step, whose gradients are not there
                before; they then count.
        """
        pairs = min(load.pairs, REHEARSED * memory.pair_chunk) if memory.pair_chunk else load.pairs
        few = REHEARSED * memory.message_chunk
        if memory.recompute == "none" or load.edges <= few:
            return self._peak(Load(load.atoms, load.edges, pairs), memory, first)
        peak, more = (
            self._peak(Load(load.atoms, edges, pairs), memory, first)
            for edges in (few, few + memory.message_chunk)
        )
        return peak + (more - peak) * (load.edges - few) // memory.message_chunk

    def of_batch(self, batch: GraphBatch, memory: Memory, first: bool = True) -> int:
        """`activations` of a batch of any device, at its full size."""
        return self._peak_of(batch.to("meta"), memory, first)

    def operations(self, load: Load, recompute: str) -> int:
        """Floating-point operations of the matrix products of a step, as torch's FlopCounterMode
        counts them."""
        self.model.set_memory(0, recompute, max(load.edges, 1))
        with FlopCounterMode(display=False) as counter:
            self._step(self.batch(load))
        self.model.zero_grad()
        return counter.get_total_flops()

    def optimizer_step(self, training: TrainingConfig) -> int:
        """Peak bytes of Muon's step beside weights, gradients and momenta; AdamW's needs none worth
        counting."""
        if training.optimizer == "adamw":
            return 0
        hidden = [
            flat_shards.from_replicated(parameter) for parameter in self.model.hidden_matrices()
        ]
        for shard in hidden:
            shard.local.grad = torch.zeros_like(shard.local)
        muon = optimizers.StackedMuon(hidden, getattr(torch, training.muon_dtype), lr=1.0)
        muon.step()
        with Ledger() as ledger:
            muon.step()
        return ledger.peak

    def _rehearse(self, load: Load, memory: Memory, first: bool) -> int:
        return self._peak_of(self.batch(load), memory, first)

    def _peak_of(self, batch: GraphBatch, memory: Memory, first: bool) -> int:
        self.model.set_memory(*memory)
        for parameter in self.model.parameters():
            parameter.grad = None if first else torch.zeros_like(parameter)
        there = [p.grad for p in self.model.parameters() if p.grad is not None]
        labels = [value for value in vars(batch).values() if isinstance(value, Tensor)]
        with Ledger(
            [
                *self.model.state_dict(keep_vars=True).values(),
                *self.model.buffers(),
                *there,
                *labels,
            ]
        ) as ledger:
            self._step(batch)
        self.model.zero_grad()
        return ledger.peak

    def _step(self, batch: GraphBatch) -> None:
        self._objective(self.model, batch).total.backward()


def parameter_bytes(modules: Iterable[nn.Module], itemsize: int = 0) -> int:
    """Bytes of the parameters of modules; itemsize: bytes of one number, 0: as they are."""
    return sum(
        p.numel() * (itemsize or p.element_size())
        for module in modules
        for p in module.parameters()
    )


def label_bytes(batch: GraphBatch) -> int:
    """Bytes of the targets of a batch."""
    return sum(
        target.nbytes
        for target in (batch.onsite_target, batch.offsite_target)
        if target is not None
    )


def representative(load: Load, shares: Mapping[int, float], config: ModelConfig) -> GraphBatch:
    """One molecule on the meta device, with so many atoms, edges and pairs; elements by their
    shares, pairs by chance.

    Args:
        shares: atomic number -> share of the atoms.
    """
    weights = [
        (a, b, shares[a] * shares[b] * (1 if a == b else 2))
        for a in shares
        for b in shares
        if a <= b
    ]
    atoms = _runs([(z, 0) for z in shares], _apportioned(load.atoms, list(shares.values())))
    pairs = _runs(
        [pair[:2] for pair in weights], _apportioned(load.pairs, [pair[2] for pair in weights])
    )
    onsite = sum(
        s.count * layout.onsite_layout(config.basis, s.first, config.parity).size for s in atoms
    )
    offsite = sum(
        s.count * layout.offsite_layout(config.basis, s.first, s.second).size for s in pairs
    )

    def numbers(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    dtype = getattr(torch, config.dtype)
    read: dict[str, Any] = {
        f"{part}_{name}": numbers(size, dtype=dtype)
        for name in config.conditions
        for part, size in (("onsite", onsite), ("offsite", offsite))
    }
    return GraphBatch(
        keys=("representative",),
        atomic_numbers=numbers(load.atoms), positions=numbers(load.atoms, 3, dtype=torch.float64), molecule=numbers(load.atoms),
        charge=numbers(1), spin_multiplicity=numbers(1),
        edge_index=numbers(2, load.edges), pair_index=numbers(2, load.pairs), pair_segments=pairs,
        atom_order=numbers(load.atoms), atom_segments=atoms,
        onsite_target=numbers(onsite, dtype=torch.float64), offsite_target=numbers(offsite, dtype=dtype),
        matrix_elements=numbers(1), **read,
    )  # fmt: skip


def _shares(composition: Mapping[str, int]) -> dict[int, float]:
    """Shares of the most common elements, by ascending atomic number."""
    common = sorted(composition, key=lambda symbol: -composition[symbol])[:COMMON]
    total = sum(composition[symbol] for symbol in common)
    return {
        number: composition[elements.symbol(number)] / total
        for number in sorted(map(elements.atomic_number, common))
    }


def _apportioned(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `total`, in proportion to the weights."""
    bounds = np.rint(np.cumsum([0.0, *weights]) / sum(weights) * total).astype(np.int64)
    return np.diff(bounds).tolist()


def _runs(kinds: Sequence[tuple[int, int]], counts: Sequence[int]) -> tuple[Segment, ...]:
    starts = np.cumsum([0, *counts])
    return tuple(
        Segment(*kind, int(a), int(b))
        for kind, a, b in zip(kinds, starts, starts[1:], strict=False)
        if b > a
    )
