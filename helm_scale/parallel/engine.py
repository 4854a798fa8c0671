"""The engine contract: all that training may know of ranks, wrappers and devices.

`engines.start` names the engines. Whatever keeps this contract, DeepSpeed included, is an engine;
the parity tests hold each to the same losses.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.snapshot import Snapshot
from helm_scale.types import Batch, GraphBatch


class Sums(Protocol):
    """What an objective returns for one micro-batch: sums and counts, never means."""

    @property
    def total(self) -> Tensor:
        """Scalar sum that carries the gradient."""

    @property
    def count(self) -> Tensor:
        """Number of terms in the sum, float64 scalar."""

    @property
    def metrics(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Name -> (sum, count), the same names on every rank."""


class Objective(Protocol):
    """Sums of a model on a batch, and the loss as a function of global sums."""

    def __call__(self, model: nn.Module, batch: GraphBatch) -> Sums:
        """Run the model."""

    @staticmethod
    def loss(total: Tensor, count: Tensor) -> Tensor:
        """Loss from the global sum and count."""


@dataclass(frozen=True)
class StepResult:
    """What one global step did; the same on every rank but for `seconds`.

    Attributes:
        loss: of the weights before the step. grad_norm: of the loss, before clipping. metrics:
            global means.
        molecules, pairs: seen by all ranks.
        suspects: keys of the micro-batches whose sum was not finite, if any.
        stepped: false if loss or gradient was not finite; the weights are then as before, on every
            rank.
        first_loss: what a loss was that was not finite or a spike; `loss` is then that of a second
            pass over the batch.
        seconds: of this rank's own passes. unsteady: ranks whose sums differ between the two
            passes: their hardware is not to be trusted.
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


class Engine(Protocol):
    """Weights and optimisers on one or many ranks. Every method is called by all ranks together.

    Attributes:
        trained: this rank's shards of the trained parameters, by name.
    """

    rank: int
    world_size: int
    trained: dict[str, FlatShard]

    def step(
        self,
        micro_batches: Sequence[Batch],
        rate: float,
        is_spike: Callable[[float], bool] = ...,
        on_doubt: Callable[[], None] = ...,
    ) -> StepResult:
        """One optimiser step on the global sums; equally many micro-batches on every rank, empty
        ones included.

        Args:
            rate: factor of every learning rate, from the schedule.
            is_spike: whether a loss is out of line; such a batch, and one whose loss is not finite,
                is computed twice.
            on_doubt: called by all ranks before the second computation.
        Raises:
            BatchMemoryError: a micro-batch of this rank does not fit; the others wait for it.
        """

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Loss and metrics over the batches of all ranks, without gradients; equally many on every
        rank."""

    def sync_parameters(self) -> None:
        """Make what was written into `trained` the weights that run."""

    def full_state(self) -> dict[str, Tensor]:
        """Whole parameters and buffers on the CPU of rank 0; empty elsewhere."""

    def divergent_ranks(self) -> list[int]:
        """Ranks whose weights are not those of their replicas, by majority; all of them where there
        is none."""

    def capture(self, with_weights: bool) -> Snapshot:
        """Copy optimiser states, random states and, unless the whole weights are saved anyway,
        weights to the CPU."""

    def load(self, folder: Path, averages: Mapping[str, FlatShard]) -> None:
        """Read a checkpoint that any engine wrote on any number of ranks; the averages are filled
        in place.

        Args:
            folder: holds state/ (snapshots) and model.safetensors: the averages if state/ has the
                weights, else the weights.
        Raises:
            ValueError: a file or a tensor is missing or does not fit.
        """
