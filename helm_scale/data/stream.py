"""The loader: this rank's micro-batches, step after step, read ahead by worker processes where wanted."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch.utils.data import DataLoader, Dataset

from helm_scale.batch import GraphBatch, Molecule
from helm_scale.data.plan import StepPlan


class _MicroBatches(Dataset[GraphBatch | ValueError]):
    """Reads and collates the samples of one micro-batch; runs in the workers.

    A ValueError is returned: torch would bury the message of one that is raised in the traceback of the worker.
    """

    def __init__(self, read: Callable[[int], Molecule], collate: Callable[[Sequence[Molecule]], GraphBatch]) -> None:
        self._read, self._collate = read, collate

    def __getitem__(self, samples: Sequence[int]) -> GraphBatch | ValueError:
        try:
            return self._collate([self._read(index) for index in samples])
        except ValueError as error:
            return error


class Stream:
    """Micro-batches of one rank.

    Args:
        read: sample index -> molecule. collate: molecules (maybe none) -> batch. workers: processes that read ahead; 0
            reads in process. With workers both functions must survive a fork.
    """

    def __init__(
        self, read: Callable[[int], Molecule], collate: Callable[[Sequence[Molecule]], GraphBatch], rank: int, world_size: int, workers: int
    ) -> None:
        self._data, self._rank, self._world_size, self._workers = _MicroBatches(read, collate), rank, world_size, workers

    def steps(self, plan: StepPlan, first: int, last: int) -> Iterator[list[GraphBatch]]:
        """Yield the list of micro-batches of every step first, ..., last - 1 (from 0); each list is equally long on every rank."""
        bins = (members for step in range(first, last) for members in plan.bins_of_rank(step, self._rank, self._world_size))
        batches = self.batches(bins)
        for _ in range(first, last):
            yield [next(batches) for _ in range(plan.bins // self._world_size)]

    def share(self, bins: Sequence[Sequence[int]]) -> Iterator[GraphBatch]:
        """Yield this rank's batches of a list of bins that all ranks divide among themselves."""
        return self.batches(bins[self._rank :: self._world_size])

    def batches(self, bins: Iterable[Sequence[int]]) -> Iterator[GraphBatch]:
        """Yield one batch per bin, in order.

        Raises:
            ValueError: a sample that cannot be read or collated, with the message it met.
        """
        own_generator = torch.Generator()  # the loader draws a seed for its workers: not from the global generator
        for batch in DataLoader(self._data, batch_size=None, sampler=bins, num_workers=self._workers, generator=own_generator):
            if isinstance(batch, ValueError):
                raise batch
            yield batch
