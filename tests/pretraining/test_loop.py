"""A run leaves one line per step; what must not change the numbers does not."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from helm_scale import commands, config
from helm_scale.config import ModelConfig
from helm_scale.data.loading.dataset import Dataset
from helm_scale.model.weights import load_weights
from helm_scale.pretraining import checkpoint, preflight
from helm_scale.reading.domain import TrainingDomain
from tests import tolerances
from tests.pretraining import launching

LINE = {
    "step", "epoch", "loss", "h_mae_ueh", "h_mae_onsite_ueh", "h_mae_offsite_ueh", "grad_norm",
    "learning_rate", "molecules_per_second", "pairs_per_second", "peak_memory_mb", "keys",
    "seconds_by_rank", "seconds_mean", "seconds_max", "slowest_rank", "ranks",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ragged molecules."""
    return launching.write_dataset(tmp_path_factory.mktemp("data"))


def pretrain(data: Path, run: Path, **changes: Any) -> list[dict[str, Any]]:
    """Train in this process; the lines of metrics.jsonl."""
    launching.pretrain(data, run, **changes)
    return launching.lines(run)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("run")
    pretrain(data, folder, execution__validate_every=4)
    return folder


def test_every_step_has_one_line_with_everything_in_it(run: Path) -> None:
    lines = launching.lines(run)
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert all(set(line) >= LINE for line in lines)
    assert [line["step"] for line in lines if "validation_h_mae_ueh" in line] == [4, 8, 10]
    assert [line["epoch"] for line in lines] == [6 * step // 11 for step in range(10)]
    for line in lines:
        parts = line["h_mae_onsite_ueh"], line["h_mae_offsite_ueh"]
        assert min(parts) <= line["h_mae_ueh"] <= max(parts)


def test_the_run_folder_is_what_others_read(run: Path) -> None:
    assert (
        config.load(config.PretrainConfig, ["--config", str(run / "config.yaml")]).training.steps
        == 10
    )
    assert list((run / "tensorboard").glob("events.*"))
    (folder,) = checkpoint.committed(run)
    model, method = commands.load_model(run)
    assert method == launching.METHOD and isinstance(model.config, ModelConfig)
    assert load_weights(folder / "model.safetensors").keys() == model.state_dict().keys()


def test_a_model_knows_what_it_was_trained_on_and_a_resumed_run_keeps_it(
    data: Path, run: Path, tmp_path: Path
) -> None:
    dataset = Dataset.open(config.DataConfig(path=str(data)))
    wanted = TrainingDomain.of(dataset.read(int(i)) for i in dataset.split("train"))
    assert commands.load_model(run)[0].training_domain == wanted
    # What the checkpoint says is believed while the data are the same, so that nothing is read
    again = Path(shutil.copytree(run, tmp_path / "run"))
    (record_file,) = again.rglob("model.json")
    record = json.loads(record_file.read_text())
    record["training_domain"]["molecules"] = 999
    record_file.write_text(json.dumps(record))
    same = preflight.trained_on(record, dataset, record_file.parent)
    assert same["training_domain"]["molecules"] == 999
    other = {**record, "data": {"manifest_sha256": "of other data"}}
    found = preflight.trained_on(other, dataset, record_file.parent)
    assert found["training_domain"] == wanted.record()


@pytest.mark.parametrize(
    "changes",
    [{"training__micro_batches": 1}, {"training__micro_batches": 6}, {"execution__workers": 2}],
    ids=str,
)
def test_neither_bins_nor_workers_change_the_numbers(
    changes: dict[str, Any], data: Path, run: Path, tmp_path: Path
) -> None:
    for ours, theirs in zip(pretrain(data, tmp_path, **changes), launching.lines(run), strict=True):
        assert ours["keys"] == theirs["keys"]
        assert [ours["loss"], ours["grad_norm"]] == pytest.approx(
            [theirs["loss"], theirs["grad_norm"]], rel=tolerances.ENGINE_PARITY
        )


def test_the_seed_decides_weights_and_order(data: Path, run: Path, tmp_path: Path) -> None:
    again, other = (
        pretrain(data, tmp_path / "again", training__steps=1),
        pretrain(data, tmp_path / "other", training__steps=1, training__seed=1),
    )
    first = launching.lines(run)[0]
    assert (again[0]["loss"], again[0]["keys"]) == (first["loss"], first["keys"])
    assert other[0]["loss"] != first["loss"] and other[0]["keys"] != first["keys"]


def test_clipping_limits_the_step_and_logs_the_norm_before_it(
    data: Path, run: Path, tmp_path: Path
) -> None:
    first = launching.lines(run)[0]
    clipped = pretrain(data, tmp_path, training__clip_norm=first["grad_norm"] / 10)
    assert clipped[0]["grad_norm"] == first["grad_norm"]
    assert clipped[1]["loss"] != launching.lines(run)[1]["loss"]


def test_a_replay_counts_a_sample_as_often_as_its_step_holds_it(data: Path, tmp_path: Path) -> None:
    """Where an epoch ends within a step, the step may hold a sample twice."""
    lines = pretrain(data, tmp_path, training__steps=24, execution__spike_score=1e-6)
    twice = []
    for file in sorted((tmp_path / "replay").iterdir()):
        line = lines[int(file.stem.removeprefix("step-")) - 1]
        table = commands.replay(config.ReplayConfig(file=str(file)))
        (together,) = re.findall(r"together, here: (\S+)", table)
        assert float(together) == pytest.approx(line["loss"], rel=tolerances.ENGINE_PARITY)
        assert [len(re.findall(rf"^\| {key} \|", table, re.M)) for key in line["keys"]] == [
            line["keys"].count(key) for key in line["keys"]
        ]
        twice += [file] if len(set(line["keys"])) < len(line["keys"]) else []
    assert twice, "no doubtful step held a sample twice"


def test_a_dry_run_describes_and_writes_nothing(data: Path, tmp_path: Path) -> None:
    text = launching.pretrain(data, tmp_path / "run", dry_run=True)
    for wanted in (
        "batch_molecules: 6",
        "parameters: ",
        "11 molecules in 'train', 3 in 'validation'",
        "1.8 per epoch",
        "activations",
    ):
        assert wanted in text
    assert not (tmp_path / "run").exists()
