"""Defines what an engine needs of a loss: sums and counts of a micro-batch, and L(sum, count).

Protocols, because losses live on the same floor and know nothing of ranks.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from helm_scale.types import GraphBatch


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
