"""Parallel processes: every job once, drawn as needed, one thread each, errors and all."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helm_scale.dft.processes import run_parallel


def _threads(job: int) -> tuple[int, str]:
    if job == 13:
        raise ValueError("job 13 is unlucky")
    if job == 14:
        os._exit(1)  # as the system does to a process that takes too much memory
    return os.getpid(), os.environ["OMP_NUM_THREADS"]


def test_every_job_comes_back_once_from_single_threaded_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    drawn = []

    def stream() -> Iterator[int]:
        for job in range(9):
            drawn.append(job)
            yield job

    found, ahead = {}, []
    for number, answer in run_parallel(_threads, stream(), processes=2, total=9, label="test"):
        found[number] = answer
        ahead.append(len(drawn) - len(found))
    assert sorted(found) == list(range(9))
    assert {threads for _, threads in found.values()} == {"1"}
    assert os.getpid() not in {process for process, _ in found.values()}
    assert max(ahead) <= 4  # two per process: matrices of a long stream are never all in memory
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_an_error_in_a_process_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="job 13 is unlucky"):
        list(run_parallel(_threads, [1, 13], processes=1, total=2, label="test"))


def _die_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        os._exit(1)
    return marker.name


def test_what_a_dead_process_had_in_hand_is_done_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alive = [tmp_path / f"alive-{number}" for number in range(6)]
    for marker in alive:
        marker.touch()
    jobs = [*alive[:3], tmp_path / "dies", *alive[3:]]
    found = list(run_parallel(_die_once, jobs, processes=2, total=7, label="test"))
    assert sorted(found) == list(enumerate(job.name for job in jobs))
    assert "died" in caplog.text and "with 1 at once" in caplog.text


def test_a_process_that_dies_alone_is_reported_with_a_remedy() -> None:
    with pytest.raises(ChildProcessError, match=r"a PySCF process died, and no other ran beside"):
        list(run_parallel(_threads, [1, 2, 14], processes=2, total=3, label="test"))
