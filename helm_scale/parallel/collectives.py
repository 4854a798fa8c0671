"""Collectives that training needs, reached by all ranks; plain functions in a single process."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum a tensor over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def on_any_rank(flag: bool) -> bool:
    """Whether a flag is set on one rank or more."""
    # A tensor on the CPU goes over gloo, which does not wait for what the GPU has queued.
    return bool(sum_over_ranks(torch.tensor(float(flag))))


def from_rank_zero(rank: int, make: Callable[[], T]) -> T:
    """Run `make` on rank 0 and return its result on every rank.

    Raises:
        OSError, ValueError: whatever of these it raised there, on every rank.
    """
    # Only what a user can cause travels; any other error ends the rank, and the watchdog names it.
    box: list[Any] = [None, None]
    if rank == 0:
        try:
            box[0] = make()
        except (OSError, ValueError) as error:
            box[1] = error
    if dist.is_initialized():
        dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    return box[0]


def gather(value: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """The values of all ranks (of a group), by rank."""
    if not dist.is_initialized():
        return [value]
    # It pickles, which is slow: for what is small and seldom.
    values: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(values, value, group=group)
    return values


def gather_numbers(values: list[float]) -> list[list[float]]:
    """The numbers of all ranks, by rank; on the CPU and cheap enough for every step."""
    if not dist.is_initialized():
        return [values]
    # Tensors, because gather pickles. On the CPU they go over gloo and do not wait for the GPU.
    rows = [torch.empty(len(values), dtype=torch.float64) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, torch.tensor(values, dtype=torch.float64))
    return [row.tolist() for row in rows]


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        dist.barrier()
