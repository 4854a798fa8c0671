"""Bad samples, bad hardware, ranks that stop or fail: named, and never trained on."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from helm_scale import commands, config
from helm_scale.data.format.codec import StoredSample
from helm_scale.data.loading.dataset import Dataset
from helm_scale.pretraining import checkpoint
from helm_scale.pretraining.guard import SpikeMonitor
from tests.faults import runs
from tests.pretraining import launching


@pytest.mark.slow
def test_a_bad_label_is_skipped_a_spike_computed_twice_and_wrong_arithmetic_stops_the_run(
    data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    plan = [("nan", 1, 5), ("norm", 1, 8), ("outlier", 0, 20), ("wrong", 1, 22)]
    settings = {
        "execution__engine": "ddp",
        "training__steps": 24,
        "training__learning_rate": 1e-5,
        "training__muon_learning_rate": 1e-5,
    }
    code, _, err = runs.sabotaged(data, run, 2, plan, **settings)
    assert code != 0
    lines = {line["step"]: line for line in launching.lines(run)}
    # a norm that is not finite on one rank alone is skipped by both, which have equal weights after
    assert [step for step, line in lines.items() if line.get("skipped")] == [5, 8]
    (skipped,) = re.findall(
        r"step 5: loss nan, .*no rank took the step\. Samples: (.*?)\. Replay", err
    )
    assert 0 < len(skipped.split(", ")) < len(lines[5]["keys"]), (
        "only the micro-batch with the bad label is named"
    )
    assert re.search(
        r"step 20: loss .* a spike, and the same when computed again, so it is in the data: mol-",
        err,
    )
    assert lines[20]["loss"] > 100 * lines[19]["loss"]
    assert re.search(
        r"step 22: loss 0\.\d+, .* but \d+\.\d+ before, from the same weights and samples:"
        r" rank 1 computes wrongly",
        err,
    )
    assert sorted(lines) == list(range(1, 22))
    file = run / "replay" / "step-00000022.safetensors"
    table = commands.replay(config.ReplayConfig(file=str(file)))
    there = re.search(r"together, here: ([\d.e+-]+)", table)
    here = re.search(r"step 22: loss (0\.\d+)", err)
    assert there and here and float(there[1]) == pytest.approx(float(here[1]), rel=1e-5)


@pytest.mark.slow
def test_ranks_that_share_molecules_agree_on_what_is_skipped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two ranks cannot read a sample: the same run as where nobody can."""
    dataset = Dataset.open(config.DataConfig(path=str(data)))
    train = {dataset.key[index]: index for index in dataset.split("train")}
    lost, read = int(train["mol-4"]), Dataset.read_stored

    def all_but_one(self: Dataset, index: int, memory: memoryview) -> StoredSample:
        if index == lost:
            raise ValueError("bytes have changed")
        return read(self, index, memory)

    alone, shared = tmp_path / "alone", tmp_path / "shared"
    settings = {"data__damaged": "quarantine", "execution__workers": 1}
    with monkeypatch.context() as patched:
        patched.setattr(Dataset, "read_stored", all_but_one)
        launching.pretrain(data, alone, **{**runs.SETTINGS, **settings})
    two = {**settings, "execution__pair_ranks": 2, "execution__engine": "ddp"}
    code, _, err = runs.sabotaged(data, shared, 2, [("unread", 0, lost)], **two)
    assert code == 0, err
    runs.assert_same_within_round_off(shared, alone)
    reasons = [json.loads((shared / f"quarantine-{rank}.jsonl").read_text()) for rank in (0, 1)]
    assert "bytes have changed" in reasons[0]["reason"]
    assert "could not be read by another rank" in reasons[1]["reason"]


@pytest.mark.slow
def test_a_flipped_bit_on_one_replica_is_found_before_it_is_saved(
    data: Path, tmp_path: Path
) -> None:
    code, _, err = runs.sabotaged(data, tmp_path, 3, [("flip", 1, 5)], execution__engine="ddp")
    assert code != 0
    assert "step 6: the weights of rank 1 are not those of its replicas" in err
    assert [checkpoint.step_of(folder) for folder in checkpoint.committed(tmp_path)] == [3]


