"""Wrappers put on from outside: none, DDP, FSDP2; each sums gradients over ranks and never averages them.

A new one is a function like these and one line in engines.py.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from helm_scale.parallel.mesh import Processes


class Shardable(Protocol):
    """A model that says where to cut it."""

    def sharding_units(self) -> list[nn.Module]:
        """Submodules to shard one by one before the root; each runs once in every forward."""


@dataclass(frozen=True)
class Wrapped:
    """A model ready to run.

    Attributes:
        module: what objectives call.
        accumulate: context of every micro-step but the last, in which gradients need not travel.
        reshard: puts away weights that an evaluation has gathered.
    """

    module: nn.Module
    accumulate: Callable[[], AbstractContextManager[None]] = nullcontext
    reshard: Callable[[], None] = lambda: None


def alone(model: nn.Module, processes: Processes) -> Wrapped:
    """One process, no wrapper."""
    return Wrapped(model)


def replicated(model: nn.Module, processes: Processes) -> Wrapped:
    """DDP: whole weights on every rank, gradients summed in buckets behind the last backward."""
    module = DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)
    module.register_comm_hook(None, _sum_bucket)
    return Wrapped(module, module.no_sync)


def sharded(model: nn.Module, processes: Processes) -> Wrapped:
    """FSDP2: weights, gradients and optimiser states cut over the ranks; each unit is gathered while it runs.

    Gradients travel after every micro-step: holding them whole would cost the memory that sharding saves.
    """
    mesh = init_device_mesh(processes.device.type, (processes.world_size,), mesh_dim_names=("shard",))
    units = [*cast(Shardable, model).sharding_units(), model]
    for unit in units:
        fully_shard(unit, mesh=mesh)
        wrapped = cast(FSDPModule, unit)
        wrapped.set_gradient_divide_factor(1.0)
        wrapped.set_force_sum_reduction_for_comms(True)  # gloo has no premultiplied sum
    return Wrapped(model, reshard=cast(FSDPModule, model).reshard)


def _sum_bucket(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return cast("torch.futures.Future[Tensor]", future.then(lambda done: done.value()[0]))
