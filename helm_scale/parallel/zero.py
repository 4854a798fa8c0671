"""DeepSpeed ZeRO 1, 2 and 3: it cuts, gathers and reduces; our own optimisers step on the shards it
leaves with a rank.

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
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from helm_scale.config import ExecutionConfig
from helm_scale.extras import needs
from helm_scale.parallel import flat_shards
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.mesh import Processes
from helm_scale.parallel.wrapping import Shardable, Wrapped


class _Handed(torch.optim.Optimizer):
    """The optimiser that DeepSpeed knows: its step calls a function."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.0})
        self.then: Callable[[], None] | None = None

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Called by DeepSpeed, at its start too, when there is nothing to do yet."""
        if self.then is not None:
            self.then()


class Zero:
    """See wrapping.Wrapped."""

    def __init__(
        self, model: nn.Module, processes: Processes, execution: ExecutionConfig, low: bool
    ) -> None:
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._stage, self._model, self._world_size = _stage(execution), model, processes.world_size
        self._handed = _Handed(
            [parameter for parameter in model.parameters() if parameter.requires_grad]
        )
        engine: Any = _initialize(model, self._handed, processes, execution, low)
        self.module: nn.Module = engine
        self._engine, self._zero = engine, engine.optimizer
        self.shard_rank = 0 if self._stage < 3 else processes.rank
        buffers = {
            name: tensor
            for name, tensor in model.state_dict(keep_vars=True).items()
            if not isinstance(tensor, nn.Parameter)
        }
        self.shards = {
            name: flat_shards.from_replicated(tensor, processes.rank, processes.world_size)
            for name, tensor in buffers.items()
        }
        self._trained: list[tuple[FlatShard, int]] = []  # with the offset in the flat partition
        for parameter, start, offset, length in self._parts(processes.rank):
            held = nn.Parameter(self._flat.detach()[offset : offset + length])
            shape = tuple(getattr(parameter, "ds_shape", parameter.shape))
            shard = FlatShard(held, shape, start, dist.group.WORLD)
            self.shards[names[id(parameter)]] = shard
            self._trained.append((shard, offset))
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                self.shards[name] = self._frozen_shard(parameter, processes)

    def micro_step(self, last: bool) -> AbstractContextManager[None]:
        """See Wrapped."""
        return nullcontext()

    def backward(self, total: Tensor) -> None:
        """See Wrapped."""
        self._engine.backward(total, scale_wrt_gas=False)

    def update(self, apply: Callable[[], None]) -> None:
        """See Wrapped."""

        def then() -> None:
            gradient = self._flat.grad
            assert gradient is not None
            gradient.mul_(self._world_size)
            for shard, offset in self._trained:
                shard.local.grad = gradient[offset : offset + shard.local.numel()]
            apply()
            for shard, _ in self._trained:
                shard.local.grad = None

        self._handed.then = then
        self._engine.step()
        self._handed.then = None

    def sync_parameters(self) -> None:
        """See Wrapped."""
        if self._stage < 3:
            self._zero.update_lp_params()
        else:
            self.reshard()
            self._zero._reassign_or_swap_out_partitioned_parameters(0)

    def working(self) -> list[Tensor]:
        """See Wrapped."""
        weights = (
            list(self._model.parameters())
            if self._stage < 3
            else [shard.local for shard, _ in self._trained]
        )
        return [*weights, *self._model.buffers()]

    def reshard(self) -> None:
        """See Wrapped."""
        if self._stage == 3:
            self._engine.empty_partition_cache()

    @property
    def _flat(self) -> Tensor:
        """This rank's partition of all parameters, float32."""
        groups = (
            self._zero.single_partition_of_fp32_groups
            if self._stage < 3
            else self._zero.fp32_partitioned_groups_flat
        )
        (flat,) = groups
        return cast(Tensor, flat)

    def _frozen_shard(self, parameter: nn.Parameter, processes: Processes) -> FlatShard:
        """A parameter that no optimiser knows: whole, or this rank's part of what stage 3 cuts."""
        if self._stage < 3:
            return flat_shards.from_replicated(parameter, processes.rank, processes.world_size)
        cut: Any = parameter
        start = min(processes.rank * cut.ds_tensor.ds_numel, cut.ds_numel)
        length = min(cut.ds_tensor.ds_numel, cut.ds_numel - start)
        return FlatShard(
            cut.ds_tensor.detach()[:length], tuple(cut.ds_shape), start, dist.group.WORLD
        )

    def _parts(self, rank: int) -> Iterator[tuple[nn.Parameter, int, int, int]]:
        """(parameter, first element held here, its offset in the flat partition, number of elements
        held here)."""
        if self._stage < 3:
            (parameters,), (offsets,), (size,) = (
                self._zero.bit16_groups,
                self._zero.round_robin_bit16_offsets,
                self._zero.partition_size,
            )
            low, high = rank * size, (rank + 1) * size
            for parameter, offset in zip(parameters, offsets, strict=True):
                first, last = max(offset, low), min(offset + parameter.numel(), high)
                length = max(last - first, 0)
                yield (
                    parameter,
                    first - offset if length else 0,
                    first - low if length else 0,
                    length,
                )
            return
        offset = 0
        for parameter in self._zero.fp16_groups[0]:
            each = parameter.ds_tensor.ds_numel
            start = min(rank * each, parameter.ds_numel)
            yield parameter, start, offset, min(each, parameter.ds_numel - start)
            offset += each


