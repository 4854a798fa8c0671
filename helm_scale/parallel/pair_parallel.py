"""Lets several ranks share molecules: each computes a part of their message edges and pairs.

Node states are whole on every rank: the messages of all parts are summed after every layer, which
sends as many numbers as the states have, whatever the number of pairs. Each rank's loss is its part
of the whole loss. As the sum over parts passes gradients back by the same sum, the sum of all
ranks' gradients is exactly that of the whole loss; the gradient of one rank alone means nothing.
"""

from collections.abc import Callable, Sequence
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


def any_of_pair_ranks(processes: Processes) -> Callable[[Sequence[bool]], tuple[list[bool], bool]]:
    """Make a call by which the ranks that share molecules compare flags about them.

    Returns:
        flags -> (which are set on any of these ranks, whether the flags are the same on all).
    """
    if processes.pair_world_size == 1:
        return lambda flags: (list(flags), True)

    def compare(flags: Sequence[bool]) -> tuple[list[bool], bool]:
        votes = torch.tensor([[flag, not flag] for flag in flags], dtype=torch.uint8)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=processes.pair_group)
        # both a flag and its opposite were said: the ranks differ
        return votes[:, 0].bool().tolist(), not bool(votes.all(dim=1).any())

    return compare
