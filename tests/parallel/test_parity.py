"""Engines change memory and time, never the numbers: the same losses, samples and weights on any
number of ranks."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helm_scale import commands, config
from helm_scale.model.weights import load_weights
from helm_scale.pretraining import checkpoint
from tests import tolerances
from tests.pretraining import launching

pytestmark = pytest.mark.slow

STEPS, SAVED = 12, 6
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {
        "training__optimizer": "adamw",
        "training__clip_norm": 0.02,
        "training__ema_decay": 0.5,
    },
    "muon": {"training__optimizer": "muon"},
}
COMMON = {
    "training__learning_rate": 2e-2, "training__muon_learning_rate": 2e-2, "training__steps": STEPS, "training__batch_molecules": 4, 
    "execution__validate_every": 4, "execution__checkpoint_every": SAVED,
}  # fmt: skip
RECOMPUTED = {
    "execution__pair_chunk": 4,
    "execution__recompute": "full",
    "execution__message_chunk": 8,
}
FROZEN = {"training__freeze_prefixes": '["trunk.element", "trunk.layers.0.messages", "pairs.head"]'}
# name -> (ranks, settings); the first is what all others are compared with, but those with frozen
# parts, which have their own
LADDER: dict[str, tuple[int, dict[str, Any]]] = {
    "single": (1, {"execution__engine": "single"}),
    "single-plain": (1, {"execution__engine": "single", "execution__pair_chunk": 0}),
    "single-recomputed": (1, {"execution__engine": "single", **RECOMPUTED}),
    "single-frozen": (1, {"execution__engine": "single", **FROZEN}),
    "ddp-2": (2, {"execution__engine": "ddp"}),
    "ddp-2-recomputed": (2, {"execution__engine": "ddp", **RECOMPUTED}),
    "fsdp2-2": (2, {"execution__engine": "fsdp2"}),
    "fsdp2-2-offload": (2, {"execution__engine": "fsdp2", "execution__cpu_offload": True}),
    "fsdp2-2-recomputed": (2, {"execution__engine": "fsdp2", **RECOMPUTED}),
    "fsdp2-2-frozen": (2, {"execution__engine": "fsdp2", **FROZEN}),
    "zero1-2": (2, {"execution__engine": "zero1"}),
    "zero1-2-recomputed": (2, {"execution__engine": "zero1", **RECOMPUTED}),
    "zero2-2": (2, {"execution__engine": "zero2"}),
    "zero2-2-offload": (2, {"execution__engine": "zero2", "execution__cpu_offload": True}),
    "zero3-2": (2, {"execution__engine": "zero3"}),
    "zero2-2-recomputed": (2, {"execution__engine": "zero2", **RECOMPUTED}),
    "zero2-2-frozen": (2, {"execution__engine": "zero2", **FROZEN}),
    "zero3-2-recomputed": (2, {"execution__engine": "zero3", **RECOMPUTED}),
    "zero3-2-frozen": (2, {"execution__engine": "zero3", **FROZEN}),
    "fsdp2-3": (3, {"execution__engine": "fsdp2", "training__micro_batches": 3}),
    "fsdp2-4": (4, {"execution__engine": "fsdp2"}),
    "ddp-2-shared": (2, {"execution__engine": "ddp", "execution__pair_ranks": 2}),
    "zero3-2-shared": (2, {"execution__engine": "zero3", "execution__pair_ranks": 2}),
    "fsdp2-4-half-shared": (
        4,
        {"execution__engine": "fsdp2", "execution__pair_ranks": 2, **RECOMPUTED},
    ),
    "fsdp2-4-shared": (4, {"execution__engine": "fsdp2", "execution__pair_ranks": 4}),
    "hsdp-2x2": (4, {"execution__engine": "fsdp2", "execution__replicas": 2}),
    "hsdp-2x2-recomputed": (
        4,
        {"execution__engine": "fsdp2", "execution__replicas": 2, **RECOMPUTED},
    ),
}
REFERENCES = ("single", "single-frozen")
LOW = {"training__working_precision": "bfloat16"}
LOWER = {
    "fsdp2-2-bfloat16": (2, {"execution__engine": "fsdp2", **LOW}),
    "zero3-2-bfloat16": (2, {"execution__engine": "zero3", **LOW}),
}
# name -> (whose checkpoint of step SAVED, engine that goes on from it)
CONTINUED = {
    "fsdp2-4-then-zero2-2": ("fsdp2-4", "zero2-2"),
    "fsdp2-4-then-single": ("fsdp2-4", "single"),
    "zero3-2-then-single": ("zero3-2", "single"),
    "zero1-2-then-single": ("zero1-2", "single"),
}


ONLY_MUON = (
    "offload",
    "recomputed",
    "plain",
    "bfloat16",
    "then-single",
    "shared",
    "frozen",
)  # settings of their own; the rest takes both


def optimizers_of(name: str) -> list[str]:
    """Optimisers that a rung is tried with."""
    return (
        ["muon"] if name.endswith(ONLY_MUON) and name != "fsdp2-4-then-single" else list(OPTIMIZERS)
    )


def climb(data: Path, runs: Path, ranks: int, names: dict[str, str]) -> None:
    """Train, or go on, with the settings of LADDER: {folder: rung}."""
    lists = [
        launching.flags(
            data,
            runs / f"{folder}-{optimizer}",
            **COMMON,
            **OPTIMIZERS[optimizer],
            **(LADDER | LOWER)[rung][1],
        )
        for folder, rung in names.items()
        for optimizer in optimizers_of(folder)
    ]
    if ranks == 1:
        for flags in lists:
            commands.pretrain(config.load(config.PretrainConfig, flags))
        return
    (runs / "flags.json").write_text(json.dumps(lists))
    code, out, err = launching.finish(
        launching.start(
            [*launching.python(ranks), "tests/parallel/ladder.py", str(runs / "flags.json")]
        ),
        300,
    )
    assert code == 0, f"{out}\n{err}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all runs: RUNG-OPTIMIZER and CONTINUED-OPTIMIZER."""
    folder = tmp_path_factory.mktemp("runs")
    data = launching.write_dataset(folder / "data")
    for ranks in (4, 3, 2, 1):
        for name, (source, rung) in CONTINUED.items():
            if LADDER[rung][0] == ranks:
                for optimizer in optimizers_of(name):
                    shutil.copytree(
                        folder / f"{source}-{optimizer}", folder / f"{name}-{optimizer}"
                    )
                    shutil.rmtree(
                        folder / f"{name}-{optimizer}" / "checkpoints" / f"step-{STEPS:08d}"
                    )
        rungs = {name: name for name, (number, _) in (LADDER | LOWER).items() if number == ranks}
        climb(
            data,
            folder,
            ranks,
            rungs
            | {name: rung for name, (_, rung) in CONTINUED.items() if LADDER[rung][0] == ranks},
        )
    return folder


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        (name, optimizer)
        for name in [*LADDER, *CONTINUED]
        if name not in REFERENCES
        for optimizer in optimizers_of(name)
    ],
)
def test_engines_and_ranks_change_nothing_and_any_checkpoint_goes_on_anywhere(
    name: str, optimizer: str, runs: Path
) -> None:
    reference = REFERENCES[name.endswith("frozen")]
    ours, theirs = (launching.lines(runs / f"{rung}-{optimizer}") for rung in (name, reference))
    assert [line["keys"] for line in ours] == [line["keys"] for line in theirs]
    assert [line["step"] for line in ours] == list(range(1, STEPS + 1))
    for mine, other in zip(ours, theirs, strict=True):
        names = [key for key in mine if "loss" in key or "ueh" in key or key == "grad_norm"]
        assert [mine[key] for key in names] == pytest.approx(
            [other[key] for key in names], rel=tolerances.ENGINE_PARITY
        )
    weights, others = (
        load_weights(checkpoint.committed(runs / f"{r}-{optimizer}")[-1] / "model.safetensors")
        for r in (name, reference)
    )
    assert weights.keys() == others.keys()
    for key, tensor in weights.items():
        assert float((tensor - others[key]).norm()) <= tolerances.ENGINE_PARITY * float(
            tensor.norm()
        ), key


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_moves_the_loss_so_that_parity_says_something(optimizer: str, runs: Path) -> None:
    validations = [
        line["validation_loss"]
        for line in launching.lines(runs / f"single-{optimizer}")
        if "validation_loss" in line
    ]
    assert len(validations) == 3 and validations[-1] < 0.97 * validations[0]


@pytest.mark.parametrize("name", LOWER)
def test_bfloat16_follows_float32_within_its_bits(name: str, runs: Path) -> None:
    ours, theirs = (launching.lines(runs / f"{rung}-muon") for rung in (name, "single"))
    differences = [
        abs(mine["loss"] / other["loss"] - 1) for mine, other in zip(ours, theirs, strict=True)
    ]
    assert 1e-6 < max(differences) < tolerances.BFLOAT16_LOSS
