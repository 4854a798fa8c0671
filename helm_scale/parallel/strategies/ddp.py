"""DistributedDataParallel: whole weights on every rank.

Gradients are summed in buckets behind the last backward pass.
"""

from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from helm_scale.config import ExecutionConfig
from helm_scale.parallel.processes import Processes
from helm_scale.parallel.strategies.spec import EngineSpec, ParallelModel
from helm_scale.parallel.strategies.torch_model import TorchModel, shards_of


def wrap(
    model: nn.Module, processes: Processes, execution: ExecutionConfig, low_precision: bool
) -> ParallelModel:
    """Put DDP around a model."""
    # Gradients as views of the buckets save a copy of all gradients.
    module = DistributedDataParallel(model, gradient_as_bucket_view=True)
    # Buffers are constants. Set here, as the argument has other names in other versions of torch.
    module.broadcast_buffers = False
    module.register_comm_hook(None, _sum_bucket)
    return TorchModel(
        module=module,
        model=model,
        shards=shards_of(model, processes.rank, processes.world_size),
        accumulate=module.no_sync,
    )


def _sum_bucket(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """DDP's own hook divides by the number of ranks; this one does not."""
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return cast("torch.futures.Future[Tensor]", future.then(lambda done: done.value()[0]))


ENGINE = EngineSpec(wrap=wrap)
