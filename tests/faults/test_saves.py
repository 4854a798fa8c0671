"""What goes wrong with a checkpoint on one rank alone costs it, by name, and never the run."""

import json
import math
import re
from pathlib import Path

import pytest
from safetensors import safe_open

from helm_scale.parallel import snapshot
from helm_scale.pretraining import checkpoint
from tests.faults import runs
from tests.faults.test_hostile import reseal
from tests.pretraining import launching


def put_a_nan_into(file: Path) -> None:
    """One element of one weight in the file of a rank, whatever sums say."""
    with safe_open(file, framework="pt") as stored:
        tensors = {name: stored.get_tensor(name).clone() for name in stored.keys()}  # noqa: SIM118
        metadata = stored.metadata()
    name = next(name for name in tensors if name.startswith("weights/"))
    tensors[name].view(-1)[-1] = math.nan
    snapshot.write_tensors(file, tensors, metadata)


@pytest.mark.slow
def test_a_rank_without_memory_costs_a_checkpoint_and_a_nan_on_one_rank_the_newest_one(
    data: Path, unbroken: Path, tmp_path: Path
) -> None:
    settings = {"execution__engine": "fsdp2", "execution__keep_checkpoints": 4}
    code, _, err = runs.sabotaged(data, tmp_path, 2, [("memory", 1, 6)], **settings)
    assert code == 0, err
    assert "step 6 could not be written: rank 1: MemoryError: no 8 GiB left" in err
    steps = [checkpoint.step_of(folder) for folder in checkpoint.committed(tmp_path)]
    assert steps == [3, 9, 12] and not list((tmp_path / "checkpoints").glob("*.tmp"))
    runs.assert_same_within_round_off(tmp_path, unbroken)
    newest = tmp_path / "checkpoints" / "step-00000012"
    put_a_nan_into(newest / "state" / "rank-00001-of-00002.safetensors")
    reseal(newest)
    code, _, err = launching.launch(data, tmp_path, 2, **{**runs.SETTINGS, **settings})
    assert code == 0, err
    assert re.search(r"step-00000012: cannot be loaded \(rank 1: not finite: \S+\)", err)
    assert "resumed from step-00000009" in err
    assert json.loads((newest / "COMMITTED").read_text())["finite"], "written anew"
    assert checkpoint.latest(tmp_path) == newest
    runs.assert_same_within_round_off(tmp_path, unbroken)
