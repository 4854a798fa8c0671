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
ENGINES = [("ddp", 2), ("fsdp2", 2), ("fsdp2", 4)]


def run_all(data: Path, folder: Path, engine: str, ranks: int) -> None:
    """Train every variant with one engine; in this process where one rank will do."""
    for name, changes in VARIANTS.items():
        settings = {"execution__engine": engine, **COMMON, **changes}
        if ranks == 1:
            build.pretrain(config.load(config.PretrainConfig, launching.flags(data, folder / name, **settings)))
        else:
            launching.trained(data, folder / name, ranks, **settings)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ragged molecules."""
    return launching.write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def single(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every variant, trained by a single process."""
    folder = tmp_path_factory.mktemp("single")
    run_all(data, folder, "single", 1)
    return folder


@pytest.fixture(scope="module", params=ENGINES, ids=lambda param: f"{param[0]}-{param[1]}")
def several(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every variant, trained by several ranks."""
    folder = tmp_path_factory.mktemp("several")
    run_all(data, folder, *request.param)
    return folder


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


@pytest.mark.parametrize("variant", VARIANTS)
def test_ranks_and_engines_do_not_change_the_numbers(variant: str, single: Path, several: Path) -> None:
    assert_same_run(single / variant, several / variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_moves_the_loss_so_that_parity_says_something(variant: str, single: Path) -> None:
    validations = [line["validation_loss"] for line in launching.lines(single / variant) if "validation_loss" in line]
    assert len(validations) == 3 and validations[-1] < 0.97 * validations[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checkpoint_of_any_engine_continues_in_a_single_process(
    variant: str, data: Path, single: Path, several: Path, tmp_path: Path
) -> None:
    shutil.copytree(several / variant, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000010")
    changes = VARIANTS[variant]
    message = build.pretrain(config.load(config.PretrainConfig, launching.flags(data, tmp_path / "run", **COMMON, **changes)))
    assert message.endswith("finished, 10 steps")
    assert_same_run(single / variant, tmp_path / "run")
