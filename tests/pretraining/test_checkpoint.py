"""The commit protocol on folders alone: what is kept, what is deleted, what differs."""

import math
import threading
from pathlib import Path

import pytest

from helm_scale.files import Written, write_synced
from helm_scale.pretraining import checkpoint


def save(run: Path, step: int, finite: bool = True, loss: float | None = None) -> Path:
    """Commit a checkpoint of one small file in a subfolder."""
    folder = checkpoint.begin(run, step)
    (folder / "state").mkdir()
    files = {"state/weights": write_synced(folder / "state" / "weights", f"{step:0100d}")}
    return checkpoint.commit(folder, files, finite=finite, validation_loss=loss)


def steps(run: Path) -> list[int]:
    """Steps of the committed checkpoints."""
    return [checkpoint.step_of(folder) for folder in checkpoint.committed(run)]


def test_a_committed_checkpoint_verifies_and_the_newest_is_the_latest(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    save(tmp_path, 9), save(tmp_path, 10)
    assert checkpoint.damage(tmp_path / "checkpoints" / "step-00000009") == []
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoints" / "step-00000010"


def test_a_folder_that_was_never_committed_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (checkpoint.begin(tmp_path, 2) / "half").write_text("half")
    assert steps(tmp_path) == [1]
    checkpoint.purge(tmp_path, 2)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, step)
    checkpoint.purge(tmp_path, 2)
    assert steps(tmp_path) == [4, 5]


def test_the_last_finite_checkpoint_is_never_deleted(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, step, finite=step < 3)
    checkpoint.purge(tmp_path, 2)
    assert steps(tmp_path) == [2, 4, 5]


def test_the_last_checkpoint_that_verifies_is_never_deleted(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, step)
    for step in (3, 4, 5):
        (tmp_path / "checkpoints" / f"step-{step:08d}" / "state" / "weights").write_text("torn")
    checkpoint.purge(tmp_path, 2)
    assert steps(tmp_path) == [2, 4, 5]
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoints" / "step-00000002"


def test_a_checkpoint_that_is_not_finite_is_never_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finite = save(tmp_path, 1)
    save(tmp_path, 2, finite=False)
    assert checkpoint.latest(tmp_path) == finite
    assert "step-00000002: not taken (its weights are not finite)" in caplog.text
    assert checkpoint.latest(tmp_path, before=finite) is None


def test_the_best_checkpoint_is_kept_and_a_first_loss_that_is_nan_is_not_the_best(
    tmp_path: Path,
) -> None:
    for step, loss in enumerate((math.nan, 0.3, 0.1, 0.2, None, 0.4), start=1):
        save(tmp_path, step, loss=loss)
        checkpoint.purge(tmp_path, 2)
    assert steps(tmp_path) == [3, 5, 6]


def test_a_file_that_another_rank_wrote_elsewhere_or_in_part_is_missed_before_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "ARRIVAL_SECONDS", 0.0)
    folder = checkpoint.begin(tmp_path, 1)
    (folder / "state").mkdir()
    (folder / "state" / "half").write_text("half")
    files = {"state/rank-00001-of-00002.safetensors": Written("0" * 64, 7)}
    files |= {"state/half": Written("0" * 64, 8)}
    with pytest.raises(FileNotFoundError, match=r"state/half, state/rank-00001.*all nodes share"):
        checkpoint.commit(folder, files, finite=True)
    assert steps(tmp_path) == []


def test_a_file_that_arrives_late_is_waited_for(tmp_path: Path) -> None:
    folder = checkpoint.begin(tmp_path, 1)
    late = threading.Timer(0.3, lambda: (folder / "late").write_text("whole"))
    late.start()
    checkpoint.commit(folder, {"late": Written("0" * 64, 5)}, finite=True)
    assert steps(tmp_path) == [1]


def test_the_newest_checkpoint_is_known_where_the_listing_of_the_folder_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1), save(tmp_path, 2)
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter(()))
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoints" / "step-00000002"


def test_nothing_is_deleted_where_nothing_is_whole(tmp_path: Path) -> None:
    for step in range(1, 5):
        save(tmp_path, step, finite=False)
    checkpoint.purge(tmp_path, 2)
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_a_file_that_came_after_the_commit_does_not_matter_but_a_changed_list_does(
    tmp_path: Path,
) -> None:
    folder = save(tmp_path, 1)
    (folder / "notes").write_text("mine")
    assert checkpoint.damage(folder) == []
    (folder / "SHA256SUMS").write_text("")
    assert checkpoint.damage(folder) == ["SHA256SUMS: SHA-256 differs from the one in COMMITTED"]


def test_a_step_that_is_saved_again_replaces_the_damaged_one(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    (folder / "state" / "weights").write_text("torn")
    assert save(tmp_path, 1) == folder and checkpoint.damage(folder) == []


@pytest.mark.parametrize("name", ["COMMITTED", "SHA256SUMS"])
def test_an_unreadable_mark_is_a_fault(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, 1)
    (folder / name).write_bytes(b"\xff\xfe")
    assert len(checkpoint.damage(folder)) == 1


def test_differences_name_nested_keys_with_both_values() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": {"f": None, "g": 5}}
    assert checkpoint.differences(old, new) == ["a.c: run has 2, now 4", "e.g: run has None, now 5"]