def partitioned(
    model: nn.Module, processes: Processes, execution: ExecutionConfig, low: bool
) -> Wrapped:
    """ZeRO of the stage that the config names."""
    return Zero(model, processes, execution, low)


def _stage(execution: ExecutionConfig) -> int:
    return int(execution.engine.removeprefix("zero"))


def _initialize(
    model: nn.Module,
    optimizer: _Handed,
    processes: Processes,
    execution: ExecutionConfig,
    low: bool,
) -> Any:
    """DeepSpeed's engine around a model."""
    os.environ["DS_ACCELERATOR"] = (
        processes.device.type
    )  # before the import, which looks for accelerators itself
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with needs("deepspeed"):
            import deepspeed
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="deepspeed")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    # An operator for CPU inference that training never calls; building it takes a compiler, and a
    # killed build hangs later ones.
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # type: ignore[attr-defined]
    units = cast(Shardable, model).sharding_units() if _stage(execution) == 3 else []
    joined = [_Joined(unit) for unit in units]
    for unit in units:  # gathered whole: what runs inside may differ between ranks
        deepspeed.utils.set_z3_leaf_module(unit, True)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config=_settings(processes, execution, low),
        dist_init_required=False,
    )
    for join in joined:
        join.undo()
    return engine


class _Joined:
    """Lets DeepSpeed see one tensor where a module returns a list.

    Its hooks count the outputs of every module, and the ranks must agree on the counts; lists
    differ in length.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module, self._shapes = module, list[torch.Size]()
        module.register_forward_hook(self._join)

    def undo(self) -> None:
        """Called after DeepSpeed has put on its hooks: callers get their tensors back."""
        self._module.register_forward_hook(self._split)

    def _join(self, module: nn.Module, arguments: object, output: object) -> object:
        self._shapes = [tensor.shape for tensor in output] if isinstance(output, list) else []
        return (
            torch.cat([tensor.flatten() for tensor in output])
            if isinstance(output, list)
            else output
        )

    def _split(self, module: nn.Module, arguments: object, output: Any) -> object:
        if not self._shapes:
            return output
        parts = output.split([shape.numel() for shape in self._shapes])
        return tuple(part.view(shape) for part, shape in zip(parts, self._shapes, strict=True))


def _settings(processes: Processes, execution: ExecutionConfig, low: bool) -> dict[str, Any]:
    """DeepSpeed's JSON. A step ends when `step` is called, whatever the number of micro-batches
    before."""
    zero: dict[str, Any] = {
        "stage": _stage(execution),
        "overlap_comm": False,
        "sub_group_size": 10**12,  # all parameters in one
        "stage3_param_persistence_threshold": 0,  # nothing stays gathered between steps
    }
    if execution.cpu_offload:
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
