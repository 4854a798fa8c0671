"""A run folder has one owner: a second run is refused by name, a dead owner is none."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helm_scale import commands
from helm_scale.config import PretrainConfig, load
from helm_scale.pretraining import run_lock
from tests.blocks import ROOT

OWNER = """
import sys, time
from helm_scale.pretraining import run_lock
with run_lock.held(sys.argv[1], 0):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_by_name(
    owner: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "PATIENCE", 0.3)
    data = ROOT / "data_shards" / "quickstart"
    flags = [f"--out={tmp_path}", f"--data.path={data}", "--training.steps=1"]
    config = load(PretrainConfig, [f"--config={ROOT / 'configs' / 'quickstart.yaml'}", *flags])
    with pytest.raises(ValueError, match=rf"in use by process {owner.pid} on .*, started 20"):
        commands.pretrain(config)
    assert {path.name for path in tmp_path.iterdir()} == {run_lock.NAME}


def test_a_killed_owner_is_none(owner: subprocess.Popen[str], tmp_path: Path) -> None:
    owner.kill()
    owner.wait()
    begin = time.monotonic()
    with run_lock.held(tmp_path, 0):
        assert str(owner.pid) not in (tmp_path / run_lock.NAME).read_text()
    assert time.monotonic() - begin < 5
    with run_lock.held(tmp_path, 0):  # nor is a run that has ended
        pass


def test_a_run_waits_for_the_ranks_that_a_launcher_is_ending(
    owner: subprocess.Popen[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kill = subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {owner.pid}"])
    with run_lock.held(tmp_path, 0):
        assert f"in use by process {owner.pid}" in caplog.text
    kill.wait()
