"""Names of engines and what they stand for: the one place to seat another."""

from collections.abc import Callable, Sequence

from torch import nn
from torch.optim import Optimizer

from helm_scale.batch import GraphBatch
from helm_scale.config import ExecutionConfig
from helm_scale.parallel import wrapping
from helm_scale.parallel.engine import Engine, Objective
from helm_scale.parallel.mesh import Processes
from helm_scale.parallel.torch_engine import TorchEngine

WRAPPERS = {"single": wrapping.alone, "ddp": wrapping.replicated, "fsdp2": wrapping.sharded}


def start(
    execution: ExecutionConfig,
    processes: Processes,
    model: nn.Module,
    objective: Objective,
    optimizers: Callable[[nn.Module], Sequence[Optimizer]],
    clip_norm: float,
    empty: GraphBatch,
) -> Engine:
    """Put a model under the engine that the config names.

    Args:
        model: built alike on every rank. optimizers: makes the optimisers of the model once it is wrapped; a group's
            "lr" is its peak rate. clip_norm: largest gradient norm, 0 for none.
        empty: batch without molecules, which is run once: see TorchEngine.warm_up.
    """
    model = model.to(processes.device)
    wrapped = WRAPPERS[execution.engine](model, processes)
    engine = TorchEngine(model, wrapped, objective, optimizers(model), processes, clip_norm)
    engine.warm_up(empty)
    return engine
