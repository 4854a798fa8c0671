"""Names of engines and what they stand for: the one place to seat another."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from helm_scale.config import ExecutionConfig
from helm_scale.parallel import wrapping, zero
from helm_scale.parallel.engine import Engine, Objective
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.mesh import Processes
from helm_scale.parallel.sum_engine import SumEngine
from helm_scale.types import GraphBatch

WRAPPERS = {
    "single": wrapping.alone, "ddp": wrapping.replicated, "fsdp2": wrapping.sharded,
    "zero1": zero.partitioned, "zero2": zero.partitioned, "zero3": zero.partitioned,
}  # fmt: skip


def start(
    execution: ExecutionConfig,
    processes: Processes,
    model: nn.Module,
    objective: Objective,
    optimizers: Callable[[Mapping[str, FlatShard]], Sequence[Optimizer]],
    clip_norm: float,
    empty: GraphBatch,
    low: bool = False,
) -> Engine:
    """Put a model under the engine that the config names.

    Args:
        model: built alike on every rank. optimizers: makes the optimisers of the trained
            parameters' shards; a group's "lr" is its peak rate. clip_norm: largest gradient norm, 0
            for none.
        empty: batch without molecules, which is run once: see SumEngine.warm_up. low: passes in
            bfloat16.
    """
    wrapped = WRAPPERS[execution.engine](model.to(processes.device), processes, execution, low)
    trained = {name: shard for name, shard in wrapped.shards.items() if shard.local.requires_grad}
    engine = SumEngine(wrapped, trained, objective, optimizers(trained), processes, clip_norm)
    engine.warm_up(empty)
    return engine
