"""Sharded state on disk through torch.distributed.checkpoint: saved on any number of ranks, loaded on any other.

Every rank writes what it holds; tensors are found by name and cut anew at loading. Whether the files are whole is for
the caller to check first: a flipped bit loads without an error.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim import Optimizer


def save(folder: Path, model: nn.Module, optimizers: Sequence[Optimizer], extra: Mapping[str, Tensor]) -> None:
    """Write weights, optimiser states, this rank's random state and extra tensors into a folder, synced to disk."""
    with _quiet():
        dcp.save(_state(model, optimizers, extra) | {"random": {_rank_name(): _random_state()}}, checkpoint_id=folder)


def load(folder: Path, model: nn.Module, optimizers: Sequence[Optimizer], extra: Mapping[str, Tensor]) -> None:
    """Read what `save` wrote; extra tensors are filled in place.

    Options of the optimisers (rates, decay) stay as built. Random states belong to ranks: a rank that did not exist at
    saving keeps its own.
    """
    options = [[{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups] for optimizer in optimizers]
    with _quiet():
        state = _state(model, optimizers, extra)
        random_state = _random_state()
        if f"random.{_rank_name()}" in dcp.FileSystemReader(folder).read_metadata().state_dict_metadata:
            state["random"] = {_rank_name(): random_state}
        dcp.load(state, checkpoint_id=folder)
        set_state_dict(model, list(optimizers), model_state_dict=state["model"], optim_state_dict=state["optimizers"])
    for optimizer, groups in zip(optimizers, options, strict=True):
        for group, built in zip(optimizer.param_groups, groups, strict=True):
            group.update(built)
    torch.set_rng_state(random_state)


def _state(model: nn.Module, optimizers: Sequence[Optimizer], extra: Mapping[str, Tensor]) -> dict[str, Any]:
    weights, states = get_state_dict(model, list(optimizers))
    return {"model": weights, "optimizers": states, "extra": dict(extra)}


def _random_state() -> Tensor:
    return torch.get_rng_state()


def _rank_name() -> str:
    return f"rank{dist.get_rank() if dist.is_initialized() else 0}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without process group, torch warns that it works in one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
