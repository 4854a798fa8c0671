"""The committed quickstart data is what its README says, and its command makes it."""

import runpy
from pathlib import Path

import ase.io
import numpy as np
import pytest

from helm_scale import commands, config
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader, verify
from helm_scale.data.format.xyz import read_xyz
from helm_scale.dft.generate import LabelJob, label, method_of
from helm_scale.types import Molecule

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "data_shards" / "quickstart"
SETTINGS = [
    "--config",
    str(ROOT / "configs" / "quickstart_data.yaml"),
    "--xyz",
    str(FOLDER / "molecules.xyz"),
    "--out",
    str(FOLDER),
]
# Hartree: largest element after two SCF runs, each converged to 1e-9 Hartree in the energy.
RELABELLED = 1e-5


@pytest.fixture(scope="module")
def molecules() -> dict[str, list[Molecule]]:
    """Molecules by split."""
    manifest = Manifest.load(FOLDER)
    reader = ShardReader(manifest)
    return {
        split: [reader.read(int(i)) for i in manifest.split(split)]
        for split in manifest.split_names()
    }


def element_pairs(molecules: list[Molecule]) -> set[tuple[int, int]]:
    """Unordered pairs of elements that occur in one molecule."""
    rows = [
        (m.atomic_numbers.tolist(), i, j)
        for m in molecules
        for i in range(len(m.atomic_numbers))
        for j in range(i)
    ]
    return {(min(z[i], z[j]), max(z[i], z[j])) for z, i, j in rows}


def test_it_is_sound_small_and_wide() -> None:
    manifest = Manifest.load(FOLDER)
    assert verify(FOLDER) == []
    assert len(manifest) >= 48 and len(manifest.elements) == 58 and not manifest.rejected
    assert manifest.atoms.min() >= 2 and manifest.atoms.max() <= 10
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 8e6
    assert min(len(manifest.split(name)) for name in ("train", "validation", "test")) >= 6


def test_whatever_is_tested_was_seen_in_training(molecules: dict[str, list[Molecule]]) -> None:
    seen = element_pairs(molecules["train"])
    assert (
        element_pairs(molecules["validation"]) <= seen and element_pairs(molecules["test"]) <= seen
    )


def test_the_command_finds_it_finished() -> None:
    before = {path: path.stat().st_mtime_ns for path in FOLDER.iterdir()}
    report = commands.shards_generate(config.load(config.GenerateConfig, SETTINGS))
    assert "97 molecules (train 81, validation 8, test 8)" in report and "rejected: 0" in report
    assert before == {path: path.stat().st_mtime_ns for path in FOLDER.iterdir()}


def test_labels_can_be_made_again(molecules: dict[str, list[Molecule]]) -> None:
    settings = config.load(config.GenerateConfig, SETTINGS)
    asked = {molecule.key: molecule for molecule in read_xyz(settings.xyz)[0]}
    for stored in molecules["train"]:
        if stored.key in ("HeH+", "LiF"):
            again = label(
                LabelJob(
                    molecule=asked[stored.key],
                    method=method_of(settings),
                    forces=True,
                    overlap=False,
                    max_cycle=50,
                )
            )
            for name in ("hamiltonian", "baseline_hamiltonian", "forces"):
                assert np.abs(getattr(again, name) - getattr(stored, name)).max() < RELABELLED
            assert again.energy == pytest.approx(stored.energy, abs=1e-8)


def test_the_script_writes_the_geometries() -> None:
    made = runpy.run_path(str(FOLDER / "make_xyz.py"))["molecules"]()
    kept = ase.io.read(FOLDER / "molecules.xyz", index=":")
    assert [atoms.info["key"] for atoms in made] == [atoms.info["key"] for atoms in kept]
    assert (
        max(np.abs(a.positions - b.positions).max() for a, b in zip(made, kept, strict=True)) < 1e-8
    )


def test_the_conformers_are_sound_small_and_made_by_their_command() -> None:
    folder = ROOT / "data_shards" / "conformers"
    manifest = Manifest.load(folder)
    assert verify(folder) == [] and not manifest.rejected
    by_split = {name: len(manifest.split(name)) for name in manifest.split_names()}
    assert by_split == {"train": 60, "validation": 6, "test": 18}
    assert set(manifest.elements) == {"H", "C", "O", "I"}
    shards = [*folder.glob("*.tar"), *FOLDER.glob("*.tar")]
    assert sum(path.stat().st_size for path in shards) < 12e6
    where = ["--xyz", str(folder / "molecules.xyz"), "--out", str(folder)]
    report = commands.shards_generate(config.load(config.GenerateConfig, [*SETTINGS[:2], *where]))
    assert "84 molecules (train 60, validation 6, test 18)" in report
