"""SIGKILL at any moment: the same line again gives the run that nothing happened to.

Runs are forked from a process that has imported everything, so that a life costs a second.
"""

import multiprocessing
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from helm_scale import commands, config
from helm_scale.pretraining import checkpoint
from tests.faults import runs
from tests.pretraining import launching


def life(flags: list[str]) -> None:
    """One start of a run."""
    commands.pretrain(config.load(config.PretrainConfig, flags))


def born(flags: list[str]) -> BaseProcess:
    """Start a run in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "tests.conftest",
            "helm_scale.commands",
            "helm_scale.pretraining.loop",
            "helm_scale.parallel.build",
        ]
    )
    process = context.Process(target=life, args=(flags,))
    process.start()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True], ids=["sync", "async"])
def test_five_kills_change_nothing_and_lose_nothing(
    background: bool, data: Path, unbroken: Path, tmp_path: Path
) -> None:
    chance, run, safe = random.Random(f"kills {background}"), tmp_path / "run", -1
    settings = {
        **runs.SETTINGS,
        "execution__checkpoint_every": 1,
        "execution__background_save": background,
    }
    flags, during_saves = launching.flags(data, run, **settings), 0
    for kill in range(5):
        process, before = born(flags), len(launching.lines(run))
        wanted = min(before + chance.randint(0, 2), runs.STEPS - 1) if kill else 1
        while process.is_alive() and len(launching.lines(run)) <= wanted:
            time.sleep(0.0005)
        time.sleep(chance.random() * 0.05)
        if kill % 2:  # wait for a save
            while process.is_alive() and not list((run / "checkpoints").glob("*.tmp")):
                time.sleep(0.0002)
        process.kill()
        process.join()
        during_saves += bool(list((run / "checkpoints").glob("*.tmp")))
        steps = [
            checkpoint.step_of(folder)
            for folder in checkpoint.committed(run)
            if not checkpoint.damage(folder)
        ]
        assert max(steps, default=-1) >= safe, "what was committed stays until newer ones are"
        safe = max(steps, default=-1)
    assert during_saves, "some of the kills hit a save"
    process = born(flags)
    process.join()
    assert process.exitcode == 0
    launching.assert_same_to_the_last_bit(run, unbroken)
