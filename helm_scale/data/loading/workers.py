"""Makes batches ahead of their use in worker processes, and hands them over in shared memory.

A batch of large molecules takes tens of megabytes. Fresh memory of that size costs more than to
fill it (the kernel clears every page, on both sides), so each process owns a few buffers of shared
memory, and a buffer returns to its owner when the last tensor on it is gone. That also bounds the
memory: buffers times the largest batch, whatever the dataset.
"""

import mmap
import multiprocessing
import os
import signal
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helm_scale.data.graphs.blocks import Empty, new_tensor
from helm_scale.types import with_leaves

AHEAD = 2  # tasks that a process has at a time: one that it works on, one that waits
ALIGNMENT = 64  # bytes: a cache line, as torch's own allocator
PATIENCE = 2.0  # seconds between looks whether the parent is alive

# Samples of a batch, maker of its large tensors -> dataclass of tensors.
Make = Callable[[Sequence[int], Empty], Any]


class SharedBuffer:
    """Memory shared by a process and its children, which each of them may enlarge."""

    def __init__(self) -> None:
        # No name in /dev/shm: the memory goes with its last holder, whoever is killed when.
        self._file = os.memfd_create("batch", os.MFD_CLOEXEC)
        os.ftruncate(self._file, mmap.PAGESIZE)
        self._map: mmap.mmap | None = None

    def map(self, size: int = 0) -> mmap.mmap:
        """Map all of the memory, enlarged to at least so many bytes; what it held stays."""
        present = os.fstat(self._file).st_size
        if present < size:
            present = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            os.ftruncate(self._file, present)
        if self._map is None or len(self._map) < present:
            # MAP_POPULATE: all pages in one go, instead of a fault for each.
            self._map = mmap.mmap(self._file, present, mmap.MAP_SHARED | mmap.MAP_POPULATE)
        return self._map

    def close(self) -> None:
        """Give the file back; what is mapped stays until its last tensor goes."""
        os.close(self._file)


@dataclass(frozen=True)
class _Placement:
    """A tensor that lies in the buffer."""

    offset: int
    dtype: str
    shape: tuple[int, ...]


LEAVES = Tensor | np.ndarray | _Placement


