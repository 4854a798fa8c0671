"""Wrappers put on from outside: none, DDP, FSDP2; each sums gradients over ranks and never averages
them.

A new one keeps the protocol Wrapped and takes one line in engines.py; DeepSpeed's is in zero.py.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from helm_scale.config import ExecutionConfig
from helm_scale.parallel import flat_shards
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.mesh import Processes


class Shardable(Protocol):
    """A model that says where to cut it."""

    def sharding_units(self) -> list[nn.Module]:
        """Submodules to shard one by one before the root; each runs once in every forward."""


class Wrapped(Protocol):
    """A model ready to run.

    Attributes:
        module: what objectives call. shards: what this rank holds of every parameter and buffer;
            those that require a gradient are trained. shard_rank: ranks with the same number hold equal
            weights.
    """

    @property
    def module(self) -> nn.Module: ...

    @property
    def shards(self) -> Mapping[str, FlatShard]: ...

    @property
    def shard_rank(self) -> int: ...

    def micro_step(self, last: bool) -> AbstractContextManager[None]:
        """Around one forward and backward pass; gradients need to travel in the last one only."""

    def backward(self, total: Tensor) -> None:
        """Add the gradient of this rank's sum."""

    def update(self, apply: Callable[[], None]) -> None:
        """Run `apply` with the sum of the gradients over all ranks in shards, make what it changed
        the weights, forget gradients."""

    def sync_parameters(self) -> None:
        """Make changed shards the weights that run."""

    def working(self) -> list[Tensor]:
        """The weights that run, as this rank holds them; equal on all ranks of one shard number."""

    def reshard(self) -> None:
        """Put away weights that an evaluation has gathered."""


@dataclass(frozen=True)
class TorchWrapped:
    """None, DDP or FSDP2: shards are the weights themselves."""

    module: nn.Module
    model: nn.Module
    shards: Mapping[str, FlatShard]
    shard_rank: int = 0
    accumulate: Callable[[], AbstractContextManager[None]] = nullcontext
    reshard: Callable[[], None] = lambda: None

    def micro_step(self, last: bool) -> AbstractContextManager[None]:
        """See Wrapped."""
        return nullcontext() if last else self.accumulate()

    def backward(self, total: Tensor) -> None:
        """See Wrapped."""
        total.backward()

    def update(self, apply: Callable[[], None]) -> None:
        """See Wrapped."""
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                gradient = (
                    parameter.grad.to_local()
                    if isinstance(parameter.grad, DTensor)
                    else parameter.grad
                )
                self.shards[name].local.grad = gradient.reshape(-1)
                parameter.grad = None
        apply()
        for shard in self.shards.values():
            shard.local.grad = None

    def sync_parameters(self) -> None:
        """See Wrapped."""

    def working(self) -> list[Tensor]:
        """See Wrapped."""
        return [shard.local for shard in self.shards.values()]


def alone(model: nn.Module, processes: Processes, execution: ExecutionConfig, low: bool) -> Wrapped:
    """One process, no wrapper."""
    return TorchWrapped(model, model, shards_of(model, 0, 1))


def replicated(
    model: nn.Module, processes: Processes, execution: ExecutionConfig, low: bool
) -> Wrapped:
    """DDP: whole weights on every rank, gradients summed in buckets behind the last backward."""
    module = DistributedDataParallel(
        model, forward_sync_buffers=False, gradient_as_bucket_view=True
    )
    module.register_comm_hook(None, _sum_bucket)
    return TorchWrapped(
        module,
        model,
        shards_of(model, processes.rank, processes.world_size),
        accumulate=module.no_sync,
    )


def sharded(
    model: nn.Module, processes: Processes, execution: ExecutionConfig, low: bool
) -> Wrapped:
    """FSDP2: weights, gradients and optimiser states cut over the ranks; each unit is gathered
    while it runs.

    With execution.replicas > 1 (HSDP) so many groups of ranks hold the model once each. Gradients
    travel after every micro-step: holding them whole would cost the memory that sharding saves.
    """
    shards = processes.world_size // execution.replicas
    shape, names = (
        ((execution.replicas, shards), ("replicate", "shard"))
        if execution.replicas > 1
        else ((shards,), ("shard",))
    )
    mesh = init_device_mesh(processes.device.type, shape, mesh_dim_names=names)
    offload = (
        CPUOffloadPolicy(pin_memory=processes.device.type == "cuda")
        if execution.cpu_offload
        else OffloadPolicy()
    )
    low_types = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32} if low else {}
    precision = MixedPrecisionPolicy(
        **low_types, cast_forward_inputs=False
    )  # positions stay as they are
    for unit in [*cast(Shardable, model).sharding_units(), model]:
        fully_shard(unit, mesh=mesh, offload_policy=offload, mp_policy=precision)
        wrapped = cast(FSDPModule, unit)
        wrapped.set_gradient_divide_factor(1.0)
        wrapped.set_force_sum_reduction_for_comms(True)  # gloo has no premultiplied sum
    held = shards_of(model, processes.rank, processes.world_size)
    return TorchWrapped(
        model, model, held, mesh.get_local_rank("shard"), reshard=cast(FSDPModule, model).reshard
    )


def shards_of(model: nn.Module, replica: int, replicas: int) -> dict[str, FlatShard]:
    """Pieces of parameters and persistent buffers; what is not sharded lies on all ranks."""
    tensors = model.state_dict(keep_vars=True).items()
    return {
        name: flat_shards.from_dtensor(t)
        if isinstance(t, DTensor)
        else flat_shards.from_replicated(t, replica, replicas)
        for name, t in tensors
    }


def _sum_bucket(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return cast("torch.futures.Future[Tensor]", future.then(lambda done: done.value()[0]))
