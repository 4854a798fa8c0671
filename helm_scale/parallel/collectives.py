"""Collectives that training needs; each is reached by all ranks, and each is a plain function where there is one process.

Sharded matrices are DTensors cut along their rows, as FSDP2 leaves them.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

T = TypeVar("T")


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum a tensor over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def from_rank_zero(rank: int, make: Callable[[], T]) -> T:
    """What `make` returns on rank 0, on every rank; it runs there alone."""
    box: list[Any] = [make() if rank == 0 else None]
    if dist.is_initialized():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: T) -> list[T]:
    """The values of all ranks, by rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this rank holds; shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor, gathered on every rank if it is sharded; complete on return, so shards may change at once."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all tensors together, float64, the same on every rank; shards are counted once."""
    parts = [part for part in map(local, tensors) if part.numel()]
    device = tensors[0].device if tensors else torch.device("cpu")
    squares = torch.stack([n.double().square() for n in torch._foreach_norm(parts)]).sum() if parts else torch.zeros((), device=device)
    squares = squares.double()
    return (sum_over_ranks(squares) if any(isinstance(tensor, DTensor) for tensor in tensors) else squares).sqrt()


def on_whole_matrices(function: Callable[[list[Tensor]], list[Tensor]], matrices: Sequence[Tensor]) -> list[Tensor]:
    """Apply a function that needs whole matrices; sharded ones are spread over the ranks, each gathered on one.

    Two all-to-all exchanges, whatever the number of matrices: rows to the owner, rows of the results back.

    Args:
        function: list of whole matrices -> list of matrices of the same shapes.
        matrices: all plain, or all DTensors sharded by rows over one mesh dimension.
    Returns:
        this rank's part of every result, in order.
    """
    sharded = [matrix for matrix in matrices if isinstance(matrix, DTensor)]
    if not sharded:
        return function(list(matrices))
    assert len(sharded) == len(matrices) and all(m.device_mesh.ndim == 1 and m.placements[0].is_shard(0) for m in sharded)
    group = sharded[0].device_mesh.get_group()
    rank, world_size = dist.get_rank(group), dist.get_world_size(group)
    shapes = [tuple(matrix.shape) for matrix in sharded]
    owner = _owners(shapes, world_size)
    owned = [[i for i in range(len(shapes)) if owner[i] == q] for q in range(world_size)]
    rows = [[_rows(shape[0], world_size, q) for q in range(world_size)] for shape in shapes]

    mine = [matrix.to_local() for matrix in sharded]
    received = _exchange(
        [[mine[i] for i in owned[q]] for q in range(world_size)],
        [[(rows[i][q], shapes[i][1]) for i in owned[rank]] for q in range(world_size)],
        mine[0],
        group,
    )
    whole = function([torch.cat(parts) for parts in zip(*received, strict=True)])
    cut = [result.split(rows[i]) for i, result in zip(owned[rank], whole, strict=True)]
    returned = _exchange(
        [[parts[q] for parts in cut] for q in range(world_size)],
        [[(rows[i][rank], shapes[i][1]) for i in owned[q]] for q in range(world_size)],
        mine[0],
        group,
    )
    results: dict[int, Tensor] = {}
    for q in range(world_size):
        results.update(zip(owned[q], returned[q], strict=True))
    return [results[i] for i in range(len(shapes))]


def _owners(shapes: Sequence[tuple[int, ...]], world_size: int) -> list[int]:
    """Rank that takes each matrix: the costliest first, each to the rank with the least work."""
    loads, owner = [0.0] * world_size, [0] * len(shapes)
    work = [float(shape[0] * shape[1] * min(shape)) for shape in shapes]
    for i in sorted(range(len(shapes)), key=lambda i: -work[i]):
        owner[i] = loads.index(min(loads))
        loads[owner[i]] += work[i]
    return owner


def _rows(total: int, world_size: int, rank: int) -> int:
    """Rows that torch.chunk gives a rank: as many as ever fit, the last ranks fewer or none."""
    each = -(-total // world_size)
    return max(0, min(each, total - rank * each))


def _exchange(
    outgoing: list[list[Tensor]], shapes: list[list[tuple[int, int]]], like: Tensor, group: dist.ProcessGroup
) -> list[list[Tensor]]:
    """Send outgoing[q] to rank q; receive from rank q matrices of shapes[q], of the dtype and device of `like`."""
    send = torch.cat([like.new_empty(0), *(matrix.reshape(-1) for matrices in outgoing for matrix in matrices)])
    sent_sizes = [sum(matrix.numel() for matrix in matrices) for matrices in outgoing]
    sizes = [[a * b for a, b in members] for members in shapes]
    received_sizes = [sum(members) for members in sizes]
    received = like.new_empty(sum(received_sizes))
    dist.all_to_all_single(received, send, received_sizes, sent_sizes, group=group)
    return [
        [piece.view(shape) for piece, shape in zip(part.split(members), kind, strict=True)]
        for part, members, kind in zip(received.split(received_sizes), sizes, shapes, strict=True)
    ]