class _BufferAllocator:
    """Hands out tensors on a buffer, one behind the other."""

    def __init__(self, buffer: SharedBuffer) -> None:
        self._buffer, self._used, self._offsets = buffer, 0, dict[int, int]()

    def empty(self, count: int, dtype: torch.dtype) -> Tensor:
        """An uninitialised flat tensor on the buffer."""
        size = count * dtype.itemsize
        if not size:
            return new_tensor(0, dtype)
        memory = self._buffer.map(self._used + size)
        tensor = torch.frombuffer(memory, dtype=dtype, count=count, offset=self._used)
        self._offsets[tensor.data_ptr()] = self._used
        self._used += -(-size // ALIGNMENT) * ALIGNMENT
        return tensor

    def pack(self, tensor: Tensor) -> _Placement | np.ndarray:
        """Return what travels for a tensor: its place in the buffer, or itself as an array."""
        if tensor.numel() and tensor.data_ptr() in self._offsets:
            return _Placement(
                self._offsets[tensor.data_ptr()],
                str(tensor.dtype).removeprefix("torch."),
                tuple(tensor.shape),
            )
        return tensor.numpy()


class _WorkerProcess:
    """The parent's side of one process."""

    def __init__(self, make: Make, buffers: int) -> None:
        self._buffers = [SharedBuffer() for _ in range(buffers)]
        self._free = list(range(buffers))
        self._tasks: deque[tuple[int | None, Sequence[int]]] = deque()
        # Forked, a worker shares manifest and memory; spawned, each would load them for itself.
        fork = multiprocessing.get_context("fork")
        self._connection, far_end = fork.Pipe()
        self._process = fork.Process(
            target=_serve, args=(make, self._buffers, far_end, os.getpid()), daemon=True
        )
        self._process.start()
        # Or this process would hold the pipe open, and never read that the worker is gone.
        far_end.close()

    def ask(self, samples: Sequence[int]) -> None:
        """Request a batch; if all buffers are in use it travels through the pipe, slower."""
        # The buffer used last is in the processor's cache.
        task = (self._free.pop() if self._free else None, samples)
        self._tasks.append(task)
        try:
            self._connection.send(task)
        except OSError:
            raise self._died(samples) from None

    def answer(self) -> Any:
        """Wait for the oldest batch asked for.

        Raises:
            ChildProcessError: the process died.
        """
        number, samples = self._tasks.popleft()
        try:
            batch = self._connection.recv()
        except (EOFError, OSError):  # gone, maybe in the middle of an answer
            raise self._died(samples) from None
        if isinstance(batch, Exception):
            self._free.extend([] if number is None else [number])
            raise batch
        if number is None:
            return with_leaves(batch, torch.from_numpy, LEAVES)
        memory = np.frombuffer(self._buffers[number].map(), dtype=np.uint8)
        unpacked = with_leaves(batch, _on(memory), LEAVES)
        # All tensors of the batch are views on `memory`: it dies with the last of them.
        weakref.finalize(memory, self._free.append, number)
        return unpacked

    def _died(self, samples: Sequence[int]) -> ChildProcessError:
        self._process.join()
        return ChildProcessError(
            f"a data process died (exit code {self._process.exitcode}) over the samples"
            f" {list(samples)}; was memory short? execution.workers may be lowered"
        )

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        # SIGKILL: workers ignore SIGTERM, and have nothing to save.
        self._process.kill()
        self._process.join()
        self._connection.close()
        for buffer in self._buffers:
            buffer.close()


def _on(memory: np.ndarray) -> Callable[[Any], Tensor]:
    """Make tensors of what travelled: places in the buffer, or arrays."""

    def tensor(value: _Placement | np.ndarray) -> Tensor:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value)
        dtype = np.dtype(value.dtype)
        end = value.offset + int(np.prod(value.shape)) * dtype.itemsize
        return torch.from_numpy(memory[value.offset : end].view(dtype).reshape(value.shape))

    return tensor


def in_processes(
    make: Make, tasks: Iterable[Sequence[int]], *, count: int, kept: int
) -> Iterator[Any]:
    """Yield what `make` gives for every task, in order; processes make it ahead.

    Args:
        make: must survive a fork; the dataclass that it returns may hold tensors, dataclasses of
            tensors and what pickles.
        count: processes. kept: results that the caller holds at a time.
    Raises:
        ValueError, OSError: what `make` met. ChildProcessError: a process died.
    """
    workers = [_WorkerProcess(make, AHEAD + -(-kept // count)) for _ in range(count)]
    requests = 0
    try:
        # In turn, so that the answers come in the order of the tasks.
        for samples in tasks:
            workers[requests % count].ask(samples)
            requests += 1
            if requests >= AHEAD * count:
                yield workers[requests % count].answer()
        for number in range(max(requests - AHEAD * count + 1, 0), requests):
            yield workers[number % count].answer()
    finally:  # also where the caller stops iterating
        for worker in workers:
            worker.stop()


def _serve(
    make: Make, buffers: Sequence[SharedBuffer], connection: Connection, parent: int
) -> None:
    """Make batches until the parent is gone."""
    # A signal to the whole group is for the parent, which stops its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A pool of threads per worker would fight the training for its cores.
    torch.set_num_threads(1)
    while True:
        while not connection.poll(PATIENCE):
            if os.getppid() != parent:
                return
        try:
            number, samples = connection.recv()
            arena = _BufferAllocator(buffers[number]) if number is not None else None
            try:
                batch = make(samples, arena.empty if arena else new_tensor)
            except (ValueError, OSError) as error:
                connection.send(error)
                continue
            connection.send(with_leaves(batch, arena.pack if arena else Tensor.numpy, LEAVES))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
