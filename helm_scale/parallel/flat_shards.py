"""What one rank holds of a tensor: a contiguous range of its elements in row-major order.

Every way of cutting in use here is of this kind: nothing (one process, DDP), rows (FSDP2), the flat
buffers of ZeRO. So optimisers, checkpoints, averages and norms know pieces only, and are the same
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
class Piece:
    """Elements start, ..., start + n - 1 of a tensor.

    Attributes:
        held: [n], shares memory with the weights; optimisers step on it, if it requires a gradient.
            shape: of the whole tensor.
        group: the ranks that hold the tensor once among them; None where this rank holds all of it.
        copy, copies: this is copy number `copy` of `copies` equal ones on other ranks.
    """

    held: Tensor
    shape: tuple[int, ...]
    start: int = 0
    group: dist.ProcessGroup | None = None
    copy: int = 0
    copies: int = 1

    def like(self, tensor: Tensor) -> "Piece":
        """The same range of another tensor of the same shape; `tensor` is this rank's part,
        flat."""
        return Piece(tensor, self.shape, self.start, self.group, self.copy, self.copies)


def of_whole(tensor: Tensor, copy: int = 0, copies: int = 1) -> Piece:
    """A tensor that every rank holds whole."""
    flat = tensor.detach().view(-1)
    return Piece(_as_trained(flat, tensor), tuple(tensor.shape), 0, None, copy, copies)


def of_rows(tensor: DTensor) -> Piece:
    """The rows that FSDP2 leaves with this rank; on a mesh (replicate, shard) equal ones lie on
    other ranks."""
    mesh, part = tensor.device_mesh, tensor.to_local().detach()
    *replicas, shards = range(mesh.ndim)
    assert tensor.placements[shards].is_shard(0)
    each = -(-tensor.shape[0] // mesh.size(shards)) * prod(tensor.shape[1:])
    start = min(mesh.get_local_rank(shards) * each, tensor.numel())
    copy, copies = (
        (mesh.get_local_rank(replicas[0]), mesh.size(replicas[0])) if replicas else (0, 1)
    )
    return Piece(
        _as_trained(part.view(-1), tensor),
        tuple(tensor.shape),
        start,
        mesh.get_group(shards),
        copy,
        copies,
    )


def _as_trained(part: Tensor, tensor: Tensor) -> Tensor:
    """A parameter where the tensor is one that is trained."""
    return nn.Parameter(part) if tensor.requires_grad else part


def whole(piece: Piece) -> Tensor:
    """The whole tensor on every rank, a copy; reached by all ranks of its group."""
    if piece.group is None:
        return piece.held.detach().reshape(piece.shape).clone()
    full = piece.held.new_zeros(prod(piece.shape))
    full[piece.start : piece.start + piece.held.numel()] = piece.held.detach()
    dist.all_reduce(full, group=piece.group)
    return full.view(piece.shape)


def norm(pieces: Sequence[Piece], parts: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of tensors of which `parts` are this rank's parts, float64; each element is
    counted once."""
    filled = [part for part in parts if part.numel()]
    squares = (
        torch.stack([n.double().square() for n in torch._foreach_norm(filled)]).sum()
        if filled
        else torch.zeros(()).double()
    )
    group = pieces[0].group if pieces else None
    if group is not None:
        squares = squares.to(parts[0].device)
        dist.all_reduce(squares, group=group)
    return squares.sqrt()


class WholeMatrices:
    """Applies functions that need whole matrices to cut ones: each matrix is gathered on one rank
    of the group.

    Two all-to-all exchanges, whatever the number of matrices: pieces to the owner, pieces of the
    results back.

    Args:
        pieces: of matrices, all held by one group. device: where the function runs.
    """

    def __init__(self, pieces: Sequence[Piece], device: torch.device | None = None) -> None:
        self.shapes = [(piece.shape[0], piece.shape[1]) for piece in pieces]
        self._group, self._device = pieces[0].group, device
        if self._group is not None:
            self._rank, world_size = dist.get_rank(self._group), dist.get_world_size(self._group)
            mine = [piece.held.numel() for piece in pieces]
            self._sizes = collectives.gather(mine, self._group)  # [rank][matrix]
            owner = _owners(self.shapes, world_size)
            self._owned = [
                [i for i in range(len(pieces)) if owner[i] == q] for q in range(world_size)
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
            torch.cat(pieces).to(self._device).view(self.shapes[i])
            for i, pieces in zip(mine, zip(*arrived, strict=True), strict=True)
        ]
        cut = [
            result.to(parts[0].device).reshape(-1).split([self._sizes[q][i] for q in ranks])
            for i, result in zip(mine, function(gathered), strict=True)
        ]
        sizes = [[self._sizes[self._rank][i] for i in self._owned[q]] for q in ranks]
        returned = self._exchange([[pieces[q] for pieces in cut] for q in ranks], sizes, parts[0])
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
