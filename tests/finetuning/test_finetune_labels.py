"""From files to tables and models: shards, extended XYZ and ASE databases; mistakes are named."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ase
import ase.db
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator

from helm_scale import commands
from helm_scale.config import FinetuneConfig
from helm_scale.data.format.shards import ShardWriter
from helm_scale.data.graphs.collate import collate
from helm_scale.evaluation.summary import summarise
from helm_scale.finetuning import labels
from helm_scale.model.weights import save_weights
from helm_scale.units import HARTREE_IN_EV
from tests.finetuning.made_up import CONFIG, METHOD, MODES, backbone, molecules

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint and a dataset of energies."""
    root = tmp_path_factory.mktemp("finetune")
    (root / "step-00000001").mkdir()
    save_weights(backbone().state_dict(), root / "step-00000001" / "model.safetensors")
    record = {"model": CONFIG.model_dump(mode="json"), "method": asdict(METHOD)}
    (root / "step-00000001" / "model.json").write_text(json.dumps(record))
    writer = ShardWriter(
        root / "data", METHOD, licence="CC0-1.0", source="test", molecules_per_shard=64
    )
    for split, count, seed in (("train", 12, 1), ("validation", 3, 3), ("test", 3, 2)):
        for molecule in molecules(count, seed):
            writer.write(molecule, split)
    writer.close()
    yield root


@pytest.mark.slow
def test_the_launcher_writes_tables_record_pictures_and_models(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable, "launch/finetune.py", "--source", source / "step-00000001",
        "--data", source / "data", "--out", out, "--cache", tmp_path / "cache", "--steps", "2",
        "--threads", "1", "--sizes", "[8, 12]", "--seeds", "[0, 1]",
    ]  # fmt: skip
    result = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == (out / "table.md").read_text().strip()
    assert (
        "| layer 2 |" in result.stdout
        and "backbone, frozen" in result.stdout
        and "+-" in result.stdout
    )
    assert "network without pretraining" in summarise(out)
    report = json.loads((out / "report.json").read_text())
    assert [row["mode"] for row in report["rows"][:4]] == [
        "reference only",
        *MODES,
    ] and len(report["rows"]) == 16
    assert all(
        (out / name).stat().st_size > 1000 for name in ("learning_curve.png", "frozen/parity.png")
    )
    for mode in MODES:
        model, record = commands.load_energy_model(out / mode)
        (row,) = (
            row
            for row in report["rows"]
            if (row["mode"], row["size"], row["seed"]) == (mode, 12, 0)
        )
        assert record["training"] == row and record["method"]["xc"] == "pbe"
        assert model.training_domain is not None and model.training_domain.molecules == 12
        held = molecules(3, 2)
        with torch.no_grad():
            error = model(collate(held, CONFIG)) - torch.tensor([m.energy for m in held])
        assert float(error.abs().mean()) == pytest.approx(row["tests"]["test"]["mae"], rel=1e-3)
    with pytest.raises(ValueError, match="no energy head: a model of Hamiltonians"):
        commands.load_energy_model(source / "step-00000001")


def test_splits_and_sizes_that_do_not_exist_are_named(source: Path) -> None:
    config = FinetuneConfig(data=str(source / "data"), test_splits=("exam",))
    with pytest.raises(ValueError, match="no split 'exam'; known: test, train, validation"):
        labels.read(config)
    with pytest.raises(
        ValueError, match=r"sizes: got 50, but split 'train' of .* has 12 molecules"
    ):
        labels.read(FinetuneConfig(data=str(source / "data"), sizes=(50,)))


def frames(count: int, **info: Any) -> list[ase.Atoms]:
    """Molecules as ASE has them: eV and eV/Angstrom, in the calculator."""
    labelled = []
    for molecule in molecules(count, 1):
        atoms = ase.Atoms(molecule.atomic_numbers, molecule.positions, info=dict(info))
        atoms.info["multiplicity"] = 1 + int(molecule.atomic_numbers.sum()) % 2
        assert molecule.energy is not None and molecule.forces is not None
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=molecule.energy * HARTREE_IN_EV,
            forces=molecule.forces * HARTREE_IN_EV,
        )
        labelled.append(atoms)
    return labelled


@pytest.mark.parametrize("way", ["energy.xyz", "REF_energy.xyz", "rows.db"])
def test_energies_are_read_in_electronvolt_however_they_are_stored(
    way: str, tmp_path: Path
) -> None:
    path, wanted = tmp_path / way, molecules(20, 1)
    if way == "rows.db":
        with ase.db.connect(path) as rows:
            for atoms in frames(20):
                rows.write(atoms, multiplicity=atoms.info["multiplicity"])
    else:
        written = frames(20)
        if way.startswith("REF"):
            for atoms in written:
                atoms.info["REF_energy"], atoms.arrays["REF_forces"] = (
                    atoms.get_potential_energy(),
                    atoms.get_forces(),
                )
                atoms.calc = SinglePointCalculator(
                    atoms, energy=0.0, forces=np.zeros((len(atoms), 3))
                )
        ase.io.write(path, written, format="extxyz")
    splits = labels.read(FinetuneConfig(data=str(path)))
    assert (len(splits.train), len(splits.validation), len(splits.tests["test"])) == (16, 2, 2)
    every = {m.key: m for m in splits.all_molecules()}
    for number, molecule in enumerate(wanted):
        got = every[f"frame-{number:06d}"]
        assert (
            got.energy == pytest.approx(molecule.energy, abs=1e-7)
            and np.abs(got.forces - molecule.forces).max() < 1e-7
        )
    assert [m.key for m in labels.read(FinetuneConfig(data=str(path))).train] == [
        m.key for m in splits.train
    ]


