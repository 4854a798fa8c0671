"""Checkpoints that are not finite or cannot be loaded, and writers that fail."""

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helm_scale.files import Written
from helm_scale.model.weights import load_weights
from helm_scale.parallel import snapshot
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.pretraining import checkpoint, saver
from helm_scale.pretraining.loop import REQUEUE
from tests.faults.test_hostile import reseal
from tests.pretraining import launching

SETTINGS: dict[str, Any] = {"execution__checkpoint_every": 2, "training__steps": 6}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ragged molecules."""
    return launching.write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps, whose last checkpoints are those of steps 4 and 6."""
    run = tmp_path_factory.mktemp("finished") / "run"
    launching.pretrain(data, run, **SETTINGS)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy, which may be damaged."""
    yield Path(shutil.copytree(finished, tmp_path / "run"))


def replace_weights(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write other weights, and sums that hold."""
    copies = {name: tensor.clone() for name, tensor in weights.items()}  # these are mapped
    (folder / "model.safetensors").unlink()
    snapshot.write_tensors(folder / "model.safetensors", copies, {})
    reseal(folder)


def with_nan(folder: Path) -> None:
    """Put a NaN into the weights of a checkpoint whose sums and mark say that all is well."""
    weights = load_weights(folder / "model.safetensors")
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name] = torch.full_like(weights[name], math.nan)
    replace_weights(folder, weights)


def without_a_tensor(folder: Path) -> None:
    """Leave a weight out of a checkpoint whose sums hold."""
    weights = load_weights(folder / "model.safetensors")
    weights.pop(next(iter(weights)))
    replace_weights(folder, weights)


@pytest.mark.parametrize(
    ("spoil", "said"), [(with_nan, "not finite: "), (without_a_tensor, "has shape None, wanted")]
)
def test_a_checkpoint_that_cannot_be_used_is_named_and_the_one_before_loaded(
    spoil: Callable[[Path], None],
    said: str,
    data: Path,
    finished: Path,
    run: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spoil(run / "checkpoints" / "step-00000006")
    with caplog.at_level(logging.INFO, "helm_scale"):
        launching.pretrain(data, run, **SETTINGS)
    (line,) = [r.getMessage() for r in caplog.records if "cannot be loaded" in r.getMessage()]
    assert "step-00000006: cannot be loaded" in line and said in line
    assert "resumed from step-00000004" in caplog.text
    launching.assert_same_to_the_last_bit(run, finished, steps=6)


def test_weights_that_are_not_finite_are_never_saved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [[], [], ["trunk.embedding.weight"]]
    monkeypatch.setattr("helm_scale.parallel.engine.Engine.not_finite", lambda _: found.pop(0))
    with pytest.raises(FloatingPointError, match=r"step 6: weights are not finite.*trunk\.embed"):
        launching.pretrain(data, tmp_path, **SETTINGS)
    assert [checkpoint.step_of(f) for f in checkpoint.committed(tmp_path)] == [2, 4]


def test_a_nan_in_a_row_that_is_never_used_is_found() -> None:
    from helm_scale.parallel import flat_shards

    used, unused = torch.ones(6), torch.ones(6)
    unused[4] = math.nan
    shards = {
        name: FlatShard(local=tensor, shape=(6,))
        for name, tensor in {"a": used, "b": unused, "n": torch.arange(3), "e": used[:0]}.items()
    }
    assert flat_shards.not_finite(shards) == ["b"]


def test_a_writer_without_memory_costs_a_checkpoint_and_not_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write, calls = snapshot.write_tensors, list[Path]()

    def short_of_memory(path: Path, *rest: Any) -> Written:
        calls.append(path)
        if "step-00000004" in str(path):
            raise MemoryError("no 8 GiB left")
        return write(path, *rest)

    monkeypatch.setattr(snapshot, "write_tensors", short_of_memory)
    assert "finished, 6 steps" in launching.pretrain(data, tmp_path, **SETTINGS)
    assert "step 4 could not be written: rank 0: MemoryError: no 8 GiB left" in caplog.text
    assert [checkpoint.step_of(f) for f in checkpoint.committed(tmp_path)] == [2, 6]


def test_a_checkpoint_is_sealed_while_the_next_step_runs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, sealed = saver.Saver.start, list[bool]()

    def then_wait(self: saver.Saver, *rest: Any) -> None:
        start(self, *rest)
        self._thread.join()  # no call of the loop comes in between
        sealed.append(checkpoint.latest(tmp_path) is not None)

    monkeypatch.setattr(saver.Saver, "start", then_wait)
    launching.pretrain(data, tmp_path, **SETTINGS)
    assert sealed == [True, True, True]


def test_spikes_and_skipped_steps_are_remembered_and_a_finished_run_asks_for_no_more(
    data: Path, run: Path
) -> None:
    folder = run / "checkpoints" / "step-00000006"
    remembered = json.loads((folder / "guards.json").read_text())
    losses = [line["loss"] for line in launching.lines(run)]
    assert remembered["losses"] == pytest.approx(losses) and remembered["skipped"] == 0
    (run / REQUEUE).write_text("step 6: SIGTERM on rank 0\n")
    assert "finished already" in launching.pretrain(data, run, **SETTINGS)
    assert not (run / REQUEUE).exists()
    (folder / "guards.json").write_text(json.dumps({**remembered, "skipped": 2}))
    reseal(folder)
    more = {**SETTINGS, "training__steps": 8}
    launching.pretrain(data, run, **more, allow_config_change=True)
    later = json.loads((run / "checkpoints" / "step-00000008" / "guards.json").read_text())
    assert later["skipped"] == 2 and len(later["losses"]) == 8
