"""Engines change memory and time, never the numbers.

Losses, samples and weights are the same on any number of ranks.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from helm_scale import commands, config
from helm_scale.model.weights import load_weights
from helm_scale.pretraining import checkpoint
from tests import tolerances
from tests.pretraining import launching

pytestmark = pytest.mark.slow

STEPS, SAVED = 12, 6
SOAP = {
    "training__optimizer": "soap",
    "training__soap_learning_rate": 2e-2,
    "training__soap_renew_every": 4,
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {
        "training__optimizer": "adamw",
        "training__clip_norm": 0.02,
        "training__ema_decay": 0.5,
    },
    "muon": {"training__optimizer": "muon"},
    # Adam in an eigenbasis gives components of the size of rounding errors a full step. DeepSpeed
    # knows no doubles.
    "soap-float64": {**SOAP, "model__dtype": "float64"},
    "soap": SOAP,
}
COMMON = {
    # AdamW makes a full step of any gradient. At twice this rate one row of a head, whose gradient
    # nearly cancels, follows the order of float32 sums by more than the tolerance.
    "training__learning_rate": 1e-2,
    "training__muon_learning_rate": 2e-2,
    "training__steps": STEPS,
    "training__batch_molecules": 4,
    "execution__validate_every": 4,
    "execution__checkpoint_every": SAVED,
}
RECOMPUTED = {"pair_chunk": 4, "recompute": "full", "message_chunk": 8}
FROZEN = {"training__freeze_prefixes": '["trunk.element", "trunk.layers.0.messages", "pairs.head"]'}
BFLOAT16 = {"training__working_precision": "bfloat16"}


def run(
    ranks: int, engine: str, others: Mapping[str, Any] = MappingProxyType({}), **execution: Any
) -> tuple[int, dict[str, Any]]:
    """A run: number of ranks, and the flags that make it differ from the others."""
    settings = {f"execution__{key}": value for key, value in execution.items()}
    return ranks, {"execution__engine": engine, **settings, **others}


# All but those with frozen parameters, which have a reference of their own, are compared with the
# first.
RUNS: dict[str, tuple[int, dict[str, Any]]] = {
    "single": run(1, "single"),
    "single-plain": run(1, "single", pair_chunk=0),
    "single-recomputed": run(1, "single", **RECOMPUTED),
    "single-frozen": run(1, "single", FROZEN),
    "ddp-2": run(2, "ddp"),
    "ddp-2-recomputed": run(2, "ddp", **RECOMPUTED),
    "ddp-2-shared": run(2, "ddp", pair_ranks=2),
    "fsdp2-2": run(2, "fsdp2"),
    "fsdp2-2-offload": run(2, "fsdp2", cpu_offload=True),
    "fsdp2-2-recomputed": run(2, "fsdp2", **RECOMPUTED),
    "fsdp2-2-frozen": run(2, "fsdp2", FROZEN),
    "zero1-2": run(2, "zero1"),
    "zero1-2-recomputed": run(2, "zero1", **RECOMPUTED),
    "zero2-2": run(2, "zero2"),
    "zero2-2-offload": run(2, "zero2", cpu_offload=True),
    "zero2-2-recomputed": run(2, "zero2", **RECOMPUTED),
    "zero2-2-frozen": run(2, "zero2", FROZEN),
    "zero3-2": run(2, "zero3"),
    "zero3-2-recomputed": run(2, "zero3", **RECOMPUTED),
    "zero3-2-frozen": run(2, "zero3", FROZEN),
    "zero3-2-shared": run(2, "zero3", pair_ranks=2),
    "fsdp2-3": run(3, "fsdp2", {"training__micro_batches": 3}),
    "fsdp2-4": run(4, "fsdp2"),
    "fsdp2-4-half-shared": run(4, "fsdp2", pair_ranks=2, **RECOMPUTED),
    "fsdp2-4-shared": run(4, "fsdp2", pair_ranks=4),
    "hsdp-2x2": run(4, "fsdp2", replicas=2),
    "hsdp-2x2-recomputed": run(4, "fsdp2", replicas=2, **RECOMPUTED),
}
REFERENCES = ("single", "single-frozen")
LOW_PRECISION = {
    "fsdp2-2-bfloat16": run(2, "fsdp2", BFLOAT16),
    "zero3-2-bfloat16": run(2, "zero3", BFLOAT16),
}
# name -> (whose checkpoint of step SAVED, run that goes on from it)
CONTINUED = {
    "fsdp2-4-then-zero2-2": ("fsdp2-4", "zero2-2"),
    "fsdp2-4-then-single": ("fsdp2-4", "single"),
    "zero3-2-then-single": ("zero3-2", "single"),
    "zero1-2-then-single": ("zero1-2", "single"),
}
# Settings of their own, tried with Muon alone to save time.
ONLY_MUON = ("offload", "recomputed", "plain", "bfloat16", "then-single", "shared", "frozen")
# One run per engine, and one that goes on under another; the rest takes AdamW and Muon.
WITH_SOAP = {
    "soap-float64": (
        "single",
        "ddp-2",
        "fsdp2-3",
        "fsdp2-4",
        "hsdp-2x2",
        "fsdp2-4-then-single",
    ),
    "soap": ("single", "zero1-2", "zero2-2", "zero3-2"),
}


def optimizers_of(name: str) -> list[str]:
    """Optimisers that a run is tried with."""
    only_muon = name.endswith(ONLY_MUON) and name != "fsdp2-4-then-single"
    usual = ["muon"] if only_muon else ["adamw", "muon"]
    return usual + [optimizer for optimizer, names in WITH_SOAP.items() if name in names]


def train_all(data: Path, folder: Path, ranks: int, *, names: dict[str, str]) -> None:
    """Train, or go on, in one start of the ranks.

    Args:
        names: name of the folder -> run whose settings it has.
    """
    lists = [
        launching.flags(
            data,
            folder / f"{name}-{optimizer}",
            **COMMON,
            **OPTIMIZERS[optimizer],
            **(RUNS | LOW_PRECISION)[settings][1],
        )
        for name, settings in names.items()
        for optimizer in optimizers_of(name)
    ]
    if ranks == 1:
        for flags in lists:
            commands.pretrain(config.load(config.PretrainConfig, flags))
        return
    (folder / "flags.json").write_text(json.dumps(lists))
    script = ["tests/parallel/many_runs.py", str(folder / "flags.json")]
    process = launching.start([*launching.python(ranks), *script])
    code, out, err = launching.finish(process, 300)
    assert code == 0, f"{out}\n{err}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all runs: NAME-OPTIMIZER."""
    folder = tmp_path_factory.mktemp("runs")
    data = launching.write_dataset(folder / "data")
    # The most ranks first: their checkpoints are what fewer ranks go on from.
    for ranks in (4, 3, 2, 1):
        names = {name: name for name, (n, _) in (RUNS | LOW_PRECISION).items() if n == ranks}
        for name, (source, settings) in CONTINUED.items():
            if RUNS[settings][0] == ranks:
                copy_checkpoint(folder, source, name)
                names[name] = settings
        train_all(data, folder, ranks, names=names)
    return folder


