"""One process, no wrapper."""

from torch import nn

from helm_scale.config import ExecutionConfig
from helm_scale.parallel.processes import Processes
from helm_scale.parallel.strategies.spec import EngineSpec, ParallelModel
from helm_scale.parallel.strategies.torch_model import TorchModel, shards_of


def wrap(
    model: nn.Module, processes: Processes, execution: ExecutionConfig, low_precision: bool
) -> ParallelModel:
    """Leave the model as it is."""
    # Number 0 of 1 replica: this process writes all of a checkpoint.
    return TorchModel(module=model, model=model, shards=shards_of(model, 0, 1))


ENGINE = EngineSpec(wrap=wrap, distributed=False)
