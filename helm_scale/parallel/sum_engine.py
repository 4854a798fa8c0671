"""The engine: micro-batches, global sums, one scale, clip, step; the same under every wrapper.

For a loss L(S, N) of a global sum S and count N the gradient is dL/dS times that of S. The backward
passes gather the gradient of S over micro-batches and ranks; S and N are summed once; then one
factor is applied, then clipping, then the step. So neither micro-batches nor ranks change the
numbers.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from helm_scale.parallel import collectives, flat_shards, snapshot
from helm_scale.parallel.engine import BatchMemoryError, Objective, StepResult
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.mesh import Processes
from helm_scale.parallel.step_sums import StepSums
from helm_scale.parallel.wrapping import Wrapped
from helm_scale.types import Batch, GraphBatch, couple_labels

_log = logging.getLogger(__name__)
_SAME = 1e-4  # relative; sums of one batch differ by this much at most where the hardware is sound


class SumEngine:
    """See engine.Engine."""

    def __init__(
        self,
        wrapped: Wrapped,
        trained: Mapping[str, FlatShard],
        objective: Objective,
        optimizers: Sequence[Optimizer],
        processes: Processes,
        clip_norm: float,
    ) -> None:
        self.rank, self.world_size, self._device = (
            processes.rank,
            processes.world_size,
            processes.device,
        )
        self._wrapped, self._objective, self._optimizers, self.trained = (
            wrapped,
            objective,
            list(optimizers),
            dict(trained),
        )
        self._clip_norm, self._pair_world_size = clip_norm, processes.pair_world_size
        self._peak_rates = [
            [group["lr"] for group in optimizer.param_groups] for optimizer in self._optimizers
        ]

    def warm_up(self, empty: GraphBatch) -> None:
        """Run one backward pass that changes nothing, so that the first step runs like all others.

        DDP rearranges its buckets after the first backward pass of every start. From four ranks on
        that changes the order of sums, and a resumed run would differ from an uninterrupted one in
        the last bit.
        """
        self._accumulate([empty])
        self._wrapped.update(lambda: None)

    def step(
        self,
        micro_batches: Sequence[Batch],
        rate: float,
        is_spike: Callable[[float], bool] = lambda loss: False,
        on_doubt: Callable[[], None] = lambda: None,
    ) -> StepResult:
        """See engine.Engine."""
        started = time.perf_counter()
        sums = self._accumulate(micro_batches)
        seconds = time.perf_counter() - started
        total, count, molecules, pairs, metrics = sums.over_ranks()
        loss, slope = self._loss_and_slope(total, count)
        first: float | None = None
        unsteady: tuple[int, ...] = ()
        if collectives.on_any_rank(not math.isfinite(loss) or is_spike(loss)):
            first, before = loss, sums.own
            self._wrapped.update(lambda: None)
            on_doubt()
            sums = self._accumulate(micro_batches)
            total, count, molecules, pairs, metrics = sums.over_ranks()
            loss, slope = self._loss_and_slope(total, count)
            unsteady = tuple(
                rank
                for rank, differs in enumerate(collectives.gather(_differ(before, sums.own)))
                if differs
            )
        norms = self._update(slope, rate, math.isfinite(loss))
        grad_norm, stepped = (
            norms[0] if norms else math.nan,
            bool(norms) and math.isfinite(norms[0]) and math.isfinite(loss),
        )
        suspects = (
            ()
            if stepped
            else tuple(key for keys in collectives.gather(sums.suspects) for key in keys)
        )
        return StepResult(
            loss, grad_norm, metrics, molecules, pairs, suspects, stepped, first, unsteady, seconds
        )

    def _accumulate(self, micro_batches: Sequence[Batch]) -> StepSums:
        """Forward and backward through this rank's micro-batches."""
        self._wrapped.module.train()
        sums = StepSums(self._device)
        for number, batch in enumerate(micro_batches, start=1):
            with (
                self._wrapped.micro_step(last=number == len(micro_batches)),
                _names_what_does_not_fit(batch),
            ):
                placed = self._placed(batch)
                loss = self._objective(self._wrapped.module, placed)
                self._wrapped.backward(loss.total)
            sums.add(loss, placed)
        return sums

    def _placed(self, batch: Batch) -> GraphBatch:
        """The batch on this rank's device, marked as held by as many ranks as share it."""
        return replace(couple_labels(batch, self._device), pair_world_size=self._pair_world_size)

    def _update(self, slope: float, rate: float, finite: bool) -> list[float]:
        """Scale, clip and step, unless loss or gradient are not finite on any rank; [gradient
        norm], empty if DeepSpeed saw infinities."""
        norms: list[float] = []

        def apply() -> None:
            held = [shard for shard in self.trained.values() if shard.local.grad is not None]
            gradients = [shard.local.grad for shard in held if shard.local.grad is not None]
            norms.append(abs(slope) * float(flat_shards.norm(held, gradients)))
            if collectives.on_any_rank(not (finite and math.isfinite(norms[0]))):
                return
            clipped = self._clip_norm / norms[0] if 0 < self._clip_norm < norms[0] else 1.0
            torch._foreach_mul_(gradients, slope * clipped)
            for optimizer, peaks in zip(self._optimizers, self._peak_rates, strict=True):
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = peak * rate
                optimizer.step()

        self._wrapped.update(apply)
        return norms

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """See engine.Engine."""
        self._wrapped.module.eval()
        sums = StepSums(self._device)
        for batch in batches:
            placed = self._placed(batch)
            sums.add(self._objective(self._wrapped.module, placed), placed)
        self._wrapped.reshard()
        total, count, _, _, metrics = sums.over_ranks()
        return {"loss": float(self._objective.loss(total, count)), **metrics}

    def sync_parameters(self) -> None:
        """See engine.Engine."""
        self._wrapped.sync_parameters()

    @torch.no_grad()
    def full_state(self) -> dict[str, Tensor]:
        """See engine.Engine."""
        state = {}
        for name, shard in self._wrapped.shards.items():
            tensor = flat_shards.full_tensor(shard)
            if self.rank == 0:
                state[name] = tensor.cpu()
        return state

    def divergent_ranks(self) -> list[int]:
        """See engine.Engine."""
        found = collectives.gather((self._wrapped.shard_rank, _digest(self._wrapped.working())))
        odd = []
        for shard_rank in {own for own, _ in found}:
            votes = Counter(digest for own, digest in found if own == shard_rank)
            (most, count), *rest = votes.most_common()
            tied = bool(rest) and rest[0][1] == count
            odd += [
                rank
                for rank, (own, digest) in enumerate(found)
                if own == shard_rank and (tied or digest != most)
            ]
        return sorted(odd)

    def capture(self, with_weights: bool) -> snapshot.Snapshot:
        """See engine.Engine."""
        state = (
            {f"weights/{name}": shard for name, shard in self._wrapped.shards.items()}
            if with_weights
            else {}
        )
        for optimizer in self._optimizers:
            for name, shard in self._of(optimizer).items():
                for key, value in optimizer.state.get(shard.local, {}).items():
                    place = self._once(value) if value.ndim == 0 else shard.like(value)
                    state[f"{_kind(optimizer)}/{key}/{name}"] = place
        for name, random in _random_states().items():
            state[f"random/{name}/rank{self.rank}"] = flat_shards.from_replicated(random)
        return snapshot.capture(state, self.rank, self.world_size)

    def load(self, folder: Path, averages: Mapping[str, FlatShard]) -> None:
        """See engine.Engine."""
        stored = snapshot.StateReader(
            folder / "state", folder / "model.safetensors", _what_is_whole
        )
        for name, shard in self._wrapped.shards.items():
            stored.fill(f"weights/{name}", shard)
        self._wrapped.sync_parameters()
        averaged = any(name.startswith("average/") for name in stored.shapes)
        for name, shard in averages.items():
            stored.fill(f"average/{name}" if averaged else f"weights/{name}", shard)
        if averages and not averaged:
            _log.warning("%s: has no averaged weights; the average starts from the weights", folder)
        for optimizer in self._optimizers:
            self._load_optimizer(optimizer, stored)
        for name, random in _random_states().items():
            if (
                f"random/{name}/rank{self.rank}" in stored.shapes
            ):  # a rank that did not exist at saving keeps its own
                stored.fill(f"random/{name}/rank{self.rank}", flat_shards.from_replicated(random))
                (torch.set_rng_state if name == "cpu" else torch.cuda.set_rng_state)(random)

    def _load_optimizer(self, optimizer: Optimizer, stored: snapshot.StateReader) -> None:
        """Fill an optimiser's states; its options (rates, decay) stay as built."""
        held, kind = self._of(optimizer), _kind(optimizer)
        found = [name.split("/", 2)[1:] for name in stored.shapes if name.startswith(f"{kind}/")]
        for key, name in found:
            if name not in held:
                continue
            shard = held[name]
            value = (
                shard.local.new_zeros(())
                if stored.shapes[f"{kind}/{key}/{name}"] == ()
                else torch.zeros_like(shard.local)
            )
            value = value.detach()
            stored.fill(
                f"{kind}/{key}/{name}",
                flat_shards.from_replicated(value) if value.ndim == 0 else shard.like(value),
            )
            optimizer.state[shard.local][key] = value
        if not found:
            _log.warning("the checkpoint has no states of %s, which starts afresh", kind)

    def _of(self, optimizer: Optimizer) -> dict[str, FlatShard]:
        """The shards that an optimiser steps on."""
        own = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
        return {name: shard for name, shard in self.trained.items() if id(shard.local) in own}

    def _once(self, value: Tensor) -> FlatShard:
        """A number that all ranks have; one writes it."""
        return flat_shards.from_replicated(value, self.rank, self.world_size)

    def _loss_and_slope(self, total: Tensor, count: Tensor) -> tuple[float, float]:
        """L(S, N) and dL/dS."""
        total = total.detach().requires_grad_()
        loss = self._objective.loss(total, count)
        (slope,) = torch.autograd.grad(loss, total)
        return float(loss.detach()), float(slope)


