"""Loads this rank's micro-batches, step after step, made ahead by worker processes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, tee
from typing import Protocol

import numpy as np

from helm_scale.config import ModelConfig
from helm_scale.data.format import codec
from helm_scale.data.graphs.blocks import Empty, new_tensor
from helm_scale.data.graphs.collate import collate_stored
from helm_scale.data.loading.ahead import ahead
from helm_scale.data.loading.quarantine import Quarantine, SkippedSample
from helm_scale.data.loading.sampler import Sampler
from helm_scale.data.loading.workers import in_processes
from helm_scale.types import BlockBatch

# Whether each sample was left out -> whether any rank that shares the batch left it out, and
# whether all of them left out the same.
Agree = Callable[[Sequence[bool]], tuple[list[bool], bool]]
_ELSEWHERE = "could not be read by another rank that shares its molecules"


def agree_with_itself(skipped: Sequence[bool]) -> tuple[list[bool], bool]:
    """Agreement of a rank that shares no molecules."""
    return list(skipped), True


class SampleReader(Protocol):
    """Random access to samples."""

    def size(self, index: int) -> int:
        """Bytes of a sample."""

    def expect(self, index: int) -> None:
        """Announce a sample that will be read soon."""

    def read_stored(self, index: int, memory: memoryview) -> codec.StoredSample:
        """Read a sample into memory; ValueError if it is damaged."""


@dataclass(frozen=True)
class LoadedBatch:
    """A micro-batch, its labels still blocks, and the samples that it lacks."""

    batch: BlockBatch
    skipped: tuple[SkippedSample, ...]


class BatchMaker:
    """Reads and collates the samples of a micro-batch, into memory that it uses again.

    Args:
        skip: leave damaged samples out, and tell; otherwise the first one raises.
        matrices: as `collate`.
    """

    def __init__(
        self,
        reader: SampleReader,
        config: ModelConfig,
        *,
        skip: bool = False,
        matrices: Sequence[str] = (),
    ) -> None:
        self._config, self._reader, self._skip, self._matrices = config, reader, skip, matrices
        self._memory = np.zeros(0, dtype=np.uint8)  # grows to the size of the largest batch

    def announced(self, samples: Sequence[int]) -> Sequence[int]:
        """Have the disk fetch the samples while the previous batch is made; return them."""
        for index in samples:
            self._reader.expect(index)
        return samples

    def __call__(
        self,
        samples: Sequence[int],
        empty: Empty = new_tensor,
        unread: Mapping[int, str] | None = None,
    ) -> LoadedBatch:
        """Make the batch of samples (maybe none).

        Args:
            unread: samples that are left out unread, and why.
        Raises:
            ValueError: a sample that cannot be read (unless skipped) or collated.
        """
        sizes = [self._reader.size(index) for index in samples]
        if sum(sizes) > len(self._memory):
            self._memory = np.empty(sum(sizes), dtype=np.uint8)
        memory, stored, skipped, place = self._memory.data, [], [], 0
        for index, size in zip(samples, sizes, strict=True):
            if unread and index in unread:
                skipped.append(SkippedSample(index, unread[index]))
                continue
            try:
                stored.append(self._reader.read_stored(index, memory[place : place + size]))
            except ValueError as error:
                if not self._skip:
                    raise
                skipped.append(SkippedSample(index, str(error)))
            place += size
        # The batch has its own tensors, so that the next one may overwrite the memory.
        return LoadedBatch(
            collate_stored(stored, self._config, empty, self._matrices), tuple(skipped)
        )


class Stream:
    """Micro-batches of one rank.

    Args:
        make: samples (maybe none) -> batch; with workers it must survive a fork.
        workers: processes that make batches ahead; 0 makes them in this one.
        quarantine: counts skipped samples; none: nothing is ever skipped.
        agree: tells the ranks that share molecules what any of them has skipped; called by all of
            them for every batch of `steps` and `batches_of_rank`.
    """

    def __init__(
        self,
        make: BatchMaker,
        *,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        quarantine: Quarantine | None = None,
        agree: Agree = agree_with_itself,
    ) -> None:
        self._make, self._rank, self._world_size = make, rank, world_size
        self._workers, self._quarantine, self._agree = workers, quarantine, agree

    def steps(self, sampler: Sampler, first: int, last: int) -> Iterator[list[BlockBatch]]:
        """Yield the micro-batches of this rank of every step first, ..., last - 1 (from 0).

        Each step has equally many on every rank.
        """
        # For thousands of molecules a plan takes milliseconds, which training need not wait for.
        plans = ahead(
            lambda step: sampler.micro_batches_of_rank(step, self._rank, self._world_size),
            range(first, last),
        )
        micro_batches = chain.from_iterable(plans)
        per_step = sampler.micro_batches // self._world_size
        # The caller may ask for a step while it still holds the one before.
        batches = self._batches(micro_batches, self._agree, kept=2 * per_step)
        for step in range(first, last):
            # The noise of a flow hangs on step and molecule, not on rank: see model/flow.py.
            yield [replace(next(batches), noise_seed=step + 1) for _ in range(per_step)]

    def batches_of_rank(self, micro_batches: Sequence[Sequence[int]]) -> Iterator[BlockBatch]:
        """Yield this rank's batches of micro-batches that all ranks divide among themselves."""
        return self._batches(micro_batches[self._rank :: self._world_size], self._agree)

    def batches(self, micro_batches: Iterable[Sequence[int]]) -> Iterator[BlockBatch]:
        """Yield one batch per micro-batch, in order; without the samples that are quarantined.

        No other rank is asked, so that one rank alone may call it.

        Raises:
            ValueError: a sample that cannot be read or collated, or too many that were skipped.
        """
        return self._batches(micro_batches, agree_with_itself)

    def _batches(
        self, micro_batches: Iterable[Sequence[int]], agree: Agree, kept: int = 2
    ) -> Iterator[BlockBatch]:
        """As `batches`; `kept` is the number of batches that the caller holds at a time."""
        tasks, members = tee(micro_batches)
        # Without workers nothing runs ahead: to announce what is read next gains nothing.
        announced = map(self._make.announced, tasks)
        batches = (
            in_processes(self._make, announced, count=self._workers, kept=kept)
            if self._workers
            else map(self._make, tasks)
        )
        for loaded, samples in zip(batches, members, strict=True):
            if self._quarantine:
                loaded = self._agreed(loaded, samples, agree)
                self._quarantine.note(len(samples), loaded.skipped)
            yield loaded.batch

    def _agreed(self, loaded: LoadedBatch, samples: Sequence[int], agree: Agree) -> LoadedBatch:
        """The batch without whatever a rank that shares it could not read."""
        while samples:
            why = {skip.sample: skip.reason for skip in loaded.skipped}
            anywhere, unanimous = agree([sample in why for sample in samples])
            if unanimous:
                break
            unread = [s for s, skipped in zip(samples, anywhere, strict=True) if skipped]
            reasons = {s: why.get(s, f"sample {s}: {_ELSEWHERE}") for s in unread}
            loaded = self._make(samples, unread=reasons)
        return loaded
