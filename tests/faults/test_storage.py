"""Disks that are full or cannot be written cost a checkpoint and a loud line, not the run."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helm_scale.parallel import collectives
from helm_scale.pretraining import checkpoint
from tests.faults import runs
from tests.pretraining import launching
from tests.pretraining.test_metrics import points

PRIVATE = ["unshare", "--user", "--map-root-user", "--mount"]
MOUNTS = (
    shutil.which("unshare") is not None
    and subprocess.run([*PRIVATE, "true"], capture_output=True).returncode == 0
)


def in_private_mounts(script: str) -> "subprocess.CompletedProcess[str]":
    """Run a shell script whose mounts nobody else sees."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(launching.ROOT)}
    return subprocess.run(
        [*PRIVATE, "bash", "-c", script],
        cwd=launching.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
@pytest.mark.skipif(not MOUNTS, reason="mounting is not permitted here")
def test_a_full_disk_costs_checkpoints_but_neither_the_run_nor_what_was_saved(
    data: Path, unbroken: Path, tmp_path: Path
) -> None:
    run, saved = tmp_path / "run", tmp_path / "saved"
    (run / "checkpoints").mkdir(parents=True)
    one = sum(
        path.stat().st_size
        for path in checkpoint.committed(unbroken)[-1].rglob("*")
        if path.is_file()
    )
    python = shlex.join(
        [sys.executable, "launch/pretrain.py", *launching.flags(data, run, **runs.SETTINGS)]
    )
    done = in_private_mounts(
        f"mount -t tmpfs -o size={int(1.6 * one)} tmpfs {run}/checkpoints && {python}; code=$?;"
        f" cp -r {run}/checkpoints {saved}; exit $code"
    )
    assert done.returncode == 1
    assert (
        done.stderr.count("could not be written: rank 0: [Errno 28] No space left on device") >= 3
    )
    assert done.stderr.strip().endswith(
        "The last one is step-00000003; make room or name another disk"
    )
    assert [line["step"] for line in launching.lines(run)] == list(range(1, runs.STEPS + 1)), (
        "training went on"
    )
    shutil.copytree(saved, run / "checkpoints", dirs_exist_ok=True)
    assert [folder.name for folder in (run / "checkpoints").iterdir()] == ["step-00000003"]
    assert checkpoint.damage(run / "checkpoints" / "step-00000003") == []
    launching.pretrain(data, run, **runs.SETTINGS)
    launching.assert_same_to_the_last_bit(run, unbroken)


@pytest.mark.slow
@pytest.mark.skipif(not MOUNTS, reason="mounting is not permitted here")
def test_a_folder_that_cannot_be_written_is_named_and_training_goes_on(
    data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    python = shlex.join(
        [sys.executable, "launch/pretrain.py", *launching.flags(data, run, **runs.SETTINGS)]
    )
    done = in_private_mounts(f"mount -t tmpfs -o ro tmpfs {run}/checkpoints && {python}")
    assert done.returncode == 1 and done.stderr.count("[Errno 30] Read-only file system") >= 4
    assert len(launching.lines(run)) == runs.STEPS


FILLED_FOR_A_WHILE = """
mount -t tmpfs -o size=32m tmpfs {run} || exit 9
{python} 2> {errors} & training=$!
until [ "$(wc -l < {run}/metrics.jsonl 2>/dev/null || echo 0)" -ge 18 ]; do
  sleep 0.05; kill -0 $training || exit 8
done
for file in metrics.jsonl tensorboard replay 'the checkpoint'; do
  until grep -q "$file.* could not be written.*No space left" {errors}; do
    dd if=/dev/zero bs=4k >> {run}/filler 2>/dev/null  # whatever the run has given back, too
    sleep 0.02; kill -0 $training || exit 7
  done
done
rm {run}/filler
wait $training; code=$?
cp -r {run} {saved}
exit $code
"""


@pytest.mark.slow
@pytest.mark.skipif(not MOUNTS, reason="mounting is not permitted here")
def test_a_run_folder_that_is_full_for_a_while_costs_neither_the_run_nor_a_line(
    data: Path, tmp_path: Path
) -> None:
    run, saved, errors = tmp_path / "run", tmp_path / "saved", tmp_path / "errors"
    run.mkdir()
    plan = [("outlier", 0, step) for step in range(14, 80, 2)]  # each leaves a replay file
    changes = {"training__steps": 80, "training__micro_batches": 1, "execution__keep_replays": 2}
    flags = launching.flags(data, run, **{**runs.SETTINGS, **changes})
    script = [sys.executable, "tests/faults/sabotage.py", json.dumps(plan), *flags]
    filled = FILLED_FOR_A_WHILE.format(
        run=run, saved=saved, errors=errors, python=shlex.join(script)
    )
    done = in_private_mounts(filled)
    said = errors.read_text()
    assert done.returncode == 0, f"{done}\n{said}"
    assert "Traceback" not in said
    assert [line["step"] for line in launching.lines(saved)] == list(range(1, 81))
    assert set(points(saved / "tensorboard", "loss")) == set(range(1, 81))
    assert len(list((saved / "replay").iterdir())) == 2
    last = checkpoint.committed(saved)[-1]
    assert checkpoint.step_of(last) == 80 and checkpoint.damage(last) == []


def test_an_error_of_rank_zero_is_that_of_all_ranks() -> None:
    def fail() -> None:
        raise PermissionError("read-only")

    with pytest.raises(PermissionError, match="read-only"):
        collectives.from_rank_zero(0, fail)