@contextmanager
def _names_what_does_not_fit(batch: Batch) -> Iterator[None]:
    """Turn an allocator's error into one that holds the batch."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        of_memory = isinstance(
            error, torch.OutOfMemoryError | MemoryError
        ) or "can't allocate memory" in str(error)
        if not of_memory:
            raise
        raise BatchMemoryError(batch, str(error).strip().split("\n")[0]) from error


def _what_is_whole(stored: snapshot.StateReader) -> str:
    """What model.safetensors holds: the average where the weights are in the shards."""
    return "average/" if any(name.startswith("weights/") for name in stored.shapes) else "weights/"


def _kind(optimizer: Optimizer) -> str:
    return type(optimizer).__name__.lower()


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def _differ(a: float, b: float) -> bool:
    """Whether two sums of one batch cannot both be right; two infinities can."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.isfinite(a) != math.isfinite(b)
    return abs(a - b) > _SAME * max(abs(a), abs(b))


def _digest(tensors: Sequence[Tensor]) -> int:
    """A number that changes with any single bit: position-weighted sum of the words, modulo
    2^64."""
    sums = []
    for tensor in tensors:
        words = (
            tensor.detach()
            .contiguous()
            .view(-1)
            .view(torch.uint8 if tensor.element_size() % 4 else torch.int32)
            .to(torch.int64)
        )
        sums.append((words * (2 * torch.arange(len(words), device=words.device) + 1)).sum())
    number = 0
    for value in torch.stack(sums).tolist():
        number = (number * 1000003 + value) % 2**64
    return number
