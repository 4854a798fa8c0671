"""Ranks and devices: what torchrun says, and the process group that follows from it."""

import contextlib
import datetime
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from helm_scale.config import ExecutionConfig


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        rank, world_size, device: its own. store: what the ranks share, if there are several.
        pair_world_size: ranks that share the same molecules, rank by rank. pair_group: those of
            this rank.
    """

    rank: int
    world_size: int
    device: torch.device
    store: dist.Store | None = None
    pair_world_size: int = 1
    pair_group: dist.ProcessGroup | None = None

    @property
    def pair_rank(self) -> int:
        """Which part of its molecules this rank works on."""
        return self.rank % self.pair_world_size

    @property
    def data_rank(self) -> int:
        """Number of this rank's molecules among data_size."""
        return self.rank // self.pair_world_size

    @property
    def data_size(self) -> int:
        """Ranks, or groups of them, that hold different molecules."""
        return self.world_size // self.pair_world_size


def launched_world_size() -> int:
    """Number of ranks that torchrun started; 1 under plain python."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_rank() -> int:
    """Rank that torchrun gave this process; 0 under plain python."""
    return int(os.environ.get("RANK", "0"))


def requeue_code() -> int:
    """Exit code of a run that was asked to stop: 75, or 0 under torchrun, which would start any
    other anew at once."""
    return 0 if "TORCHELASTIC_RUN_ID" in os.environ else 75


def check_launch(execution: ExecutionConfig) -> None:
    """Refuse what cannot start, before any process group does.

    Raises:
        ValueError: engine 'single' under several ranks, replicas that do not divide the ranks, or
            no GPU where one is asked for.
    """
    if execution.engine == "single" and launched_world_size() > 1:
        raise ValueError(
            f"execution.engine: got 'single', which runs in one process, but torchrun started {launched_world_size()}; wanted another"
        )
    if execution.replicas > 1 and (
        execution.engine != "fsdp2" or launched_world_size() % execution.replicas
    ):
        raise ValueError(
            f"execution.replicas: got {execution.replicas} with engine '{execution.engine}' on {launched_world_size()} ranks;"
            " wanted engine fsdp2 and a divisor of the number of ranks"
        )
    if launched_world_size() % execution.pair_ranks:
        raise ValueError(
            f"execution.pair_ranks: got {execution.pair_ranks} on {launched_world_size()} ranks; wanted a divisor of the number of ranks"
        )
    if execution.cpu_offload and execution.engine in ("single", "ddp"):
        raise ValueError(
            f"execution.cpu_offload: got true with engine '{execution.engine}'; wanted fsdp2 or zero1, zero2, zero3"
        )
    if execution.engine == "zero3" and execution.compile:
        raise ValueError(
            "execution.compile: got true with engine 'zero3', whose hooks cannot be compiled; wanted false, or another engine"
        )
    if execution.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("execution.device: got 'cuda', but torch sees no GPU; wanted cpu or auto")


_SETTLE = 0.25  # seconds: gloo's threads drop their last tensors a moment after a collective, which aborts an interpreter that is ending


@contextlib.contextmanager
def processes(execution: ExecutionConfig) -> Iterator[Processes]:
    """Join the process group (gloo, and NCCL on GPUs); leave it at the end.

    Engine 'single' has no group; the others have one of their own under plain python.

    Raises:
        ValueError: see check_launch.
    """
    check_launch(execution)
    if execution.threads:
        torch.set_num_threads(execution.threads)
    device = _device(execution)
    if execution.engine == "single":
        yield Processes(0, 1, device)
        return
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    timeout = datetime.timedelta(
        seconds=2 * execution.start_timeout_seconds
    )  # the watch ends a stuck process long before
    if "RANK" in os.environ:
        store, rank, world_size = next(dist.rendezvous("env://", timeout=timeout))
        store = dist.PrefixStore(f"life-{_life()}", store)
    else:
        store, rank, world_size = dist.HashStore(), 0, 1
    dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=world_size)
    pair_ranks = execution.pair_ranks
    group = dist.new_subgroups(pair_ranks)[0] if pair_ranks > 1 else None
    yield Processes(
        rank, world_size, device, dist.PrefixStore("helm_scale", store), pair_ranks, group
    )
    dist.destroy_process_group()  # not after an error: it would wait for ranks that are gone
    time.sleep(_SETTLE)


def _life() -> str:
    """What tells this start of the ranks from earlier ones in torchrun's store, which outlives them
    with their old addresses.

    Between nodes the count of restarts differs, so there it cannot serve.
    """
    return (
        os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        if os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
        else "any"
    )


def _device(execution: ExecutionConfig) -> torch.device:
    if execution.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