def copy_checkpoint(folder: Path, source: str, name: str) -> None:
    """Start a run from the checkpoint of step SAVED of another."""
    for optimizer in optimizers_of(name):
        run_folder = folder / f"{name}-{optimizer}"
        shutil.copytree(folder / f"{source}-{optimizer}", run_folder)
        shutil.rmtree(run_folder / "checkpoints" / f"step-{STEPS:08d}")


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        (name, optimizer)
        for name in [*RUNS, *CONTINUED]
        if name not in REFERENCES
        for optimizer in optimizers_of(name)
        if optimizer != "soap"
    ],
)
def test_engines_and_ranks_change_nothing_and_any_checkpoint_goes_on_anywhere(
    name: str, optimizer: str, runs: Path
) -> None:
    reference = REFERENCES[name.endswith("frozen")]
    ours, theirs = (launching.lines(runs / f"{n}-{optimizer}") for n in (name, reference))
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


@pytest.mark.parametrize("name", LOW_PRECISION)
def test_bfloat16_follows_float32_within_its_bits(name: str, runs: Path) -> None:
    ours, theirs = (launching.lines(runs / f"{n}-muon") for n in (name, "single"))
    differences = [
        abs(mine["loss"] / other["loss"] - 1) for mine, other in zip(ours, theirs, strict=True)
    ]
    assert 1e-6 < max(differences) < tolerances.BFLOAT16_LOSS


@pytest.mark.parametrize("name", [n for n in WITH_SOAP["soap"] if n != "single"])
def test_soap_in_float32_follows_one_process_within_its_bits(name: str, runs: Path) -> None:
    ours, theirs = (launching.lines(runs / f"{n}-soap") for n in (name, "single"))
    differences = [
        abs(mine["loss"] / other["loss"] - 1) for mine, other in zip(ours, theirs, strict=True)
    ]
    assert max(differences) < tolerances.SOAP_FLOAT32_LOSS
