"""DeepSpeed ZeRO cuts, gathers and reduces; our own optimisers step on what it leaves a rank.

DeepSpeed is handed an optimiser whose step is ours, with all parameters in one group and as one
sub-group, so that the flat float32 partition of this rank and its gradient are complete when it is
called. Its loss scaling, clipping, checkpoints and JSON optimisers stay unused. Gradients arrive
averaged over ranks; the sum is restored here.
"""

import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from helm_scale.config import ExecutionConfig
from helm_scale.extras import needs
from helm_scale.parallel import flat_shards
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.processes import Processes
from helm_scale.parallel.strategies.spec import EngineSpec, ParallelModel, Shardable


def engine_of(stage: int) -> EngineSpec:
    """ZeRO of a stage, 1 to 3."""
    return EngineSpec(
        wrap=partial(wrap, stage),
        shards_optimizer=True,
        shards_gradients=stage >= 2,
        shards_weights=stage == 3,
        offloads=("optimiser", "float32 copy"),
        low_precision=True,
        compiles=stage < 3,  # the hooks of stage 3 cannot be compiled
        float32_copy=True,
        # The gradient of one waits to be summed; in stage 3 one runs and the next one arrives.
        gathered_units={1: 0, 2: 1, 3: 3}[stage],
    )


def wrap(
    stage: int,
    model: nn.Module,
    processes: Processes,
    execution: ExecutionConfig,
    low_precision: bool,
) -> ParallelModel:
    """Put DeepSpeed around a model."""
    settings = _settings(stage, processes, offload=execution.cpu_offload, low=low_precision)
    return DeepSpeedModel(stage, model, processes=processes, settings=settings)


class _HandedOptimizer(torch.optim.Optimizer):
    """The optimiser that DeepSpeed knows: its step calls a function."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.0})
        self.on_step: Callable[[], None] | None = None

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Called by DeepSpeed, at its start too, when there is nothing to do yet."""
        if self.on_step is not None:
            self.on_step()


class DeepSpeedModel:
    """See spec.ParallelModel.

    Args:
        stage: of ZeRO, 1 to 3.
        settings: DeepSpeed's JSON.
    """

    def __init__(
        self, stage: int, model: nn.Module, *, processes: Processes, settings: dict[str, Any]
    ) -> None:
        self._stage, self._model, self._processes = stage, model, processes
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = _HandedOptimizer(trained)
        self._engine = _initialize(stage, model, optimizer=self._optimizer, settings=settings)
        self.module: nn.Module = self._engine
        self._zero = self._engine.optimizer
        self.shard_rank = processes.rank if stage == 3 else 0
        self.shards = self._untrained_shards()
        self._trained: list[tuple[FlatShard, int]] = []  # with the offset in the flat partition
        for parameter, start, offset, length in self._partition(processes.rank):
            local = nn.Parameter(self._flat.detach()[offset : offset + length])
            shape = tuple(getattr(parameter, "ds_shape", parameter.shape))
            shard = FlatShard(local=local, shape=shape, start=start, group=dist.group.WORLD)
            self.shards[names[id(parameter)]] = shard
            self._trained.append((shard, offset))

    def micro_step(self, last: bool) -> AbstractContextManager[None]:
        """See spec.ParallelModel."""
        return nullcontext()

    def backward(self, total: Tensor) -> None:
        """See spec.ParallelModel."""
        self._engine.backward(total, scale_wrt_gas=False)

    def update(self, apply: Callable[[], None]) -> None:
        """See spec.ParallelModel."""

        def on_step() -> None:
            gradient = self._flat.grad
            assert gradient is not None
            gradient.mul_(self._processes.world_size)  # DeepSpeed averages over ranks
            for shard, offset in self._trained:
                shard.local.grad = gradient[offset : offset + shard.local.numel()]
            apply()
            for shard, _ in self._trained:
                shard.local.grad = None

        self._optimizer.on_step = on_step
        self._engine.step()
        self._optimizer.on_step = None

    def sync_parameters(self) -> None:
        """See spec.ParallelModel."""
        if self._stage < 3:
            self._zero.update_lp_params()
        else:
            self.reshard()  # what is still gathered would hide the new values
            self._zero._reassign_or_swap_out_partitioned_parameters(0)

    def running_weights(self) -> list[Tensor]:
        """See spec.ParallelModel."""
        if self._stage < 3:
            return [*self._model.parameters(), *self._model.buffers()]
        return [*(shard.local for shard, _ in self._trained), *self._model.buffers()]

    def reshard(self) -> None:
        """See spec.ParallelModel."""
        if self._stage == 3:
            self._engine.empty_partition_cache()

    @property
    def _flat(self) -> Tensor:
        """This rank's partition of all parameters, float32."""
        if self._stage < 3:
            (flat,) = self._zero.single_partition_of_fp32_groups
        else:
            (flat,) = self._zero.fp32_partitioned_groups_flat
        return cast(Tensor, flat)

    def _untrained_shards(self) -> dict[str, FlatShard]:
        """Buffers, and parameters that no optimiser knows."""
        rank, world_size = self._processes.rank, self._processes.world_size
        shards = {}
        for name, tensor in self._model.state_dict(keep_vars=True).items():
            if not isinstance(tensor, nn.Parameter):
                shards[name] = flat_shards.from_replicated(tensor, rank, world_size)
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad:
                continue
            if self._stage < 3:
                shards[name] = flat_shards.from_replicated(parameter, rank, world_size)
            else:
                shards[name] = _from_partitioned(parameter, rank)
        return shards

    def _partition(self, rank: int) -> Iterator[tuple[nn.Parameter, int, int, int]]:
        """Where the trained parameters lie in the flat partition of a rank.

        Yields:
            parameter, its first element held here, the offset of that in the partition, number of
            elements held here.
        """
        return self._whole_in_buckets(rank) if self._stage < 3 else self._cut_one_by_one(rank)

    def _whole_in_buckets(self, rank: int) -> Iterator[tuple[nn.Parameter, int, int, int]]:
        """Stages 1 and 2: parameters lie one behind the other, and the row of all is cut."""
        (parameters,), (size,) = self._zero.bit16_groups, self._zero.partition_size
        (offsets,) = self._zero.round_robin_bit16_offsets
        low, high = rank * size, (rank + 1) * size
        for parameter, offset in zip(parameters, offsets, strict=True):
            first, last = max(offset, low), min(offset + parameter.numel(), high)
            if last > first:
                yield parameter, first - offset, first - low, last - first
            else:  # nothing of it lies here, but every rank lists every parameter
                yield parameter, 0, 0, 0

    def _cut_one_by_one(self, rank: int) -> Iterator[tuple[nn.Parameter, int, int, int]]:
        """Stage 3: each parameter is cut, and the parts lie one behind the other."""
        offset = 0
        for parameter in self._zero.fp16_groups[0]:
            length = parameter.ds_tensor.ds_numel
            start = min(rank * length, parameter.ds_numel)
            yield parameter, start, offset, min(length, parameter.ds_numel - start)
            offset += length