@pytest.mark.slow
def test_a_stopped_rank_is_named_with_its_step_and_samples(data: Path, tmp_path: Path) -> None:
    process = launching.start(
        [*launching.python(3), "tests/faults/sabotage.py", '[["stop", 1, 5]]']
        + launching.flags(
            data,
            tmp_path,
            **runs.SETTINGS,
            execution__engine="fsdp2",
            execution__timeout_seconds=4.0,
        )
    )
    said = ""
    assert process.stderr is not None
    while "does not answer" not in said:
        said = process.stderr.readline()
        assert said or process.poll() is None
    launching.kill(process)
    process.communicate()
    assert re.search(
        r"no progress for 4 s; rank 1 \(host \S+, pid \d+, step 5, computing\)"
        r" does not answer; its samples: mol-\d+",
        said,
    )


@pytest.mark.slow
def test_a_rank_that_fails_is_named_by_the_others_and_torchrun_resumes(
    data: Path, unbroken: Path, tmp_path: Path
) -> None:
    code, _, err = runs.sabotaged(
        data, tmp_path, 3, [("fail", 2, 5)], restarts=1, execution__engine="fsdp2"
    )
    assert code == 0, err
    assert re.search(
        r"rank [01]: lost the other ranks .*; rank 2 \(host .*, step 5, computing\)"
        r" failed: ValueError: shard-000003.tar",
        err,
    )
    assert "resumed from step-00000003" in err
    runs.assert_same_within_round_off(tmp_path, unbroken)


@pytest.mark.slow
def test_ranks_that_were_started_differently_are_named_before_the_first_step(
    data: Path, tmp_path: Path
) -> None:
    other = launching.write_dataset(tmp_path / "other", seed=8)
    plan = [
        ["flag", 1, "--training.learning_rate=0.02"],
        ["flag", 1, "--training.seed=1"],
        ["flag", 2, f"--data.path={other}"],
    ]
    code, _, err = runs.sabotaged(data, tmp_path / "run", 3, plan, execution__engine="fsdp2")
    assert code != 0 and not (tmp_path / "run" / "metrics.jsonl").exists()
    assert re.search(
        r"the ranks were not started alike: rank 1 \(host \S+\) has .*"
        r"training\.seed: 1, but 0 on rank 0",
        err,
    )
    assert "training.learning_rate: 0.02, but 0.001 on rank 0" in err
    assert re.search(r"rank 2 \(host \S+\) has .*dataset: '\w+', but '\w+' on rank 0", err)


@pytest.mark.slow
def test_a_data_process_that_is_killed_while_it_waits_ends_the_run_in_one_line(
    data: Path, tmp_path: Path
) -> None:
    settings = {**runs.SETTINGS, "training__steps": 100000, "execution__workers": 1}
    process = launching.start(launching.command(data, tmp_path, **settings))
    while len(launching.lines(tmp_path)) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(0.5)  # it has made all that it may make ahead
    (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    os.kill(process.pid, signal.SIGCONT)
    code, out, err = launching.finish(process)
    assert code == 1 and not out
    (line,) = err.strip().splitlines()
    assert re.match(r"a data process died \(exit code -9\) over the samples \[\d", line)


def test_a_spike_stands_out_of_the_spread_and_noise_does_not() -> None:
    monitor = SpikeMonitor(8.0)
    losses = [0.1 * (1 + 0.1 * (-1) ** i) for i in range(20)]
    assert not any(monitor.is_spike(loss) or monitor.add(loss) for loss in losses)
    assert not monitor.is_spike(0.2) and monitor.is_spike(0.5) and not monitor.is_spike(1e-9)
    quiet = SpikeMonitor(8.0)
    for _ in range(20):
        quiet.add(0.1)
    assert not quiet.is_spike(0.14) and quiet.is_spike(0.16)  # 8 * 0.05 of log(loss) and more


def test_a_spike_stands_out_of_sixteen_losses_or_more_of_the_last_sixty_four() -> None:
    monitor = SpikeMonitor(8.0)
    for _ in range(15):
        monitor.add(0.1)
    assert not monitor.is_spike(1.0)
    monitor.add(0.1)
    assert monitor.is_spike(1.0)
    for loss, count in ((0.1, 84), (1.0, 40)):  # most of those that count are the later ones
        for _ in range(count):
            monitor.add(loss)
    assert not monitor.is_spike(1.0)
