"""AdamW, fused; weight decay leaves vectors and biases alone."""

from collections.abc import Sequence
from math import prod

import torch
from torch.optim import Optimizer

from helm_scale.config import TrainingConfig
from helm_scale.optim.spec import OptimizerSpec
from helm_scale.parallel.flat_shards import FlatShard


def make(shards: Sequence[FlatShard], config: TrainingConfig) -> Optimizer:
    """AdamW of shards of tensors of any shape."""
    matrices = [shard.local for shard in shards if len(shard.shape) >= 2]
    vectors = [shard.local for shard in shards if len(shard.shape) < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    # fused: one pass over weights, gradients and moments instead of a dozen.
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


OPTIMIZER = OptimizerSpec(
    make=make, matrices_only=False, kept_numbers=lambda shape, config: 2 * prod(shape)
)
