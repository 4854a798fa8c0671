"""Takes optimiser steps on global sums of micro-batches, the same under every wrapper.

For a loss L(S, N) of a global sum S and count N the gradient is dL/dS times that of S. The backward
passes gather the gradient of S over micro-batches and ranks; S and N are summed once; then one
factor is applied, then clipping, then the step. So neither micro-batches nor ranks change the
numbers, and the parity tests hold every engine to the same losses.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from helm_scale.parallel import collectives, divergence, flat_shards
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.objective import Objective
from helm_scale.parallel.processes import Processes
from helm_scale.parallel.reports import Reports
from helm_scale.parallel.snapshot import Snapshot
from helm_scale.parallel.step_sums import GlobalSums, StepSums
from helm_scale.parallel.strategies.spec import ParallelModel
from helm_scale.parallel.training_state import TrainingState
from helm_scale.types import Batch, GraphBatch, couple_labels

# Relative. Sound hardware sums the same batch twice to within float32 sums in another order.
_REPEAT_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one global step did; the same on every rank but for `seconds`.

    Attributes:
        loss: of the weights before the step.
        grad_norm: of the loss, before clipping.
        metrics: global means.
        molecules, pairs: seen by all ranks.
        suspects: keys of the micro-batches whose sum was not finite, if any.
        stepped: false if loss or gradient was not finite; the weights are then as before, on every
            rank.
        first_loss: what a loss was that was not finite or a spike; `loss` is then that of a second
            pass over the batch.
        unsteady: ranks whose sums differ between the two passes: their hardware is not to be
            trusted.
        seconds: of this rank's own passes.
    """

    loss: float
    grad_norm: float
    metrics: dict[str, float]
    molecules: int
    pairs: int
    suspects: tuple[str, ...] = ()
    stepped: bool = True
    first_loss: float | None = None
    unsteady: tuple[int, ...] = ()
    seconds: float = 0.0


class BatchMemoryError(MemoryError):
    """A micro-batch did not fit.

    Attributes:
        batch: the micro-batch.
    """

    def __init__(self, batch: Batch, reason: str) -> None:
        super().__init__(reason)
        self.batch = batch


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """Forward and backward through a whole global batch: L(S, N), dL/dS, and this rank's time."""

    local: StepSums
    sums: GlobalSums
    loss: float
    slope: float
    seconds: float


