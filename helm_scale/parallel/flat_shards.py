"""Describes what one rank holds of a tensor: a contiguous range of its elements, row-major.

Every way of cutting in use here is of this kind: nothing (one process, DDP), rows (FSDP2), the flat
buffers of ZeRO. So optimisers, checkpoints, averages and norms know flat shards only, and are the
same under every engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@dataclass(frozen=True, eq=False, kw_only=True)
class FlatShard:
    """Elements start, ..., start + n - 1 of a tensor.

    Attributes:
        local: [n], shares memory with the weights; optimisers step on it, if it requires a
            gradient.
        shape: of the whole tensor.
        start: of this range in the flat tensor.
        group: the ranks that hold the tensor once among them; None where this rank holds all of it.
        replica, replicas: this is number `replica` of `replicas` equal ones on other ranks.
    """

    local: Tensor
    shape: tuple[int, ...]
    start: int = 0
    group: dist.ProcessGroup | None = None
    replica: int = 0
    replicas: int = 1

    def like(self, tensor: Tensor) -> "FlatShard":
        """The same range of another tensor of the same shape; `tensor` is that range, flat."""
        return replace(self, local=tensor)


def from_replicated(tensor: Tensor, replica: int = 0, replicas: int = 1) -> FlatShard:
    """The shard of a tensor that every rank holds whole."""
    # A view: what an optimiser writes into the shard, the model reads.
    flat = _trainable(tensor.detach().view(-1), tensor)
    return FlatShard(local=flat, shape=tuple(tensor.shape), replica=replica, replicas=replicas)


def from_dtensor(tensor: DTensor) -> FlatShard:
    """The rows that FSDP2 leaves with this rank.

    On a mesh (replicate, shard) equal rows lie on other ranks.
    """
    mesh, local = tensor.device_mesh, tensor.to_local().detach()
    *replicated, sharded = range(mesh.ndim)
    assert tensor.placements[sharded].is_shard(0)
    # FSDP2 cuts as torch.chunk does: equal parts, the last ones shorter or empty.
    rows = -(-tensor.shape[0] // mesh.size(sharded))  # of every rank but the last ones
    start = mesh.get_local_rank(sharded) * rows * prod(tensor.shape[1:])
    return FlatShard(
        local=_trainable(local.view(-1), tensor),
        shape=tuple(tensor.shape),
        start=min(start, tensor.numel()),
        group=mesh.get_group(sharded),
        replica=mesh.get_local_rank(replicated[0]) if replicated else 0,
        replicas=mesh.size(replicated[0]) if replicated else 1,
    )


def full_tensor(shard: FlatShard) -> Tensor:
    """The whole tensor on every rank, a copy; reached by all ranks of its group."""
    if shard.group is None:
        return shard.local.detach().reshape(shard.shape).clone()
    # Zeros where other ranks hold the numbers, so the sum over ranks is the whole.
    full = shard.local.new_zeros(prod(shard.shape))
    full[shard.start : shard.start + shard.local.numel()] = shard.local.detach()
    dist.all_reduce(full, group=shard.group)
    return full.view(shard.shape)


def not_finite(shards: Mapping[str, FlatShard]) -> list[str]:
    """Names of the shards that hold a NaN or an infinity, in rows that are never used as well."""
    numbers = {name: s.local.detach() for name, s in shards.items() if s.local.is_floating_point()}
    if not numbers:
        return []
    # One number per shard, and one copy from the GPU for all. x - x is 0 for finite x, else NaN.
    sums = torch.stack([(x - x).sum().double() for x in numbers.values()]).tolist()
    return [name for name, value in zip(numbers, sums, strict=True) if value != 0]


def norm(shards: Sequence[FlatShard], tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of sharded tensors, float64; each element is counted once.

    Args:
        tensors: what this rank holds of each, cut as `shards`.
    """
    squares = torch.zeros((), dtype=torch.float64)
    # A rank may hold nothing of a small tensor.
    filled = [tensor for tensor in tensors if tensor.numel()]
    if filled:
        # float64: the sum of squares of many gradients overflows float32 before the norm does.
        squares = torch.stack(torch._foreach_norm(filled)).double().square().sum()
    group = shards[0].group if shards else None
    if group is not None:
        squares = squares.to(tensors[0].device)  # NCCL sums on the GPU only
        dist.all_reduce(squares, group=group)
    return squares.sqrt()


def _trainable(local: Tensor, tensor: Tensor) -> Tensor:
    """A parameter where the tensor is one that is trained."""
    return nn.Parameter(local) if tensor.requires_grad else local
