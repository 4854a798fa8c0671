"""Applies functions of whole matrices, such as Muon's orthogonalisation, to those of many ranks.

Whether matrices are cut over ranks or lie whole on each, every rank works on its share of them.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from helm_scale.parallel import collectives
from helm_scale.parallel.flat_shards import FlatShard

Matrices = list[Tensor]


class ShardedMatrices:
    """Matrices of which each rank holds a part; to apply a function each is gathered on one rank.

    Two all-to-all exchanges, whatever the number of matrices: shards to the rank that owns a
    matrix, shards of the results back.

    Args:
        shards: of matrices, all cut over one group.
        device: where the function runs; None: where the shards are.

    Attributes:
        owned: indices of the matrices that the function gets on this rank, in order.
    """

    def __init__(self, shards: Sequence[FlatShard], device: torch.device | None = None) -> None:
        self.shapes = [(shard.shape[0], shard.shape[1]) for shard in shards]
        self._group, self._device = shards[0].group, device
        self.owned = list(range(len(shards)))
        if self._group is None:
            return
        self._rank, world_size = dist.get_rank(self._group), dist.get_world_size(self._group)
        sizes = [shard.local.numel() for shard in shards]
        self._sizes = collectives.gather(sizes, self._group)  # [rank][matrix]
        self._owned = owned_matrices(self.shapes, world_size)
        self.owned = self._owned[self._rank]

    def apply(
        self, function: Callable[[Matrices], Matrices], tensors: Sequence[Tensor]
    ) -> list[Tensor]:
        """Apply a function: list of whole matrices -> list of matrices of the same shapes.

        Args:
            tensors: [n] of every matrix, what this rank holds of it.
        Returns:
            [n] of every result, in order.
        """
        if self._group is None:
            matrices = [t.view(shape) for t, shape in zip(tensors, self.shapes, strict=True)]
            return [result.reshape(-1) for result in function(matrices)]
        results = function(self._gather(tensors))
        return self._scatter(results, like=tensors[0])

    def _gather(self, tensors: Sequence[Tensor]) -> Matrices:
        """The matrices that this rank owns, whole."""
        arrived = self._exchange(
            [[tensors[i] for i in indices] for indices in self._owned],
            [[sizes[i] for i in self.owned] for sizes in self._sizes],
            like=tensors[0],
        )
        by_matrix = zip(*arrived, strict=True)  # [matrix][rank]
        return [
            torch.cat(shards).to(self._device).view(self.shapes[i])
            for i, shards in zip(self.owned, by_matrix, strict=True)
        ]

    def _scatter(self, results: Matrices, like: Tensor) -> list[Tensor]:
        """What this rank holds of every result, from the ranks that own them."""
        cut = [
            result.to(like.device).reshape(-1).split([sizes[i] for sizes in self._sizes])
            for i, result in zip(self.owned, results, strict=True)
        ]
        own_sizes = self._sizes[self._rank]
        returned = self._exchange(
            [[shards[q] for shards in cut] for q in range(len(self._owned))],
            [[own_sizes[i] for i in indices] for indices in self._owned],
            like=like,
        )
        return _in_order(self._owned, returned)

    def _exchange(
        self, outgoing: list[Matrices], sizes: list[list[int]], *, like: Tensor
    ) -> list[Matrices]:
        """Send outgoing[q] to rank q; receive from it tensors of sizes[q]."""
        send = torch.cat([like.new_empty(0), *(t for tensors in outgoing for t in tensors)])
        incoming = [sum(of_rank) for of_rank in sizes]
        received = like.new_empty(sum(incoming))
        dist.all_to_all_single(
            received,
            send,
            output_split_sizes=incoming,
            input_split_sizes=[sum(t.numel() for t in tensors) for tensors in outgoing],
            group=self._group,
        )
        by_rank = zip(received.split(incoming), sizes, strict=True)
        return [list(tensor.split(of_rank)) for tensor, of_rank in by_rank]


class ReplicatedMatrices:
    """Matrices that every rank holds whole; each rank applies a function to its share of them.

    One all-gather, whatever the number of matrices. All ranks then go on from the same results.

    Args:
        shards: of matrices that lie whole on all ranks of the run.
    """

    def __init__(self, shards: Sequence[FlatShard]) -> None:
        self.shapes = [(shard.shape[0], shard.shape[1]) for shard in shards]
        self._owned = owned_matrices(self.shapes, shards[0].replicas)
        self._own = self._owned[shards[0].replica]
        sizes = [shard.local.numel() for shard in shards]
        self._sizes = [[sizes[i] for i in indices] for indices in self._owned]  # [rank][matrix]

    def apply(
        self, function: Callable[[Matrices], Matrices], tensors: Sequence[Tensor]
    ) -> list[Tensor]:
        """See ShardedMatrices.apply; the tensors must be the same on all ranks."""
        results = function([tensors[i].view(self.shapes[i]) for i in self._own])
        # As long on every rank as on the one with most, since backends gather equal sizes only.
        longest = max(map(sum, self._sizes))
        send = torch.cat([tensors[0].new_empty(0), *(result.reshape(-1) for result in results)])
        send = torch.nn.functional.pad(send, (0, longest - len(send)))
        gathered = send.new_empty(len(self._owned) * longest)
        dist.all_gather_into_tensor(gathered, send)
        parts = [
            of_rank.split([*sizes, longest - sum(sizes)])[:-1]  # the last part is the padding
            for of_rank, sizes in zip(gathered.split(longest), self._sizes, strict=True)
        ]
        return _in_order(self._owned, parts)


def _in_order(owned: Sequence[Sequence[int]], of_ranks: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """What every rank made of the matrices that it owns, in the order of the matrices."""
    by_matrix: dict[int, Tensor] = {}
    for indices, tensors in zip(owned, of_ranks, strict=True):
        by_matrix.update(zip(indices, tensors, strict=True))
    return [by_matrix[i] for i in range(len(by_matrix))]


def shared_out(shards: Sequence[FlatShard]) -> ShardedMatrices | ReplicatedMatrices:
    """Whole matrices for functions without a state, shared out over all ranks that hold them."""
    replicated = shards[0].group is None and shards[0].replicas > 1
    return ReplicatedMatrices(shards) if replicated else ShardedMatrices(shards)


def owned_matrices(shapes: Sequence[tuple[int, int]], world_size: int) -> list[list[int]]:
    """Indices of each rank's matrices: the costliest first, each to the rank with least work."""
    loads, owner = [0.0] * world_size, [0] * len(shapes)
    # Multiplications of one product X X^T, of which the iteration is made.
    work = [float(shape[0] * shape[1] * min(shape)) for shape in shapes]
    # sorted is stable, so that all ranks find the same owners without a word.
    for i in sorted(range(len(shapes)), key=lambda i: -work[i]):
        owner[i] = loads.index(min(loads))
        loads[owner[i]] += work[i]
    return [[i for i, o in enumerate(owner) if o == rank] for rank in range(world_size)]
