"""What format 1 wrote still loads and gives the numbers that it gave.

tests/fixtures/format1/README.md says how it was made.
"""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from helm_scale import commands
from helm_scale.config import PretrainConfig, load
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader, verify
from helm_scale.data.graphs.collate import collate
from helm_scale.export import bundle as bundles
from helm_scale.model.helm import Helm
from helm_scale.types import GraphBatch

FIXTURES = Path(__file__).parent / "fixtures/format1"
FORMALDEHYDE = 2
TOLERANCE = 1e-5  # relative: float32 in another order, over three steps
NUMBERS = {
    name.strip(): float(value)
    for name, _, value in (
        line.rpartition(" ") for line in (FIXTURES / "numbers.txt").read_text().splitlines()
    )
}
# pretrain.yaml in the words of today
SETTINGS = {
    "model.basis": "def2-svp", "model.parity": "full", "model.lmax": 4, "model.mmax": 3,
    "model.channels": 4, "model.hidden_channels": 4, "model.edge_channels": 4,
    "model.num_layers": 2, "model.pair_layers": 2, "model.pair_inputs": "each",
    "model.pair_width": 1, "model.radial_functions": 4, "model.tensor_product_stage": True,
    "model.stage_cutoff": 2.0, "model.trunk_cutoff": 3.0, "training.steps": 6,
    "training.batch_molecules": 3, "training.micro_batches": 2, "training.warmup_steps": 2,
    "training.freeze_prefixes": "[trunk.spin, trunk.charge]", "training.ema_decay": 0.9,
    "execution.progress": False, "execution.device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, unpacked."""
    folder = tmp_path_factory.mktemp("format1")
    with tarfile.open(FIXTURES / "bundle.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "bundle"


def formaldehyde(model: Helm | torch.nn.Module) -> GraphBatch:
    """The molecule whose numbers are held."""
    reader = ShardReader(Manifest.load(FIXTURES / "data"))
    return collate([reader.read(FORMALDEHYDE)], model.config)  # type: ignore[arg-type]


def mixed(x: Tensor) -> float:
    """Sum of x_i cos(i), which sees the order."""
    flat = x.detach().double().flatten()
    return float((flat * torch.cos(torch.arange(len(flat), dtype=torch.float64))).sum())


def check(name: str, value: float) -> None:
    """Compare with what format 1 gave."""
    assert value == pytest.approx(NUMBERS[name], rel=TOLERANCE), name


def test_shards_verify() -> None:
    assert verify(FIXTURES / "data") == []


def test_a_checkpoint_predicts_the_same_hamiltonian() -> None:
    model, method = commands.load_model(FIXTURES / "checkpoint")
    batch = formaldehyde(model)
    with torch.no_grad():
        prediction = model(batch)
    check("onsite", mixed(prediction.onsite + model.reference_onsite(batch)))
    check("offsite", mixed(prediction.offsite))
    assert method.basis == "def2-svp"


def test_a_bundle_verifies_and_gives_the_same_features(bundle: Path) -> None:
    assert bundles.verify(bundle).molecules == 5
    model, _ = commands.load_model(bundle)
    batch = formaldehyde(model)
    check("features", mixed(model.trunk(batch.geometry)))


def test_an_energy_model_gives_the_same_energy() -> None:
    model, record = commands.load_energy_model(FIXTURES / "energy")
    check("energy", model(formaldehyde(model))[0].item())
    assert record["method"]["basis"] == "def2-svp"


def test_a_run_resumes_and_takes_the_same_steps(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "checkpoint", tmp_path / "run")
    settings = {**SETTINGS, "data.path": FIXTURES / "data", "out": tmp_path / "run"}
    flags = [f"--{key}={value}" for key, value in settings.items()]
    assert "at step 4" in commands.pretrain(load(PretrainConfig, flags))
    text = (tmp_path / "run/metrics.jsonl").read_text()
    lines = {line["step"]: line for line in map(json.loads, text.splitlines())}
    for step in (4, 5, 6):
        check(f"loss of step {step}", lines[step]["loss"])
        check(f"grad_norm of step {step}", lines[step]["grad_norm"])
    check("validation_loss of step 6", lines[6]["validation_loss"])
