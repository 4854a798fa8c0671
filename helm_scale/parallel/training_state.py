"""Saves and restores what a checkpoint holds of one rank: weights, optimiser and random states.

Tensors are named weights/NAME, average/NAME, OPTIMIZER/KEY/NAME (OPTIMIZER is the optimiser's class
in lower case) and random/DEVICE/rankR: these names are part of the format of checkpoints.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from helm_scale.parallel import flat_shards, snapshot
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.processes import Processes
from helm_scale.parallel.strategies.spec import ParallelModel

_log = logging.getLogger(__name__)


class TrainingState:
    """Saves and restores what one rank holds.

    Args:
        trained: shards that the optimisers step on, by name.
    """

    def __init__(
        self,
        model: ParallelModel,
        processes: Processes,
        *,
        trained: Mapping[str, FlatShard],
        optimizers: Sequence[Optimizer],
    ) -> None:
        self._model, self._rank, self._world_size = model, processes.rank, processes.world_size
        self._optimizers = {
            type(optimizer).__name__.lower(): (optimizer, _shards_of(optimizer, trained))
            for optimizer in optimizers
        }

    def capture(self, with_weights: bool) -> snapshot.Snapshot:
        """Copy optimiser states, random states and, if asked for, weights to the CPU."""
        state: dict[str, FlatShard] = {}
        if with_weights:
            state |= {f"weights/{name}": shard for name, shard in self._model.shards.items()}
        for prefix, (optimizer, shards) in self._optimizers.items():
            for name, shard in shards.items():
                for key, value in optimizer.state.get(shard.local, {}).items():
                    state[f"{prefix}/{key}/{name}"] = self._optimizer_shard(value, shard)
        for device, numbers in _random_states().items():
            name = f"random/{device}/rank{self._rank}"
            state[name] = flat_shards.from_replicated(numbers)
        return snapshot.capture(state, self._rank, self._world_size)

    def load(self, folder: Path, averages: Mapping[str, FlatShard]) -> None:
        """Fill weights, optimisers, random states and averages from a checkpoint.

        Args:
            folder: holds state/ and model.safetensors: the averages if state/ has the weights, else
                the weights.
        Raises:
            ValueError: a file or a tensor is missing or does not fit.
        """
        reader = snapshot.StateReader(folder / "state")
        # Every number is stored once: whole weights are in state/ only if the file has averages.
        averaged = reader.has("weights/")
        reader.add_file(folder / "model.safetensors", "average/" if averaged else "weights/")
        for name, shard in self._model.shards.items():
            reader.fill(f"weights/{name}", shard)
        self._model.sync_parameters()
        for name, shard in averages.items():
            reader.fill(f"average/{name}" if averaged else f"weights/{name}", shard)
        if averages and not averaged:
            _log.warning("%s: has no averaged weights; the average starts from the weights", folder)
        for prefix in self._optimizers:
            self._load_optimizer(prefix, reader)
        self._load_random_states(reader)

    def _load_optimizer(self, prefix: str, reader: snapshot.StateReader) -> None:
        """Fill an optimiser's states; its options (rates, decay) stay as built."""
        optimizer, shards = self._optimizers[prefix]
        if not reader.has(f"{prefix}/"):
            _log.warning("the checkpoint has no states of %s, which starts afresh", prefix)
        stored: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)  # name -> key -> shape
        for path, shape in reader.shapes.items():
            of_optimizer, _, rest = path.partition("/")
            key, _, name = rest.partition("/")
            if of_optimizer == prefix and name in shards:
                stored[name][key] = shape
        for name, shapes in stored.items():
            local = shards[name].local
            # AdamW and Muon make their states at the first step, from the shard; SOAP has them.
            if local not in optimizer.state:
                optimizer.state[local] = {
                    key: local.new_zeros(()) if shape == () else torch.zeros_like(local.detach())
                    for key, shape in shapes.items()
                }
            for key, value in optimizer.state[local].items():
                reader.fill(f"{prefix}/{key}/{name}", self._optimizer_shard(value, shards[name]))

    def _load_random_states(self, reader: snapshot.StateReader) -> None:
        for device, numbers in _random_states().items():
            name = f"random/{device}/rank{self._rank}"
            if name not in reader.shapes:
                continue  # a rank that did not exist at saving keeps its own
            reader.fill(name, flat_shards.from_replicated(numbers))
            if device == "cpu":
                torch.set_rng_state(numbers)
            else:
                torch.cuda.set_rng_state(numbers)

    def _optimizer_shard(self, value: Tensor, shard: FlatShard) -> FlatShard:
        """A state: a number, of all ranks; or cut as the shard; or whole, on one rank alone."""
        if value.ndim == 0:
            return flat_shards.from_replicated(value, self._rank, self._world_size)
        if value.ndim == 1:
            return shard.like(value)
        return replace(shard, local=value.view(-1), shape=tuple(value.shape), start=0)


def _shards_of(optimizer: Optimizer, trained: Mapping[str, FlatShard]) -> dict[str, FlatShard]:
    """The shards that an optimiser steps on."""
    stepped = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
    return {name: shard for name, shard in trained.items() if id(shard.local) in stepped}


def _random_states() -> dict[str, Tensor]:
    """A copy of the state of every random generator in use, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states
