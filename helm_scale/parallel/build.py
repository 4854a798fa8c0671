"""A model under the engine that the config names."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from helm_scale.config import ExecutionConfig
from helm_scale.parallel import strategies
from helm_scale.parallel.engine import Engine
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.objective import Objective
from helm_scale.parallel.processes import Processes
from helm_scale.types import GraphBatch


def build_engine(
    execution: ExecutionConfig,
    processes: Processes,
    *,
    model: nn.Module,
    objective: Objective,
    make_optimizers: Callable[[Mapping[str, FlatShard]], Sequence[Optimizer]],
    clip_norm: float,
    empty: GraphBatch,
    low_precision: bool = False,
) -> Engine:
    """Put a model under the engine that the config names.

    Args:
        model: built alike on every rank.
        make_optimizers: makes the optimisers of the trained parameters' shards; the "lr" of a group
            is its peak rate.
        clip_norm: largest gradient norm, 0 for none.
        empty: batch without molecules, which is run once: see Engine.warm_up.
        low_precision: passes in bfloat16.
    """
    wrap = strategies.spec_of(execution.engine).wrap
    engine = Engine(
        wrap(model.to(processes.device), processes, execution, low_precision),
        processes,
        objective=objective,
        make_optimizers=make_optimizers,
        clip_norm=clip_norm,
    )
    engine.warm_up(empty)
    return engine
