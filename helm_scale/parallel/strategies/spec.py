"""What an engine is: how it wraps a model, what it can do, and what states it keeps."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from helm_scale.config import ExecutionConfig
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.processes import Processes


class Shardable(Protocol):
    """A model that says where to cut it."""

    def sharding_units(self) -> list[nn.Module]:
        """Submodules to shard one by one before the root; each runs once in every forward."""


class ParallelModel(Protocol):
    """A wrapped model; it sums gradients over ranks and never averages them.

    Attributes:
        module: what objectives call.
        shards: what this rank holds of every parameter and buffer; those that require a gradient
            are trained.
        shard_rank: ranks with the same number hold equal weights.
    """

    @property
    def module(self) -> nn.Module: ...

    @property
    def shards(self) -> Mapping[str, FlatShard]: ...

    @property
    def shard_rank(self) -> int: ...

    def micro_step(self, last: bool) -> AbstractContextManager[None]:
        """Enclose one forward and backward pass; gradients need to travel in the last one only."""

    def backward(self, total: Tensor) -> None:
        """Add the gradient of this rank's sum."""

    def update(self, apply: Callable[[], None]) -> None:
        """Run `apply` with each shard's gradient summed over all ranks, then forget gradients.

        What `apply` changed becomes the weights that run.
        """

    def sync_parameters(self) -> None:
        """Make changed shards the weights that run."""

    def running_weights(self) -> list[Tensor]:
        """The weights that run, as this rank holds them; equal on ranks of one shard_rank."""

    def reshard(self) -> None:
        """Free weights that an evaluation has gathered."""


Wrap = Callable[[nn.Module, Processes, ExecutionConfig, bool], ParallelModel]


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """An engine. Whoever needs to know what an engine does asks these fields, never its name.

    Attributes:
        wrap: puts a model under it: (model, processes, execution, whether passes run in bfloat16).
        distributed: runs on several ranks, in a process group.
        shards_optimizer, shards_gradients, shards_weights: each rank keeps a part only.
        replicates: groups of ranks may hold the sharded model once each (HSDP).
        offloads: states that execution.cpu_offload moves to the memory of the CPU, by the names of
            the memory plan.
        low_precision: passes can run in bfloat16 beside float32 weights that are trained.
        compiles: torch.compile works under it.
        float32_copy: keeps a float32 copy, and its gradient, beside the weights that run.
        gathered_units: sharding units whose weights or gradients are whole at the same time.
    """

    wrap: Wrap
    distributed: bool = True
    shards_optimizer: bool = False
    shards_gradients: bool = False
    shards_weights: bool = False
    replicates: bool = False
    offloads: tuple[str, ...] = ()
    low_precision: bool = False
    compiles: bool = True
    float32_copy: bool = False
    gathered_units: int = 0
