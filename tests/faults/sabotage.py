"""A rank of launch/pretrain.py to which something happens.

sabotage.py '[["stop", 1, 5], ...]' FLAGS

Each item is [what, rank, step]; it happens once, on that rank, in that step, in the first life of
the ranks. What: stop (SIGSTOP), terminate (SIGTERM), fail (an exception), nan (a label), outlier
(labels of the whole step, 1e4 times as large), wrong (one forward pass gives a wrong sum), flip (a
bit of a weight), norm (the gradient norm of this rank alone is NaN), unread (this rank cannot read
a sample, whose number stands in place of the step), flag (a flag of its own, in place of the step),
memory (none is left for this rank's part of the checkpoint of the step).
"""

import json
import os
import runpy
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from helm_scale.data.loading.dataset import Dataset
from helm_scale.parallel import flat_shards
from helm_scale.parallel.engine import Engine
from helm_scale.parallel.snapshot import Snapshot
from helm_scale.types import couple_labels

PLAN: list[list[Any]] = json.loads(sys.argv[1])
_step, _read, _norm = Engine.step, Dataset.read_stored, flat_shards.norm
_write = Snapshot.write


def _sabotaged(engine: Any, micro_batches: list[Any], *rest: Any) -> Any:
    engine.taken = getattr(engine, "taken", 0) + 1
    first_life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    for what, rank, step in PLAN if first_life else []:
        # an outlier comes on all ranks, so that the whole step is one
        if step == engine.taken and (rank == engine.rank or what == "outlier"):
            micro_batches = _do(what, engine, micro_batches)
    return _step(engine, micro_batches, *rest)


def _do(what: str, engine: Any, micro_batches: list[Any]) -> list[Any]:
    first, *others = micro_batches
    if what in ("stop", "terminate"):
        os.kill(os.getpid(), signal.SIGSTOP if what == "stop" else signal.SIGTERM)
    elif what == "fail":
        raise ValueError("shard-000003.tar, key 'mol-7': cannot be read")
    elif what == "nan":
        return [_scaled(first, torch.nan), *others]
    elif what == "outlier":
        return [_scaled(batch, 1e4) for batch in micro_batches]
    elif what == "wrong":
        objective = engine._objective

        class Wrong:
            """Adds to the first sum, then undoes itself."""

            loss = staticmethod(objective.loss)

            def __call__(self, model: Any, batch: Any) -> Any:
                engine._objective = objective
                sums = objective(model, batch)
                return replace(sums, total=sums.total + 1e6)

        engine._objective = Wrong()
    elif what == "norm":

        def not_a_number(*rest: Any) -> torch.Tensor:
            flat_shards.norm = _norm
            return _norm(*rest) * torch.nan

        flat_shards.norm = not_a_number
    elif what == "flip":
        weight = next(iter(engine.trained.values())).local.detach()
        weight.view(torch.int32)[0] ^= 1 << 20
    return micro_batches


def _read_or_not(dataset: Any, index: int, memory: memoryview) -> Any:
    if ["unread", int(os.environ.get("RANK", "0")), index] in PLAN:
        raise ValueError(f"sample {index}: bytes have changed")
    return _read(dataset, index, memory)


def _write_or_not(state: Any, folder: Path) -> Any:
    step = int(folder.parent.stem.removeprefix("step-"))
    if ["memory", int(os.environ.get("RANK", "0")), step] in PLAN:
        raise MemoryError("no 8 GiB left")
    return _write(state, folder)


def _scaled(batch: Any, factor: float) -> Any:
    batch = couple_labels(batch, "cpu")
    return replace(batch, onsite_target=batch.onsite_target * factor)


if __name__ == "__main__":
    Engine.step = _sabotaged  # type: ignore[assignment, method-assign]
    Dataset.read_stored = _read_or_not  # type: ignore[method-assign]
    Snapshot.write = _write_or_not  # type: ignore[method-assign]
    rank = int(os.environ.get("RANK", "0"))
    own = [item[2] for item in PLAN if item[:2] == ["flag", rank]]
    keys = tuple(flag.partition("=")[0] + "=" for flag in own)
    shared = [flag for flag in sys.argv[2:] if not flag.startswith(keys)]
    sys.argv = ["launch/pretrain.py", *shared, *own]
    runpy.run_path(sys.argv[0], run_name="__main__")
