"""A small bundle, made once, and an interpreter that has torch and safetensors alone."""

import dataclasses
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helm_scale import commands
from helm_scale.config import ExportConfig, HeadConfig, ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.model.energy import EnergyModel
from helm_scale.model.helm import Helm
from helm_scale.model.weights import save_weights
from helm_scale.reading.domain import TrainingDomain
from helm_scale.types import Geometry, Method, Molecule

CONFIG = ModelConfig(
    channels=8, hidden_channels=8, edge_channels=8, num_layers=1, radial_functions=8
)
ENERGY_CONFIG = ModelConfig(
    basis="def2-svp",
    lmax=4,
    mmax=4,
    channels=8,
    hidden_channels=8,
    edge_channels=8,
    num_layers=2,
    radial_functions=8,
    dtype="float64",
)
METHOD = Method(
    xc="pbe",
    basis="def2-tzvpd",
    ecp="def2",
    grid_level=3,
    auxbasis=None,
    conv_tol=1e-10,
    baseline="none",
    program="PySCF 2.14",
)
# what the models here claim to be trained on: the molecules of `graph`, and small organic ones
DOMAIN = TrainingDomain(
    molecules=1200,
    elements={"H": 900, "C": 400, "O": 300, "I": 10, "Bi": 1},
    atoms=(2, 8),
    charges={0: 800, 1: 400},
    multiplicities={1: 1000, 2: 200},
    compositions=("HI", "CH4", "CO", "H3Bi", "CH4O"),
)
ROOT = Path(__file__).parents[2]
NUMBERS = np.array([6, 1, 1, 53, 8, 6, 1, 83])


def make_model(config: ModelConfig = CONFIG) -> Helm:
    """A model whose weights have no accidental zeros, and references for three elements."""
    torch.manual_seed(0)
    model = Helm(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        model.reference[[1, 6, 53]] = 1.0
    return model


def graph(sizes: list[int], seed: int = 0) -> Geometry:
    """Random molecules of these sizes, some charged, some edges on the polar axis."""
    rng = np.random.default_rng(seed)
    molecules = []
    for index, size in enumerate(sizes):
        x = rng.normal(size=(size, 3)) * 2.5
        x[1:2] = x[:1] + [0, 0, 1.1]
        numbers = NUMBERS[rng.permutation(8)[:size]]
        charge = index % 2
        molecules.append(
            Molecule(
                str(index),
                numbers,
                x,
                charge=charge,
                spin_multiplicity=1 + int(numbers.sum() - charge) % 2,
            )
        )
    return collate(molecules, CONFIG).geometry


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of a run, with metrics."""
    run = tmp_path_factory.mktemp("run")
    folder = run / "checkpoints" / "step-00000007"
    folder.mkdir(parents=True)
    save_weights(make_model().state_dict(), folder / "model.safetensors")
    data = {"manifest_sha256": "abc", "train_split": "train", "licence": "CC-BY-4.0"}
    record = {
        "model": CONFIG.model_dump(mode="json"),
        "method": dataclasses.asdict(METHOD),
        "data": data,
        "training": {"ema_decay": 0.9},
        "training_domain": DOMAIN.record(),
    }
    (folder / "model.json").write_text(json.dumps(record))
    lines = [
        {"step": step, "loss": 1.0, "validation_h_mae_ueh": 10.0 - step, "keys": ["a"]}
        for step in (3, 6, 9)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="session")
def pristine(checkpoint: Path) -> Path:
    """A bundle of the checkpoint."""
    out = checkpoint.parents[1] / "bundle"
    commands.export(ExportConfig(source=str(checkpoint), out=str(out)))
    return out


@pytest.fixture(scope="session")
def energy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What launch/finetune.py leaves of a mode, with random weights.

    Their energies vary by tenths of eV.
    """
    torch.manual_seed(1)
    model = EnergyModel(ENERGY_CONFIG)
    model.output_scale.fill_(0.01)
    folder = tmp_path_factory.mktemp("frozen")
    save_weights(model.state_dict(), folder / "model.safetensors")
    record = {
        "model": ENERGY_CONFIG.model_dump(mode="json"),
        "method": dataclasses.asdict(METHOD),
        "head": HeadConfig().model_dump(mode="json"),
    }
    (folder / "model.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="session")
def torch_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to safetensors, torch and what torch declares to need."""
    site = tmp_path_factory.mktemp("site")
    for name in _with_requirements("torch") | {"safetensors"}:
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {".."}:
            if not (site / top).exists():
                (site / top).symlink_to(str(distribution.locate_file(top)))
    return site


def _with_requirements(package: str) -> set[str]:
    """A package and the installed ones that it declares to need, extras left out."""
    try:
        lines = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    names = [re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line]
    return {package}.union(*map(_with_requirements, names))


def run_outsider(bundle: Path, site: Path) -> str:
    """Run outsider.py on a bundle, isolated; returns its standard output."""
    command = [sys.executable, "-I", "-S", str(ROOT / "tests/export/outsider.py"), str(site)]
    result = subprocess.run(command, cwd=bundle, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout
