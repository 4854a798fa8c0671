"""Engines change memory and time, never the numbers: the same losses, samples and weights on any number of ranks."""

import shutil
from pathlib import Path

import pytest

from helm_scale import build, config
from helm_scale.model.weights import load_weights
from helm_scale.training import checkpoint
from tests import tolerances
from tests.training import launching

pytestmark = pytest.mark.slow

VARIANTS = {
    "adamw": {"training__optimizer": "adamw", "training__clip_norm": 0.02, "training__ema_decay": 0.5},
    "muon": {"training__optimizer": "muon"},
}
COMMON = {
    "training__learning_rate": 2e-2, "training__muon_learning_rate": 2e-2, "execution__validate_every": 4,
    "execution__checkpoint_every": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ragged molecules."""
    return launching.write_dataset(tmp_path_factory.mktemp("data"))


def train_alone(data: Path, run: Path, variant: str) -> Path:
    """Train, or go on, in this process."""
    build.pretrain(config.load(config.PretrainConfig, launching.flags(data, run, **COMMON, **VARIANTS[variant])))
    return run


@pytest.fixture(scope="module", params=VARIANTS)
def alone(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a single process; its folder has the name of the variant."""
    return train_alone(data, tmp_path_factory.mktemp("alone") / request.param, request.param)


def assert_same_run(a: Path, b: Path) -> None:
    """Same samples, losses, gradient norms, metrics and weights, within the tolerance of engines."""
    ours, theirs = launching.lines(a), launching.lines(b)
    assert [line["keys"] for line in ours] == [line["keys"] for line in theirs]
    assert [line["step"] for line in ours] == list(range(1, 11))
    for mine, other in zip(ours, theirs, strict=True):
        names = [name for name in mine if "loss" in name or "ueh" in name or name == "grad_norm"]
        assert [mine[name] for name in names] == pytest.approx([other[name] for name in names], rel=tolerances.ENGINE_PARITY)
    weights, others = (load_weights(checkpoint.committed(run)[-1] / "model.safetensors") for run in (a, b))
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        assert float((tensor - others[name]).norm()) <= tolerances.ENGINE_PARITY * float(tensor.norm()), name


@pytest.mark.parametrize(("engine", "ranks"), [("ddp", 2), ("fsdp2", 2), ("fsdp2", 4)])
def test_ranks_change_nothing_and_their_checkpoint_goes_on_alone(engine: str, ranks: int, data: Path, alone: Path, tmp_path: Path) -> None:
    together, continued = tmp_path / "together", tmp_path / "continued"
    launching.trained(data, together, ranks, execution__engine=engine, **COMMON, **VARIANTS[alone.name])
    assert_same_run(alone, together)
    shutil.copytree(together, continued)
    shutil.rmtree(continued / "checkpoints" / "step-00000010")
    assert_same_run(alone, train_alone(data, continued, alone.name))


def test_training_moves_the_loss_so_that_parity_says_something(alone: Path) -> None:
    validations = [line["validation_loss"] for line in launching.lines(alone) if "validation_loss" in line]
    assert len(validations) == 3 and validations[-1] < 0.97 * validations[0]
