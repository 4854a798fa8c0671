"""Reads what torchrun started, refuses what cannot run, and joins the process group."""

import contextlib
import datetime
import os
import time
from collections.abc import Iterator

import torch
import torch.distributed as dist

from helm_scale.config import ExecutionConfig
from helm_scale.parallel import rendezvous, strategies
from helm_scale.parallel.processes import Processes
from helm_scale.parallel.watchdog import Watchdog

# gloo's threads drop their last tensors a moment after a collective, which aborts an interpreter
# that is ending.
_SETTLE_SECONDS = 0.25


def launched_world_size() -> int:
    """Number of ranks that torchrun started; 1 under plain python."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_per_node() -> int:
    """Number of ranks that torchrun started on this node; 1 under plain python."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def device_memory(execution: ExecutionConfig, ranks_per_node: int) -> int:
    """Bytes of memory of a rank's device: of its GPU, or its share of the node's memory."""
    if execution.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // ranks_per_node


def launched_rank() -> int:
    """Rank that torchrun gave this process; 0 under plain python."""
    return int(os.environ.get("RANK", "0"))


def requeue_code() -> int:
    """Exit code of a run that was asked to stop.

    75, or 0 under torchrun, which would start any other anew at once.
    """
    return 0 if "TORCHELASTIC_RUN_ID" in os.environ else 75


def check_launch(execution: ExecutionConfig) -> None:
    """Refuse what cannot start, before any process group does.

    Raises:
        ValueError: the engine cannot do what the settings ask of it, ranks do not divide, or there
            is no GPU where one is asked for.
    """
    engine, ranks = strategies.spec_of(execution.engine), launched_world_size()
    if ranks > 1 and not engine.distributed:
        raise ValueError(
            f"execution.engine: got '{execution.engine}', which runs in one process, but torchrun"
            f" started {ranks}; wanted {strategies.names_with('distributed')}"
        )
    if execution.replicas > 1 and (not engine.replicates or ranks % execution.replicas):
        raise ValueError(
            f"execution.replicas: got {execution.replicas} with engine '{execution.engine}' on"
            f" {ranks} ranks; wanted {strategies.names_with('replicates')} and a divisor of the"
            " number of ranks"
        )
    if ranks % execution.sharing:
        raise ValueError(
            f"execution.pair_ranks: got {execution.pair_ranks} on {ranks} ranks; wanted a divisor"
            " of the number of ranks"
        )
    if execution.cpu_offload:
        require(execution, "offloads", "execution.cpu_offload: got true")
    if execution.compile:
        require(execution, "compiles", "execution.compile: got true")
    if execution.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("execution.device: got 'cuda', but torch sees no GPU; wanted cpu or auto")


def require(execution: ExecutionConfig, capability: str, setting: str) -> None:
    """Raise ValueError unless the engine has a capability.

    Args:
        capability: field of EngineSpec.
        setting: what asks for it: key and value, as the message begins.
    """
    if not getattr(strategies.spec_of(execution.engine), capability):
        raise ValueError(
            f"{setting} with engine '{execution.engine}', which cannot;"
            f" wanted {strategies.names_with(capability)}"
        )


@contextlib.contextmanager
def process_group(
    execution: ExecutionConfig, watchdog: Watchdog | None = None
) -> Iterator[Processes]:
    """Join the process group (gloo, and NCCL on GPUs); leave it at the end.

    An engine for one process has no group; the others have one of their own under plain python.

    Args:
        watchdog: runs already, and is told who the other ranks are; none: nobody watches.
    Raises:
        ValueError: see check_launch.
    """
    check_launch(execution)
    if execution.threads:
        torch.set_num_threads(execution.threads)
    device = _device(execution)
    if not strategies.spec_of(execution.engine).distributed:
        yield Processes(device=device)
        return
    # The watchdog ends a stuck process long before this does.
    timeout = datetime.timedelta(seconds=2 * execution.start_timeout_seconds)
    # gloo beside NCCL: votes and checksums are CPU tensors, which NCCL cannot send.
    watchdog = watchdog or Watchdog(execution)
    store, rank, world_size = rendezvous.meet(timeout, watchdog)
    watchdog.join(store, rank, world_size)
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=world_size)
    pair_ranks = execution.sharing
    yield Processes(
        rank=rank,
        world_size=world_size,
        device=device,
        store=dist.PrefixStore("helm_scale", store),
        pair_world_size=pair_ranks,
        pair_group=dist.new_subgroups(pair_ranks)[0] if pair_ranks > 1 else None,
    )
    dist.destroy_process_group()  # not after an error: it would wait for ranks that are gone
    time.sleep(_SETTLE_SECONDS)


def _device(execution: ExecutionConfig) -> torch.device:
    if execution.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)  # NCCL and allocations without a device go to the current one
    return device
