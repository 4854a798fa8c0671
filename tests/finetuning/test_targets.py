"""Dipoles and a property of one's own, from PySCF's labels to tables and models.

Labels are real: HF, water and HOF in distorted geometries at PBE/def2-SVP.
"""

import json
from dataclasses import asdict
from pathlib import Path

import ase
import ase.db
import ase.io
import numpy as np
import pytest
import scipy.linalg
import torch
from ase.calculators.singlepoint import SinglePointCalculator

from helm_scale import commands
from helm_scale.config import FinetuneConfig, GenerateConfig, load
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader
from helm_scale.data.graphs.collate import collate
from helm_scale.finetuning import labels
from helm_scale.model.heads import HEADS
from helm_scale.model.properties import PropertyModel
from helm_scale.model.weights import save_weights
from helm_scale.types import Molecule
from helm_scale.units import HARTREE_IN_EV
from tests.finetuning.gap_head import GAP
from tests.finetuning.made_up import CONFIG, METHOD, backbone
from tests.rotations import random_rotation

SHAPES = {
    "HF": [[0.0, 0, 0], [0, 0, 0.92]],
    "OHH": [[0.0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]],
    "OHF": [[0.0, 0, 0], [0.97, 0, 0], [-0.2, 1.42, 0]],
}


def geometries() -> list[ase.Atoms]:
    """Every shape nine times, distorted and turned: seven to train, two to test."""
    rng, frames = np.random.default_rng(0), []
    for symbols, shape in SHAPES.items():
        for number in range(9):
            x = np.array(shape) + rng.normal(scale=0.06, size=(len(symbols), 3))
            info = {"key": f"{symbols}-{number}", "split": "test" if number > 6 else "train"}
            turned = x @ random_rotation(len(frames)).numpy().T + rng.normal(size=3)
            frames.append(ase.Atoms(symbols, turned, info=info))
    return frames


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with dipoles in `data`, and an untrained checkpoint in `source`."""
    root = tmp_path_factory.mktemp("targets")
    ase.io.write(root / "in.xyz", geometries(), format="extxyz")
    commands.shards_generate(
        GenerateConfig(
            xyz=str(root / "in.xyz"),
            out=str(root / "data"),
            basis="def2-svp",
            grid_level=0,
            conv_tol=1e-8,
            forces=False,
            overlap=True,
            dipole=True,
            processes=1,
        )
    )
    (root / "source").mkdir()
    save_weights(backbone().state_dict(), root / "source" / "model.safetensors")
    record = {"model": CONFIG.model_dump(mode="json"), "method": asdict(METHOD)}
    (root / "source" / "model.json").write_text(json.dumps(record))
    return root


def molecules(root: Path) -> list[Molecule]:
    reader = ShardReader(Manifest.load(root / "data"))
    return [reader.read(number) for number in range(len(reader))]


def settings(root: Path, target: str, out: Path, **changes: object) -> FinetuneConfig:
    flags = {"source": root / "source", "data": root / "data", "target": target, "out": out}
    flags |= {"steps": 40, "modes": "[frozen, finetuned]", "learning_rate": 1e-2, **changes}
    return load(FinetuneConfig, [f"--{name}={value}" for name, value in flags.items()])


def errors(out: Path) -> dict[str, float]:
    """Test error of every mode."""
    rows = json.loads((out / "report.json").read_text())["rows"]
    return {row["mode"]: row["tests"]["test"]["mae"] for row in rows}


def write_frames(path: Path, root: Path, name: str, values: list[np.ndarray]) -> None:
    """The molecules with a label in the calculator where ASE knows it, else in the comment."""
    frames = []
    for molecule, value in zip(molecules(root), values, strict=True):
        frame = ase.Atoms(molecule.atomic_numbers, molecule.positions)
        if name == "dipole":
            frame.calc = SinglePointCalculator(frame, dipole=value)
        else:
            frame.info[name] = float(value)
        frames.append(frame)
    if path.suffix == ".db":
        with ase.db.connect(path) as rows:
            for frame in frames:
                rows.write(frame)
    else:
        ase.io.write(path, frames, format="extxyz")


def test_dipoles_are_learned_from_shards_and_reported_in_millidebye(
    root: Path, tmp_path: Path
) -> None:
    table = commands.finetune(settings(root, "dipole", tmp_path))
    assert "| MAE, mD |" in table and "/atom" not in table and "dipole, at pbe/def2-svp" in table
    found = errors(tmp_path)
    assert max(found["frozen"], found["finetuned"]) < 0.2 * found["reference only"]
    model, record = commands.load_property_model(tmp_path / "finetuned")
    assert record["target"] == "dipole" and record["units"] == "e*Angstrom, Angstrom"
    test = [m for m in molecules(root) if m.key[-1] in "78"]
    predicted = predict(model, test)
    wanted = torch.tensor(np.array([m.properties["dipole"] for m in test]))
    assert float((predicted - wanted).abs().mean()) == pytest.approx(found["finetuned"], rel=1e-3)
    with pytest.raises(ValueError, match="a model of the target dipole, wanted energy"):
        commands.load_energy_model(tmp_path / "finetuned")


def predict(model: PropertyModel, some: list[Molecule]) -> torch.Tensor:
    bare = [Molecule(m.key, m.atomic_numbers, m.positions, charge=m.charge) for m in some]
    with torch.no_grad():
        return model(collate(bare, model.config))


@pytest.mark.parametrize("name", ["dipoles.xyz", "dipoles.db"])
def test_dipoles_of_files_are_those_of_shards(root: Path, tmp_path: Path, name: str) -> None:
    wanted = [m.properties["dipole"] for m in molecules(root)]
    write_frames(tmp_path / name, root, "dipole", wanted)
    read = labels.read(FinetuneConfig(data=str(tmp_path / name), target="dipole"))
    by_key = {m.key: m.properties["dipole"] for m in read.all_molecules()}
    assert len(by_key) == len(wanted) and np.abs(wanted).max() > 0.3
    for number, value in enumerate(wanted):
        assert by_key[f"frame-{number:06d}"] == pytest.approx(value, abs=1e-7)


def test_a_head_is_one_file_and_one_line(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HEADS, "gap", GAP)  # the line
    gaps = []
    for molecule in molecules(root):
        levels = scipy.linalg.eigh(molecule.hamiltonian, molecule.overlap, eigvals_only=True)
        occupied = int(molecule.atomic_numbers.sum()) // 2
        gaps.append(HARTREE_IN_EV * (levels[occupied] - levels[occupied - 1]))
    write_frames(tmp_path / "gaps.xyz", root, "gap", gaps)
    out = tmp_path / "out"
    table = commands.finetune(settings(root, "gap", out, data=tmp_path / "gaps.xyz"))
    assert "| MAE, meV |" in table and "/atom" not in table
    found = errors(out)
    # Not the finetuned one: two validation molecules choose its step, and rounding their favourite
    assert found["frozen"] < 0.2 * found["reference only"]
    first = molecules(root)[0]
    model, _ = commands.load_property_model(out / "finetuned")
    assert HARTREE_IN_EV * float(predict(model, [first])) == pytest.approx(gaps[0], abs=2.0)


def test_targets_and_labels_that_do_not_exist_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"target: got 'charge', wanted one of energy, dipole, for"
    ):
        commands.finetune(settings(root, "charge", tmp_path))
    with pytest.raises(ValueError, match=r"force_weight: got 1\.0, but target is energy; set targ"):
        FinetuneConfig(force_weight=1.0)
    ase.io.write(tmp_path / "bare.xyz", ase.Atoms("HF", SHAPES["HF"]), format="extxyz")
    bare = FinetuneConfig(data=str(tmp_path / "bare.xyz"), target="dipole")
    with pytest.raises(ValueError, match=r"no dipole; wanted REF_dipole or dipole, in e\*Angstrom"):
        labels.read(bare)
    frame = ase.Atoms("HF", SHAPES["HF"], info={"dipole": np.ones(2)})
    ase.io.write(tmp_path / "bare.xyz", frame, format="extxyz")
    with pytest.raises(
        ValueError, match=r"dipole, in e\*Angstrom: got shape \(2,\), wanted \(3,\)"
    ):
        labels.read(bare)
