"""Settings of the runs that faults happen to, and what makes two runs the same."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from helm_scale.model.weights import load_weights
from helm_scale.pretraining import checkpoint
from tests import tolerances
from tests.pretraining import launching

STEPS = 12
SETTINGS = {
    "training__steps": STEPS, "training__micro_batches": 6, "training__ema_decay": 0.9,
    "execution__checkpoint_every": 3, "execution__validate_every": 4,
}  # fmt: skip


def sabotaged(
    data: Path,
    run: Path,
    ranks: int,
    plan: Sequence[Sequence[str | int]],
    restarts: int = 0,
    **changes: Any,
) -> tuple[int, str, str]:
    """Run ranks to which something happens, to the end.

    Args:
        plan: what happens, see sabotage.py.
    Returns:
        (exit code, standard output, standard error).
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    ranks_and_lives = [f"--nproc-per-node={ranks}", f"--max-restarts={restarts}"]
    script = ["tests/faults/sabotage.py", json.dumps(plan)]
    flags = launching.flags(data, run, **{**SETTINGS, **changes})
    return launching.finish(launching.start([*torchrun, *ranks_and_lives, *script, *flags]))


def assert_same_within_round_off(run: Path, other: Path) -> None:
    """Same samples, and the same losses and weights but for the order in which ranks are summed."""
    ours, theirs = launching.numbers(run), launching.numbers(other)
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
