"""Settings of the runs that faults happen to, and what makes two runs the same."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from helm_scale.model.weights import load_weights
from helm_scale.pretraining import checkpoint
from tests import tolerances
from tests.pretraining import launching

STEPS = 12
SETTINGS = {
    "training__steps": STEPS, "training__micro_batches": 6, "training__ema_decay": 0.9, "execution__checkpoint_every": 3,
    "execution__validate_every": 4,
}  # fmt: skip
CLOCK = {
    "molecules_per_second",
    "pairs_per_second",
    "peak_memory_mb",
    "seconds_by_rank",
    "slowest_rank",
}


def sabotaged(
    data: Path,
    run: Path,
    ranks: int,
    plan: list[tuple[str, int, int]],
    restarts: int = 0,
    **changes: Any,
) -> tuple[int, str, str]:
    """Run ranks to which something happens, to the end: (exit code, standard output, standard
    error)."""
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        f"--max-restarts={restarts}",
    ]
    flags = launching.flags(data, run, **{**SETTINGS, **changes})
    return launching.finish(
        launching.start([*torchrun, "tests/faults/sabotage.py", json.dumps(plan), *flags]), 240
    )


def numbers(run: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what a clock or the operating system says."""
    return [
        {name: value for name, value in line.items() if name not in CLOCK}
        for line in launching.lines(run)
    ]


def assert_same_to_the_last_bit(run: Path, other: Path) -> None:
    """Same lines, each step once, and the same last weights."""
    assert [line["step"] for line in numbers(run)] == list(range(1, STEPS + 1))
    assert numbers(run) == numbers(other)
    files = [checkpoint.committed(folder)[-1] / "model.safetensors" for folder in (run, other)]
    assert files[0].read_bytes() == files[1].read_bytes()


def assert_same_within_round_off(run: Path, other: Path) -> None:
    """Same samples and, on another number of ranks, the same losses and weights but for the order
    of sums."""
    ours, theirs = numbers(run), numbers(other)
    assert [(line["step"], line["keys"]) for line in ours] == [
        (line["step"], line["keys"]) for line in theirs
    ]
    assert [line["loss"] for line in ours] == pytest.approx(
        [line["loss"] for line in theirs], rel=tolerances.ENGINE_PARITY
    )
    weights, others = (
        load_weights(checkpoint.committed(folder)[-1] / "model.safetensors")
        for folder in (run, other)
    )
    for name, tensor in weights.items():
        assert float((tensor - others[name]).norm()) <= tolerances.ENGINE_PARITY * float(
            tensor.norm()
        ), name