def _from_partitioned(parameter: Any, rank: int) -> FlatShard:
    """This rank's part of a parameter that stage 3 cuts and nobody trains."""
    length = parameter.ds_tensor.ds_numel
    start = min(rank * length, parameter.ds_numel)
    return FlatShard(
        local=parameter.ds_tensor.detach()[: min(length, parameter.ds_numel - start)],
        shape=tuple(parameter.ds_shape),
        start=start,
        group=dist.group.WORLD,
    )


def _initialize(
    stage: int, model: nn.Module, *, optimizer: _HandedOptimizer, settings: dict[str, Any]
) -> Any:
    """DeepSpeed's engine around a model."""
    deepspeed = _imported(next(model.parameters()).device.type)
    units = cast(Shardable, model).sharding_units() if stage == 3 else []
    joined = [_JoinedOutput(unit) for unit in units]
    for unit in units:  # gathered whole: what runs inside may differ between ranks
        deepspeed.utils.set_z3_leaf_module(unit, True)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=settings, dist_init_required=False
    )
    for output in joined:
        output.split_again()
    return engine


def _imported(device_type: str) -> Any:
    """DeepSpeed, imported only where its engine is chosen: it takes seconds."""
    # Before the import, which otherwise looks for accelerators itself.
    os.environ["DS_ACCELERATOR"] = device_type
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with needs("deepspeed"):
            import deepspeed
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="deepspeed")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    # An operator for CPU inference that training never calls; building it takes a compiler, and a
    # killed build hangs later ones.
    comm: Any = importlib.import_module("deepspeed.comm.torch")
    comm.build_shm_op = lambda: None
    return deepspeed


class _JoinedOutput:
    """Lets DeepSpeed see one tensor where a module returns a list.

    Its hooks count the outputs of every module, and the ranks must agree on the counts; lists
    differ in length.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module, self._shapes = module, list[torch.Size]()
        module.register_forward_hook(self._join)

    def split_again(self) -> None:
        """Called after DeepSpeed has put on its hooks: callers get their tensors back."""
        self._module.register_forward_hook(self._split)

    def _join(self, module: nn.Module, arguments: object, output: object) -> object:
        if not isinstance(output, list):
            self._shapes = []
            return output
        self._shapes = [tensor.shape for tensor in output]
        return torch.cat([tensor.flatten() for tensor in output])

    def _split(self, module: nn.Module, arguments: object, output: Any) -> object:
        if not self._shapes:
            return output
        flat = output.split([shape.numel() for shape in self._shapes])
        return tuple(t.view(shape) for t, shape in zip(flat, self._shapes, strict=True))


def _settings(stage: int, processes: Processes, *, offload: bool, low: bool) -> dict[str, Any]:
    """DeepSpeed's JSON; a step ends when `step` is called, after any number of micro-batches."""
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": False,
        "sub_group_size": 10**12,  # all parameters in one
        "stage3_param_persistence_threshold": 0,  # nothing stays gathered between steps
    }
    if offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": processes.device.type == "cuda"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0,  # ours comes after the scale of the loss
        "bf16": {"enabled": low},
        "steps_per_print": 10**12,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
    }
