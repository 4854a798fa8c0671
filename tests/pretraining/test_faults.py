"""Nothing is lost: killed runs go on bit for bit, and damaged checkpoints are noticed."""

import logging
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helm_scale.pretraining import checkpoint
from tests.pretraining import launching

LATE = {
    "training__steps": 12, "training__ema_decay": 0.9, "execution__checkpoint_every": 3,
    "execution__validate_every": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ragged molecules."""
    return launching.write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with checkpoints at steps 9 and 12."""
    run = tmp_path_factory.mktemp("finished") / "run"
    launching.pretrain(data, run, **LATE)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def kill_when(arguments: list[str], reached: Callable[[], bool]) -> None:
    """Start a launch and SIGKILL all of it as soon as a condition holds."""
    process = launching.start(arguments)
    while not reached():
        assert process.poll() is None, process.communicate()
        time.sleep(0.0005)
    launching.kill(process)
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["muon", "soap"])
def test_two_ranks_killed_twice_equal_the_uninterrupted_run(
    optimizer: str, data: Path, tmp_path: Path
) -> None:
    run, uninterrupted, ranks = tmp_path / "run", tmp_path / "uninterrupted", 2
    changes = {"execution__engine": "fsdp2", "training__optimizer": optimizer, **LATE}
    changes |= {"training__soap_renew_every": 4}
    chance = random.Random(2)
    launching.trained(data, uninterrupted, ranks, **changes)
    step = chance.randint(4, 7)
    kill_when(
        launching.command(data, run, ranks, **changes), lambda: len(launching.lines(run)) >= step
    )
    before = {folder.name for folder in (run / "checkpoints").iterdir()}
    kill_when(
        launching.command(data, run, ranks, **changes),
        lambda: any(folder.name not in before for folder in (run / "checkpoints").glob("*.tmp")),
    )
    assert checkpoint.latest(run) is not None, "the checkpoint before the save is whole"
    assert launching.trained(data, run, ranks, **changes)
    launching.assert_same_to_the_last_bit(run, uninterrupted)


@pytest.mark.slow
def test_four_ranks_of_ddp_resume_to_the_last_bit(data: Path, tmp_path: Path) -> None:
    run, resumed = tmp_path / "run", tmp_path / "resumed"
    changes = {"execution__engine": "ddp", **LATE}
    launching.trained(data, run, ranks=4, **changes)
    shutil.copytree(run, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step-00000012")
    launching.trained(data, resumed, ranks=4, **changes)
    launching.assert_same_to_the_last_bit(resumed, run)


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def tear(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, tear, Path.unlink], ids=["flipped", "torn", "missing"])
@pytest.mark.parametrize(
    "name", ["state/rank-00000-of-00001.safetensors", "model.safetensors", "SHA256SUMS"]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    damage: Callable[[Path], None],
    name: str,
    data: Path,
    finished: Path,
    run: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    damage(run / "checkpoints" / "step-00000012" / name)
    with caplog.at_level(logging.INFO, "helm_scale"):
        launching.pretrain(data, run, **LATE)
    assert any(
        record.levelno == logging.ERROR and name in record.getMessage() for record in caplog.records
    )
    assert f"resumed from {checkpoint.committed(run)[0].name}" in caplog.text
    launching.assert_same_to_the_last_bit(run, finished)


def test_a_checkpoint_without_its_mark_does_not_exist(
    data: Path, finished: Path, run: Path
) -> None:
    (run / "checkpoints" / "step-00000012" / "COMMITTED").unlink()
    assert checkpoint.latest(run) == run / "checkpoints" / "step-00000009"
    launching.pretrain(data, run, **LATE)
    launching.assert_same_to_the_last_bit(run, finished)


def test_a_run_without_any_whole_checkpoint_starts_anew_and_says_so(
    data: Path, finished: Path, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in checkpoint.committed(run):
        flip(folder / "model.safetensors")
    launching.pretrain(data, run, **LATE)
    assert caplog.text.count("model.safetensors: SHA-256 differs") == 2
    launching.assert_same_to_the_last_bit(run, finished)


def test_a_finished_run_says_so_and_changes_nothing(data: Path, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert "finished already (12 of 12 steps)" in launching.pretrain(data, run, **LATE)
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


def test_a_checkpoint_of_another_model_is_refused_by_key(data: Path, run: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"another model or method: model\.channels: run has 4, now 6;"
        r" model\.num_layers: run has 1, now 2\.",
    ):
        launching.pretrain(data, run, model__channels=6, model__num_layers=2, **LATE)


def test_changed_settings_are_refused_by_key_unless_accepted(
    data: Path, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changed = {**LATE, "training__learning_rate": 2e-3, "training__steps": 13}
    with pytest.raises(
        ValueError,
        match=r"settings or data: training\.steps: run has 12, now 13;"
        r" training\.learning_rate: run has 0\.001, now 0\.002",
    ):
        launching.pretrain(data, run, **changed)
    assert "finished, 13 steps" in launching.pretrain(
        data, run, **changed, allow_config_change=True
    )
    assert "training.learning_rate: run has 0.001, now 0.002" in caplog.text


def test_other_data_are_refused_by_their_hash(run: Path, tmp_path: Path) -> None:
    other = launching.write_dataset(tmp_path / "other", seed=8)
    with pytest.raises(
        ValueError, match=r"settings or data: data\.manifest_sha256: run has '\w+', now '\w+'"
    ):
        launching.pretrain(other, run, **LATE)


def test_engines_that_cannot_do_what_is_asked_are_refused_before_the_ranks_meet(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "WORLD_SIZE", "3"
    )  # nobody else is there: a process group would wait for them
    with pytest.raises(ValueError, match=r"execution\.engine: got 'single'.*torchrun started 3"):
        launching.pretrain(data, tmp_path / "run", execution__engine="single")
    for settings, message in (
        (
            {"engine": "fsdp2", "replicas": 2},
            r"execution\.replicas: got 2 with engine 'fsdp2' on 3 ranks",
        ),
        (
            {"engine": "ddp", "cpu_offload": True},
            r"execution\.cpu_offload: got true with engine 'ddp'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            launching.pretrain(
                data,
                tmp_path / "run",
                **{f"execution__{key}": value for key, value in settings.items()},
            )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model__basis": "def2-tzvpd", "model__lmax": 6},
            r"model\.basis: got 'def2-tzvpd', but .* holds 'def2-svp'",
        ),
        ({"model__baseline": "minao"}, r"model\.baseline: got 'minao', but .* holds the H0 'none'"),
        ({"data__train_split": "trian"}, r"no split 'trian'; known: train, validation"),
        (
            {"training__micro_batches": 8},
            r"training\.batch_molecules: got 6, wanted at least training\.micro_batches = 8;"
            r" or set that to auto",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused(
    changes: dict[str, Any], message: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        launching.pretrain(data, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__stepps": 3}, "training.stepps: unknown key; did you mean 'steps'?"),
        ({"data__path": "nowhere"}, "nowhere/manifest.json: not found"),
    ],
)
def test_the_command_line_ends_with_one_clear_line(
    changes: dict[str, Any], message: str, data: Path, tmp_path: Path
) -> None:
    code, out, err = launching.launch(data, tmp_path / "run", **changes)
    assert code in (1, 2) and not out
    assert message in err and len(err.strip().splitlines()) == 1
