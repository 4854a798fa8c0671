"""Lines and curves of a run: each step once, whatever the disk, and cheap for a long run."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from helm_scale.pretraining import metrics
from helm_scale.pretraining.appended_file import AppendedFile


@contextmanager
def full_beyond(size: int) -> Iterator[None]:
    """Inside, the system lets no file of this process grow beyond a size, in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def steps_in(run: Path) -> list[int]:
    """Steps of all lines of a run, in order."""
    texts = [path.read_text() for path in sorted(run.glob("metrics*.jsonl"))]
    return [json.loads(line)["step"] for text in texts for line in text.splitlines()]


def points(folder: Path, tag: str) -> dict[int, float]:
    """A curve of the event files, by step."""
    return {
        event.step: value.tensor.float_val[0]
        for path in sorted(folder.iterdir())
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == tag
    }


def test_records_wait_while_there_is_no_room_and_none_is_torn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records"
    file = AppendedFile(path)
    with full_beyond(50):  # two records and a half
        for number in range(5):
            file.append(b"%019d\n" % number)
            file.flush()
        assert path.read_bytes() == b"%019d\n%019d\n" % (0, 1)
        assert caplog.text.count("could not be written: [Errno 27]") == 1
    file.append(b"%019d\n" % 5)
    file.close()
    assert [int(line) for line in path.read_text().splitlines()] == list(range(6))
    assert caplog.text.count("is written again") == 1


def test_a_full_disk_costs_no_line_and_no_point(tmp_path: Path) -> None:
    lines, board = metrics.MetricsFile(tmp_path, 0), metrics.Board(tmp_path / "board", first=1)
    for step in range(1, 30):
        with full_beyond(100 if 10 <= step < 20 else resource.RLIM_INFINITY):
            lines.write({"step": step, "loss": step / 8})
            board.add(step, {"loss": step / 8})
            lines.flush()
    lines.close()
    board.close()
    assert steps_in(tmp_path) == list(range(1, 30))
    assert points(tmp_path / "board", "loss") == {step: step / 8 for step in range(1, 30)}


@pytest.mark.parametrize("done", [0, 1, 7, 35, 39, 40, 50])
def test_a_resumed_run_keeps_the_lines_up_to_its_checkpoint_and_files_stay_small(
    done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "LARGE", 200)
    monkeypatch.setattr(metrics, "_BLOCK", 64)  # so that lines lie across blocks
    lines = metrics.MetricsFile(tmp_path, 0)
    for step in range(1, 41):
        lines.write({"step": step, "text": "x" * (step % 23)})
    lines.close()
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 260
    assert len(list(tmp_path.glob(metrics.PARTS))) > 5
    with (tmp_path / metrics.NAME).open("a") as file:
        file.write('{"step": 41, "te')  # torn by a kill
    metrics.keep_steps(tmp_path, done)
    assert steps_in(tmp_path) == list(range(1, min(done, 40) + 1))
    again = metrics.MetricsFile(tmp_path, done)
    again.write({"step": done + 1})
    again.close()
    assert steps_in(tmp_path)[-1] == done + 1


def test_resuming_reads_only_the_end(tmp_path: Path) -> None:
    start = b"not JSON, so that to read it would fail\n" * 100_000
    (tmp_path / metrics.NAME).write_bytes(start + b'{"step": 7}\n{"step": 8}\n')
    metrics.keep_steps(tmp_path, 7)
    assert (tmp_path / metrics.NAME).read_bytes() == start + b'{"step": 7}\n'