def test_free_atoms_and_splits_of_a_file_are_heeded(tmp_path: Path) -> None:
    labelled = [*frames(6), *frames(2, split="test")]
    atom = ase.Atoms("Br", info={"config_type": "IsolatedAtom"})
    atom.calc = SinglePointCalculator(atom, energy=-70000.0)
    ase.io.write(tmp_path / "a.xyz", [*labelled, atom], format="extxyz")
    splits = labels.read(FinetuneConfig(data=str(tmp_path / "a.xyz")))
    assert (len(splits.train), len(splits.validation), len(splits.tests["test"])) == (6, 0, 2)
    assert splits.atoms == {35: pytest.approx(-70000.0 / HARTREE_IN_EV)}


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "bare.xyz", ase.Atoms("HH", np.eye(2, 3)), format="extxyz")
    with pytest.raises(
        ValueError,
        match=r"bare.xyz, frame 0, line 1 \(frame-000000\): no energy;"
        " wanted REF_energy or energy, in eV",
    ):
        labels.read(FinetuneConfig(data=str(tmp_path / "bare.xyz")))
    (tmp_path / "text.db").write_text("no database")
    with pytest.raises(ValueError, match=r"text.db: not an ASE database"):
        labels.read(FinetuneConfig(data=str(tmp_path / "text.db")))
    with pytest.raises(ValueError, match=r"none.db: file not found"):
        labels.read(FinetuneConfig(data=str(tmp_path / "none.db")))


def test_forces_that_are_not_learned_are_said_aloud(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = FinetuneConfig(data=str(source / "data"))
    labels.read(config.model_copy(update={"target": "forces"}))
    assert not caplog.messages
    labels.read(config)
    assert caplog.messages == [
        f"{source / 'data'}: 12 of 12 training molecules have forces, which target: energy does"
        " not learn; set target: forces"
    ]


@pytest.mark.parametrize("count", [1, 3, 4])
def test_files_too_small_to_divide_are_refused(count: int, tmp_path: Path) -> None:
    path = tmp_path / "few.xyz"
    ase.io.write(path, frames(count), format="extxyz")
    with pytest.raises(ValueError, match=rf"few.xyz: {count} molecules are too few to be divided"):
        labels.read(FinetuneConfig(data=str(path)))


def test_five_molecules_can_be_divided(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "five.xyz", frames(5), format="extxyz")
    splits = labels.read(FinetuneConfig(data=str(tmp_path / "five.xyz")))
    assert (len(splits.train), len(splits.validation), len(splits.tests["test"])) == (4, 0, 1)


WATER = "3\nREF_energy=-2078 {}\nO 0 0 0.12\nH 0 0.76 -0.47\nH 0 -0.76 -0.47\n"


def e0s(given: str, tmp_path: Path, **more: Any) -> dict[int, float]:
    """Energies of free atoms that finetuning on five waters uses, eV."""
    atom = "1\nconfig_type=IsolatedAtom REF_energy=-13.6\nH 0 0 0\n"
    (tmp_path / "water.xyz").write_text(5 * WATER.format("") + atom)
    config = FinetuneConfig(data=str(tmp_path / "water.xyz"), e0s=given, **more)
    return {z: HARTREE_IN_EV * e for z, e in labels.read(config).atoms.items()}


@pytest.mark.parametrize("text", ['{"8": -2041.8}', "{8: -2041.8, 1: -13.6}", '{"O": [-2041.8]}'])
def test_energies_of_free_atoms_come_as_mace_has_them(text: str, tmp_path: Path) -> None:
    (tmp_path / "e0s.json").write_text('{"8": -2041.8}')
    for given in (text, str(tmp_path / "e0s.json")):
        assert e0s(given, tmp_path) == {1: pytest.approx(-13.6), 8: pytest.approx(-2041.8)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"8": -75.03}', "e0s: O: energy -75.03 eV is no total .*energy_unit: Hartree"),
        ('{"1": -13.5}', r"e0s: H: -0.496\d+ Eh, but a free atom of .*water.xyz has -0.4997"),
        ('{"8": null}', "e0s: 8, in eV: got None"),
        ('{"8": -2041.8', "e0s: not JSON"),
        ("{8: None}", "e0s: 8, in eV: got None, wanted a number"),
        ('{"8": "-2041.8 eV"}', "e0s: 8, in eV: got '-2041.8 eV'"),
        ('{"Oxygen": -2041.8}', "e0s: Oxygen: unknown element"),
        ('{"O": -2041.8, "8": -2041.8}', "e0s: 8: a second energy of this element"),
        ("{}", "e0s: got no energies by element"),
        ('{"default": {"8": -2041.8}}', "e0s: default: unknown element"),
        ("average", "e0s: got 'average', wanted a JSON file, .*leave it out to have them fitted"),
        ("nowhere.json", "e0s: got 'nowhere.json', wanted a JSON file"),
    ],
)
def test_energies_of_free_atoms_that_cannot_be_are_refused(
    given: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        e0s(given, tmp_path)


def test_energies_of_free_atoms_belong_to_energies(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"e0s: .* target is dipole; leave it out"):
        text = (5 * WATER).format(*5 * ['REF_dipole="0 0 1"'])
        (tmp_path / "dipoles.xyz").write_text(text)
        config = FinetuneConfig(
            data=str(tmp_path / "dipoles.xyz"), target="dipole", e0s='{"8": -2041.8}'
        )
        labels.read(config)