class Engine:
    """Holds weights and optimisers on one or many ranks; all ranks call every method together.

    Args:
        make_optimizers: makes the optimisers of the trained shards; the "lr" of a group is its peak
            rate.
        clip_norm: largest gradient norm, 0 for none.

    Attributes:
        trained: this rank's shards of the trained parameters, by name.
    """

    def __init__(
        self,
        model: ParallelModel,
        processes: Processes,
        *,
        objective: Objective,
        make_optimizers: Callable[[Mapping[str, FlatShard]], Sequence[Optimizer]],
        clip_norm: float,
    ) -> None:
        self.rank, self.world_size = processes.rank, processes.world_size
        self.trained = {name: s for name, s in model.shards.items() if s.local.requires_grad}
        self._model, self._processes = model, processes
        self._objective, self._clip_norm = objective, clip_norm
        # After the wrapping: optimisers step on shards, not on the parameters of the model.
        self._optimizers = list(make_optimizers(self.trained))
        # Steps overwrite the rates of the groups.
        self._peak_rates = [[g["lr"] for g in o.param_groups] for o in self._optimizers]
        self._state = TrainingState(
            model, processes, trained=self.trained, optimizers=self._optimizers
        )

    def warm_up(self, empty: GraphBatch) -> None:
        """Run one backward pass that changes nothing, so that the first step runs like all others.

        DDP rearranges its buckets after the first backward pass of every start. From four ranks on
        that changes the order of sums, and a resumed run would differ from an uninterrupted one in
        the last bit.
        """
        self._accumulate([empty])
        self._forget_gradients()

    def step(
        self,
        micro_batches: Sequence[Batch],
        rate: float,
        is_spike: Callable[[float], bool] = lambda loss: False,
        on_doubt: Callable[[], None] = lambda: None,
    ) -> StepResult:
        """Take one optimiser step on the global sums.

        Args:
            micro_batches: equally many on every rank, empty ones included.
            rate: factor of every learning rate, from the schedule.
            is_spike: whether a loss is out of line; such a batch, and one whose loss is not finite,
                is computed twice.
            on_doubt: called by all ranks before the second computation.
        Raises:
            BatchMemoryError: a micro-batch of this rank does not fit; the others wait for it.
        """
        first = last = self._compute(micro_batches)
        doubted = collectives.on_any_rank(not math.isfinite(first.loss) or is_spike(first.loss))
        unsteady: tuple[int, ...] = ()
        if doubted:
            # The same again is in the data; what differs between the passes is the hardware.
            self._forget_gradients()
            on_doubt()
            last = self._compute(micro_batches)
            differ = collectives.gather(_disagree(first.local.local, last.local.local))
            unsteady = tuple(rank for rank, differs in enumerate(differ) if differs)
        grad_norm, stepped = self._update(last.slope, rate, finite=math.isfinite(last.loss))
        suspects = [] if stepped else collectives.gather(last.local.suspects)
        return StepResult(
            loss=last.loss,
            grad_norm=grad_norm,
            metrics=last.sums.metrics,
            molecules=last.sums.molecules,
            pairs=last.sums.pairs,
            suspects=tuple(key for keys in suspects for key in keys),
            stepped=stepped,
            first_loss=first.loss if doubted else None,
            unsteady=unsteady,
            seconds=first.seconds,
        )

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Loss and metrics over the batches of all ranks, without gradients.

        Args:
            batches: equally many on every rank.
        """
        self._model.module.eval()
        local = StepSums(self._processes.device)
        for batch in batches:
            placed = self._placed(batch)
            local.add(self._objective(self._model.module, placed), placed)
        self._model.reshard()  # without a backward pass FSDP2 and ZeRO-3 keep weights gathered
        sums = local.over_ranks()
        return {"loss": float(self._objective.loss(sums.total, sums.count)), **sums.metrics}

    def sync_parameters(self) -> None:
        """Make what was written into `trained` the weights that run."""
        self._model.sync_parameters()

    @torch.no_grad()
    def full_state(self) -> dict[str, Tensor]:
        """Whole parameters and buffers on the CPU of rank 0; empty elsewhere."""
        state = {}
        for name, shard in self._model.shards.items():
            tensor = flat_shards.full_tensor(shard)  # a collective: every rank reaches it
            if self.rank == 0:
                state[name] = tensor.cpu()
        return state

    def not_finite(self) -> list[str]:
        """Names of this rank's weights that hold a NaN or an infinity."""
        return flat_shards.not_finite(self._model.shards)

    def reports(self) -> Reports:
        """For threads that speak to those of other ranks."""
        return Reports(self._processes)

    def divergent_ranks(self) -> list[int]:
        """Ranks whose weights are not those of their replicas, by majority.

        All replicas where there is no majority.
        """
        return divergence.divergent_ranks(self._model.shard_rank, self._model.running_weights())

    def capture(self, with_weights: bool) -> Snapshot:
        """Copy optimiser states and random states to the CPU, and the weights if asked for."""
        return self._state.capture(with_weights)

    def load(self, folder: Path, averages: Mapping[str, FlatShard]) -> None:
        """Read a checkpoint that any engine wrote on any number of ranks.

        Args:
            folder: of the checkpoint.
            averages: filled in place.
        Raises:
            ValueError: a file or a tensor is missing or does not fit.
        """
        self._state.load(folder, averages)

    def _compute(self, micro_batches: Sequence[Batch]) -> _Pass:
        """Forward and backward pass through the global batch."""
        started = time.perf_counter()
        local = self._accumulate(micro_batches)
        seconds = time.perf_counter() - started
        sums = local.over_ranks()
        # L is a function of two numbers: its slope needs no graph through the network.
        total = sums.total.detach().requires_grad_()
        loss = self._objective.loss(total, sums.count)
        (slope,) = torch.autograd.grad(loss, total)
        return _Pass(
            local=local, sums=sums, loss=float(loss.detach()), slope=float(slope), seconds=seconds
        )

    def _accumulate(self, micro_batches: Sequence[Batch]) -> StepSums:
        """Forward and backward through this rank's micro-batches."""
        self._model.module.train()
        local = StepSums(self._processes.device)
        for number, batch in enumerate(micro_batches, start=1):
            last = number == len(micro_batches)
            with self._model.micro_step(last), _memory_errors_name(batch):
                placed = self._placed(batch)
                sums = self._objective(self._model.module, placed)
                # Also of an empty batch: every rank must take part in the collectives.
                self._model.backward(sums.total)
            local.add(sums, placed)
        return local

    def _placed(self, batch: Batch) -> GraphBatch:
        """The batch on this rank's device, marked as held by as many ranks as share it."""
        placed = couple_labels(batch, self._processes.device)
        return replace(placed, pair_world_size=self._processes.pair_world_size)

    def _forget_gradients(self) -> None:
        self._model.update(lambda: None)

    def _update(self, slope: float, rate: float, *, finite: bool) -> tuple[float, bool]:
        """Scale, clip and step, unless loss or gradient are not finite on any rank.

        Returns:
            gradient norm, before clipping, NaN if DeepSpeed saw infinities and never called back;
            whether the step was taken, on which all ranks agree.
        """
        grad_norm, stepped = math.nan, False

        def apply() -> None:
            nonlocal grad_norm, stepped
            shards = [shard for shard in self.trained.values() if shard.local.grad is not None]
            gradients = [shard.local.grad for shard in shards if shard.local.grad is not None]
            grad_norm = abs(slope) * float(flat_shards.norm(shards, gradients))
            # One vote: a rank that skipped a step alone would have other weights from then on.
            if collectives.on_any_rank(not (finite and math.isfinite(grad_norm))):
                grad_norm = math.nan  # of one rank alone, maybe
                return
            stepped = True
            clipped = self._clip_norm / grad_norm if 0 < self._clip_norm < grad_norm else 1.0
            # One factor for both, applied once: in float32 two would round twice.
            torch._foreach_mul_(gradients, slope * clipped)
            self._set_rates(rate)
            for optimizer in self._optimizers:
                optimizer.step()

        self._model.update(apply)
        return grad_norm, stepped

    def _set_rates(self, factor: float) -> None:
        for optimizer, peaks in zip(self._optimizers, self._peak_rates, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor


# Words of torch's allocator, and of the one of C++ for what is small.
NO_MEMORY_ON_CPU = ("can't allocate memory", "std::bad_alloc")
# What is left of the allocator's words where even they found no memory: 15 bytes that need none.
_CUT_SHORT = "[enforce fail a"


@contextmanager
def _memory_errors_name(batch: Batch) -> Iterator[None]:
    """Turn an allocator's error into one that holds the batch."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        by_type = isinstance(error, torch.OutOfMemoryError | MemoryError)
        said = NO_MEMORY_ON_CPU[0] if str(error) == _CUT_SHORT else str(error).strip()
        if not by_type and not any(words in said for words in NO_MEMORY_ON_CPU):
            raise
        raise BatchMemoryError(batch, said.split("\n")[0]) from error


def _disagree(first: float, second: float) -> bool:
    """Whether two sums of one batch cannot both be right; two infinities can."""
    if not (math.isfinite(first) and math.isfinite(second)):  # inf - inf below would be NaN
        return math.isfinite(first) != math.isfinite(second)
    return abs(first - second) > _REPEAT_TOLERANCE * max(abs(first), abs(second))
