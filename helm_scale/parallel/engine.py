"""The engine contract: all that training may know of ranks, wrappers and devices.

`engines.start` names the engines. Whatever keeps this contract, DeepSpeed included, is an engine; the parity tests hold
each to the same losses.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from helm_scale.batch import GraphBatch


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
    """What one global step did; the same on every rank.

    Attributes:
        loss: of the weights before the step. grad_norm: of the loss, before clipping. metrics: global means.
        molecules, pairs: seen by all ranks.
        suspects: keys of the micro-batches whose sum was not finite, if any.
        stepped: false if loss or gradient was not finite; the weights are then as before, on every rank.
    """

    loss: float
    grad_norm: float
    metrics: dict[str, float]
    molecules: int
    pairs: int
    suspects: tuple[str, ...] = ()
    stepped: bool = True


class Engine(Protocol):
    """Weights and optimisers on one or many ranks. Every method is called by all ranks together."""

    rank: int
    world_size: int

    def step(self, micro_batches: Sequence[GraphBatch], rate: float) -> StepResult:
        """One optimiser step on the global sums; equally many micro-batches on every rank, empty ones included.

        Args:
            rate: factor of every learning rate, from the schedule.
        """

    def evaluate(self, batches: Iterable[GraphBatch]) -> dict[str, float]:
        """Loss and metrics over the batches of all ranks, without gradients; equally many on every rank."""

    def parameters(self) -> dict[str, Tensor]:
        """Trainable parameters by name, as this engine holds them (maybe sharded)."""

    def full_state(self) -> dict[str, Tensor]:
        """Whole parameters and buffers on the CPU of rank 0; empty elsewhere."""

    def save(self, folder: Path, extra: Mapping[str, Tensor]) -> None:
        """Write weights, optimiser states, random states and extra tensors, sharded as they are."""

    def load(self, folder: Path, extra: Mapping[str, Tensor]) -> None:
        """Read what `save` wrote, on any number of ranks; extra tensors are filled in place."""
