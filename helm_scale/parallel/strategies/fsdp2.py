"""FSDP2 and HSDP: weights, gradients and optimiser states cut over the ranks.

Each unit is gathered while it runs. Gradients travel after every micro-step: holding them whole
would cost the memory that sharding saves.
"""

from typing import cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)

from helm_scale.config import ExecutionConfig
from helm_scale.parallel.processes import Processes
from helm_scale.parallel.strategies.spec import EngineSpec, ParallelModel, Shardable
from helm_scale.parallel.strategies.torch_model import TorchModel, shards_of


def wrap(
    model: nn.Module, processes: Processes, execution: ExecutionConfig, low_precision: bool
) -> ParallelModel:
    """Shard a model unit by unit, then the rest."""
    mesh, on_gpu = _device_mesh(processes, execution), processes.device.type == "cuda"
    offload = CPUOffloadPolicy(pin_memory=on_gpu) if execution.cpu_offload else OffloadPolicy()
    types = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32} if low_precision else {}
    # Inputs keep their type: positions in bfloat16 would move atoms by hundredths of an Angstrom.
    precision = MixedPrecisionPolicy(**types, cast_forward_inputs=False)
    for unit in [*cast(Shardable, model).sharding_units(), model]:
        fully_shard(unit, mesh=mesh, offload_policy=offload, mp_policy=precision)
        sharded = cast(FSDPModule, unit)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo has no premultiplied sum
    return TorchModel(
        module=model,
        model=model,
        shards=shards_of(model, processes.rank, processes.world_size),
        shard_rank=mesh.get_local_rank("shard"),
        reshard=cast(FSDPModule, model).reshard,
    )


def _device_mesh(processes: Processes, execution: ExecutionConfig) -> DeviceMesh:
    """Ranks in a row; execution.replicas > 1 (HSDP): so many rows, each with the whole model."""
    shape: tuple[int, ...] = (processes.world_size,)
    names: tuple[str, ...] = ("shard",)
    if execution.replicas > 1:
        shape = (execution.replicas, processes.world_size // execution.replicas)
        names = ("replicate", "shard")
    return init_device_mesh(processes.device.type, shape, mesh_dim_names=names)


ENGINE = EngineSpec(
    wrap=wrap,
    shards_optimizer=True,
    shards_gradients=True,
    shards_weights=True,
    replicates=True,
    offloads=("optimiser", "gradients", "weights"),
    low_precision=True,
    gathered_units=3,  # one runs, the next one arrives, the gradient of a third waits to be summed
)
