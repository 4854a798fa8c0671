"""Exponential moving average (EMA) of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from helm_scale.parallel import flat_shards
from helm_scale.parallel.engine import Engine


class WeightAverage:
    """Exponential moving average of trainable weights, in the shards that the engine holds.

    Args:
        engine: holds the weights.
        decay: weight of the past per step.
    """

    def __init__(self, engine: Engine, decay: float) -> None:
        self._engine, self._decay = engine, decay
        self.shards = {
            name: shard.like(shard.local.detach().clone()) for name, shard in engine.trained.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the present weights."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - self._decay)

    def not_finite(self) -> list[str]:
        """Names of this rank's averages that are not finite."""
        return [f"average of {name}" for name in flat_shards.not_finite(self.shards)]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; all ranks enter and leave together."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # In place: shards share memory with the weights that run, and no third copy stays.
        for average, weight in zip(self._averages, self._weights, strict=True):
            before = average.clone()
            average.copy_(weight)
            weight.copy_(before)
        self._engine.sync_parameters()

    @property
    def _averages(self) -> list[Tensor]:
        return [shard.local for shard in self.shards.values()]

    @property
    def _weights(self) -> list[Tensor]:
        return [shard.local.detach() for shard in self._engine.trained.values()]
