"""Asked to stop, all ranks stop at the same step, save, and ask to be started again."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from helm_scale.pretraining import checkpoint, guard
from tests.faults import runs
from tests.pretraining import launching


@pytest.mark.slow
def test_sigterm_to_one_of_three_ranks_stops_all_at_one_step_and_the_same_line_goes_on(
    data: Path, unbroken: Path, tmp_path: Path
) -> None:
    code, _, err = runs.sabotaged(
        data, tmp_path, 3, [("terminate", 1, 5)], execution__engine="fsdp2"
    )
    assert code == 0, err
    assert "stopped at step 5 of 12 (SIGTERM on rank 1); the same line resumes" in err
    assert (tmp_path / "REQUEUE").read_text() == "step 5: SIGTERM on rank 1\n"
    assert (
        checkpoint.step_of(checkpoint.committed(tmp_path)[-1]) == 5
        and len(launching.lines(tmp_path)) == 5
    )
    launching.trained(data, tmp_path, 2, **runs.SETTINGS, execution__engine="zero2")
    assert not (tmp_path / "REQUEUE").exists()
    runs.assert_same_within_round_off(tmp_path, unbroken)


@pytest.mark.slow
def test_torchrun_sh_hands_the_signal_on_and_ends_with_75(data: Path, tmp_path: Path) -> None:
    run, settings = tmp_path / "run", {**runs.SETTINGS, "training__steps": 100000}
    flags = launching.flags(data, run, **settings, execution__engine="ddp")
    ranks = ["--standalone", "--nproc-per-node", "2", "--"]
    process = launching.start(["bash", "launch/torchrun.sh", str(run), *ranks, *flags])
    while len(launching.lines(run)) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    code, _, err = launching.finish(process)
    assert code == 75, err
    assert "(SIGUSR1 on rank 0, SIGUSR1 on rank 1)" in err and checkpoint.latest(run) is not None


@pytest.mark.slow
def test_one_process_stops_for_the_wall_clock_and_ends_with_75(data: Path, tmp_path: Path) -> None:
    settings = {**runs.SETTINGS, "training__steps": 100000, "execution__wall_clock_seconds": 1.0}
    code, _, err = launching.launch(data, tmp_path, **settings)
    assert code == 75 and "stopped at step 1 of 100000 (wall clock on rank 0)" in err
    assert checkpoint.step_of(checkpoint.committed(tmp_path)[-1]) == 1


def test_a_signal_is_noted_inside_and_handled_as_before_outside() -> None:
    before, stop = signal.getsignal(signal.SIGUSR1), guard.StopRequest(0.0)
    with stop.listening():
        assert stop.code == 0
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.code == signal.SIGUSR1 and guard.reason(stop.code) == "SIGUSR1"
    assert signal.getsignal(signal.SIGUSR1) == before


def test_ctrl_c_saves_and_stops_a_run_that_the_same_line_resumes(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        while len(launching.lines(tmp_path)) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(SystemExit) as ended:
        launching.pretrain(data, tmp_path, **{**runs.SETTINGS, "training__steps": 100000})
    thread.join()
    assert ended.value.code == 75
    said = (tmp_path / "REQUEUE").read_text()
    assert (
        said.endswith("SIGINT on rank 0\n") and "once more stops at once" in capfd.readouterr().err
    )
    assert checkpoint.step_of(checkpoint.committed(tmp_path)[-1]) == len(launching.lines(tmp_path))


def test_a_second_ctrl_c_ends_the_process_at_once() -> None:
    code = """
import os, signal
from helm_scale.pretraining import guard
with guard.StopRequest(0.0).listening() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.code == signal.SIGINT
    os.kill(os.getpid(), signal.SIGINT)
    print("still here")
"""
    run = subprocess.run(
        [sys.executable, "-c", code], env=launching.environment(), capture_output=True, text=True
    )
    assert run.returncode == -signal.SIGINT and run.stdout == ""
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("script", ["launch/torchrun.sh", "launch/slurm.sbatch"])
def test_scripts_are_bash(script: str) -> None:
    subprocess.run(["bash", "-n", script], cwd=launching.ROOT, check=True)
