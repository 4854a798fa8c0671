"""Finds ranks whose weights differ from their replicas: broken hardware that nothing else shows."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from helm_scale.parallel import collectives


def divergent_ranks(group: Hashable, tensors: Sequence[Tensor]) -> list[int]:
    """Ranks whose tensors are not those of the majority of their group.

    All ranks of a group without a majority are named. Called by all ranks together.

    Args:
        group: ranks with the same value hold equal tensors.
    """
    checksums: dict[Hashable, dict[int, int]] = defaultdict(dict)
    for rank, (of_rank, value) in enumerate(collectives.gather((group, checksum(tensors)))):
        checksums[of_rank][rank] = value
    divergent = []
    for by_rank in checksums.values():
        (majority, votes), *minorities = Counter(by_rank.values()).most_common()
        # Two replicas that differ are a tie: which of them is wrong cannot be told.
        tied = bool(minorities) and minorities[0][1] == votes
        divergent += [rank for rank, value in by_rank.items() if tied or value != majority]
    return sorted(divergent)


def checksum(tensors: Sequence[Tensor]) -> int:
    """A number that changes with any single bit of the tensors.

    Position-weighted sum of their words, modulo 2^64. The weights are odd, so no bit is lost.
    """
    sums = []
    for tensor in tensors:
        # int32 words where they fit: a quarter of the additions.
        word = torch.uint8 if tensor.element_size() % 4 else torch.int32
        words = tensor.detach().contiguous().view(-1).view(word).to(torch.int64)
        # int64 wraps around on overflow, which is arithmetic modulo 2^64.
        sums.append((words * (2 * torch.arange(len(words), device=words.device) + 1)).sum())
    number = 0
    for value in torch.stack(sums).tolist():
        number = (number * 1000003 + value) % 2**64  # the factor makes the order of tensors count
    return number
