"""What one rank holds of a tensor: a contiguous range of its elements in row-major order.

Every way of cutting in use here is of this kind: nothing (one process, DDP), rows (FSDP2), the flat
buffers of ZeRO. So optimisers, checkpoints, averages and norms know shards only, and are the same
under every engine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from helm_scale.parallel import collectives

Matrices = list[Tensor]


@dataclass(frozen=True, eq=False)
class FlatShard:
    """Elements start, ..., start + n - 1 of a tensor.

    Attributes:
        local: [n], shares memory with the weights; optimisers step on it, if it requires a gradient.
            shape: of the whole tensor.
        group: the ranks that hold the tensor once among them; None where this rank holds all of it.
        replica, replicas: this is number `replica` of `replicas` equal ones on other
            ranks.
    """

    local: Tensor
    shape: tuple[int, ...]
    start: int = 0
    group: dist.ProcessGroup | None = None
    replica: int = 0
    replicas: int = 1

    def like(self, tensor: Tensor) -> "FlatShard":
        """The same range of another tensor of the same shape; `tensor` is this rank's part,
        flat."""
        return FlatShard(tensor, self.shape, self.start, self.group, self.replica, self.replicas)


def from_replicated(tensor: Tensor, replica: int = 0, replicas: int = 1) -> FlatShard:
    """A tensor that every rank holds whole."""
    flat = tensor.detach().view(-1)
    return FlatShard(_as_trained(flat, tensor), tuple(tensor.shape), 0, None, replica, replicas)


def from_dtensor(tensor: DTensor) -> FlatShard:
    """The rows that FSDP2 leaves with this rank; on a mesh (replicate, shard) equal ones lie on
    other ranks."""
    mesh, part = tensor.device_mesh, tensor.to_local().detach()
    *replicated, sharded = range(mesh.ndim)
    assert tensor.placements[sharded].is_shard(0)
    each = -(-tensor.shape[0] // mesh.size(sharded)) * prod(tensor.shape[1:])
    start = min(mesh.get_local_rank(sharded) * each, tensor.numel())
    replica, replicas = (
        (mesh.get_local_rank(replicated[0]), mesh.size(replicated[0])) if replicated else (0, 1)
    )
    return FlatShard(
        _as_trained(part.view(-1), tensor),
        tuple(tensor.shape),
        start,
        mesh.get_group(sharded),
        replica,
        replicas,
    )


def _as_trained(part: Tensor, tensor: Tensor) -> Tensor:
    """A parameter where the tensor is one that is trained."""
    return nn.Parameter(part) if tensor.requires_grad else part


def full_tensor(shard: FlatShard) -> Tensor:
    """The whole tensor on every rank, a copy; reached by all ranks of its group."""
    if shard.group is None:
        return shard.local.detach().reshape(shard.shape).clone()
    full = shard.local.new_zeros(prod(shard.shape))
    full[shard.start : shard.start + shard.local.numel()] = shard.local.detach()
    dist.all_reduce(full, group=shard.group)
    return full.view(shard.shape)


def norm(shards: Sequence[FlatShard], parts: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of tensors of which `parts` are this rank's parts, float64; each element is
    counted once."""
    filled = [part for part in parts if part.numel()]
    squares = (
        torch.stack([n.double().square() for n in torch._foreach_norm(filled)]).sum()
        if filled
        else torch.zeros(()).double()
    )
    group = shards[0].group if shards else None
    if group is not None:
        squares = squares.to(parts[0].device)
        dist.all_reduce(squares, group=group)
    return squares.sqrt()


class WholeMatrices:
    """Applies functions that need whole matrices to cut ones: each matrix is gathered on one rank
    of the group.

    Two all-to-all exchanges, whatever the number of matrices: shards to the owner, shards of the
    results back.

    Args:
        shards: of matrices, all held by one group. device: where the function runs.
    """

    def __init__(self, shards: Sequence[FlatShard], device: torch.device | None = None) -> None:
        self.shapes = [(shard.shape[0], shard.shape[1]) for shard in shards]
        self._group, self._device = shards[0].group, device
        if self._group is not None:
            self._rank, world_size = dist.get_rank(self._group), dist.get_world_size(self._group)
            mine = [shard.local.numel() for shard in shards]
            self._sizes = collectives.gather(mine, self._group)  # [rank][matrix]
            owner = _owners(self.shapes, world_size)
            self._owned = [
                [i for i in range(len(shards)) if owner[i] == q] for q in range(world_size)
            ]

    def __call__(
        self, function: Callable[[Matrices], Matrices], parts: Sequence[Tensor]
    ) -> list[Tensor]:
        """Apply a function: list of whole matrices -> list of matrices of the same shapes.

        Args:
            parts: [n] of every matrix, what this rank holds of it.
        Returns:
            [n] of every result, in order.
        """
        if self._group is None:
            results = function(
                [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
            )
            return [result.reshape(-1) for result in results]
        ranks, mine = range(len(self._owned)), self._owned[self._rank]
        arrived = self._exchange(
            [[parts[i] for i in self._owned[q]] for q in ranks],
            [[self._sizes[q][i] for i in mine] for q in ranks],
        )
        gathered = [
            torch.cat(shards).to(self._device).view(self.shapes[i])
            for i, shards in zip(mine, zip(*arrived, strict=True), strict=True)
        ]
        cut = [
            result.to(parts[0].device).reshape(-1).split([self._sizes[q][i] for q in ranks])
            for i, result in zip(mine, function(gathered), strict=True)
        ]
        sizes = [[self._sizes[self._rank][i] for i in self._owned[q]] for q in ranks]
        returned = self._exchange([[shards[q] for shards in cut] for q in ranks], sizes, parts[0])
        by_matrix = {
            i: part for q in ranks for i, part in zip(self._owned[q], returned[q], strict=True)
        }
        return [by_matrix[i] for i in range(len(parts))]

    def _exchange(
        self, outgoing: list[Matrices], sizes: list[list[int]], like: Tensor | None = None
    ) -> list[Matrices]:
        """Send outgoing[q] to rank q; receive from it tensors of sizes[q]."""
        kind = next((part for parts in outgoing for part in parts), like)
        assert kind is not None
        send = torch.cat([kind.new_empty(0), *(part for parts in outgoing for part in parts)])
        incoming = [sum(members) for members in sizes]
        received = kind.new_empty(sum(incoming))
        dist.all_to_all_single(
            received,
            send,
            incoming,
            [sum(p.numel() for p in parts) for parts in outgoing],
            group=self._group,
        )
        return [
            list(part.split(members))
            for part, members in zip(received.split(incoming), sizes, strict=True)
        ]


def _owners(shapes: Sequence[tuple[int, int]], world_size: int) -> list[int]:
    """Rank that takes each matrix: the costliest first, each to the rank with the least work."""
    loads, owner = [0.0] * world_size, [0] * len(shapes)
    work = [float(shape[0] * shape[1] * min(shape)) for shape in shapes]
    for i in sorted(range(len(shapes)), key=lambda i: -work[i]):
        owner[i] = loads.index(min(loads))
        loads[owner[i]] += work[i]
    return owner
