"""Lets several ranks share molecules: each computes a part of their message edges and pairs.

Node states are whole on every rank: the messages of all parts are summed after every layer, which
sends as many numbers as the states have, whatever the number of pairs. Each rank's loss is its part
of the whole loss. As the sum over parts passes gradients back by the same sum, the sum of all
ranks' gradients is exactly that of the whole loss; the gradient of one rank alone means nothing.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from helm_scale.parallel.processes import Processes


class _SumOverPairRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        total = part.clone()  # all_reduce works in place, and the caller still needs its part
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # The derivative of a sum over ranks is a sum over ranks: every rank's loss depends on every
        # rank's part. torch's all_reduce alone has no backward pass.
        total = gradient.clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


def sum_over_pair_ranks(processes: Processes) -> Callable[[Tensor], Tensor]:
    """Sum a tensor over the ranks that share this rank's molecules, in the backward pass too."""
    if processes.pair_world_size == 1:
        return lambda part: part
    return lambda part: cast(Tensor, _SumOverPairRanks.apply(part, processes.pair_group))
