"""Every importer gives back the matrices that its file was made of, with method, splits and licence; killed, it goes on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helm_scale.basis.layout import ao_offsets
from helm_scale.batch import Molecule
from helm_scale.config import ImportConfig
from helm_scale.data.manifest import Manifest
from helm_scale.data.shards import ShardReader, verify
from helm_scale.importers import run
from tests.importers import layouts
from tests.importers.conftest import Labels
from tests.tolerances import SHARD_MAX, SHARD_MEAN

WB97X_D = "hyb_gga_xc_wb97x_d"
FLOAT32_FILES = ("md17", "nabla-dft")
Case = tuple[str, str, list[str], Callable[[Path, list[Molecule]], Path], dict]
CASES: list[Case] = [
    ("md17", "pbe", ["water", "stretched"], layouts.write_md17, {}),
    ("qh9-stable", "b3lyp5", ["water", "fluoride"], layouts.write_qh9_stable, {}),
    ("qh9-dynamic", "b3lyp5", ["water", "fluoride"], layouts.write_qh9_dynamic, {}),
    ("nabla-dft", WB97X_D, ["water", "fluoride"], layouts.write_nabla_dft, {}),
    ("omol-csh-58k", "pbe", ["fluoride", "hydride"], layouts.write_omol, {"xc": "pbe"}),
    ("npz", "pbe", ["fluoride", "water"], layouts.write_npz, {"xc": "pbe", "basis": "def2-svp", "licence": "CC0-1.0"}),
]


def config(dataset: str, source: Path, out: Path, **more: object) -> ImportConfig:
    """Import settings; every sample is proven."""
    settings = {"proof_share": 1.0, "molecules_per_shard": 1, "processes": 1, **more}
    return ImportConfig(dataset=dataset, source=str(source), out=str(out), **settings)


@pytest.mark.parametrize(("dataset", "xc", "names", "write", "more"), CASES, ids=[case[0] for case in CASES])
def test_imported_matrices_are_the_originals(
    dataset: str, xc: str, names: list[str], write: Callable, more: dict, labels: Labels, tmp_path: Path
) -> None:
    basis = "def2-tzvpd" if "omol" in dataset else "def2-svp"
    originals = [labels(name, xc, basis) for name in names]
    file = write(tmp_path / "source", originals)
    made, proven = run.import_dataset(config(dataset, file, tmp_path / "out", **more))
    assert len(made) == 2 and (proven.samples, proven.consistent) == (4, 4) and verify(tmp_path / "out") == []
    assert (made.method.xc, made.method.basis) == (xc, basis) and made.licence == (more.get("licence") or run.DATASETS[dataset].licence)
    reader = ShardReader(made)
    for number, original in enumerate(originals):
        found = reader.read(number)
        assert original.hamiltonian is not None and found.hamiltonian is not None
        wanted = original.hamiltonian.astype(np.float32).astype(np.float64) if dataset in FLOAT32_FILES else original.hamiltonian
        error = np.abs(found.hamiltonian - wanted)
        assert error.max() < SHARD_MAX and error.mean() < SHARD_MEAN
        assert np.array_equal(found.atomic_numbers, original.atomic_numbers)
        assert np.abs(found.positions - original.positions).max() < (1e-6 if dataset == "nabla-dft" else 1e-12)
        if found.forces is not None:
            assert original.forces is not None and np.abs(found.forces - original.forces).max() < 1e-6
        if found.energy is not None:
            assert original.energy is not None and abs(found.energy - original.energy) < 1e-5
    kept = {"md17": ("energy", "forces"), "nabla-dft": ("energy", "forces"), "npz": ("energy",)}
    assert set(made.labels) == {"hamiltonian", *kept.get(dataset, ())}


def test_orca_triangles_with_overlap_and_baseline_in_npz_files(labels: Labels, tmp_path: Path) -> None:
    original = labels("fluoride", "pbe", "def2-tzvpd")
    method = '{"xc": "pbe", "basis": "def2-tzvpd", "program": "ORCA 5"}'
    folder = layouts.write_npz(tmp_path / "npz", [original], "orca", triangle=True, method=method)
    made, _ = run.import_dataset(config("npz", folder, tmp_path / "out", order="orca", licence="MIT", baseline="minao", overlap=True))
    found = ShardReader(made).read(0)
    for name in ("hamiltonian", "overlap"):
        error = np.abs(getattr(found, name) - getattr(original, name))
        assert error.max() < SHARD_MAX and error.mean() < SHARD_MEAN
    assert made.method == replace(original.method, program="ORCA 5", conv_tol=1e-9, baseline="minao")
    assert found.baseline_hamiltonian is not None and 1e-3 < np.abs(found.baseline_hamiltonian - found.hamiltonian).max() < 2


def test_forces_that_are_all_zero_are_left_out(labels: Labels, tmp_path: Path) -> None:
    file = layouts.write_nabla_dft(tmp_path / "n.db", [labels("water", WB97X_D, "def2-svp")], forces=False)
    made, _ = run.import_dataset(config("nabla-dft", file, tmp_path / "out"))
    assert made.labels == ("hamiltonian", "energy")


def test_a_killed_import_goes_on_and_gives_the_same_bytes(labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = layouts.write_qh9_stable(tmp_path / "q.db", [labels(name, "b3lyp5", "def2-svp") for name in ("water", "fluoride")])
    whole, killed = (config("qh9-stable", file, tmp_path / name) for name in ("whole", "killed"))
    first, _ = run.import_dataset(whole)

    def join(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(run.joining, "join", join)
        run.import_dataset(killed)
    parts = tmp_path / "killed" / "unfinished"
    (parts / "part-000001" / "manifest.json").unlink()  # as if killed in the middle of the second shard
    kept = (parts / "part-000000" / "shard-000000.tar").stat().st_mtime_ns
    with pytest.raises(ValueError, match=r"part-000000: begun with another method: .*'b3lyp5'.*, now .*'b3lyp'"):
        run.import_dataset(killed.model_copy(update={"xc": "b3lyp"}))
    second, proven = run.import_dataset(killed)
    assert (tmp_path / "killed" / "shard-000000.tar").stat().st_mtime_ns == kept and proven.samples == 3 and not parts.exists()
    for name in ("manifest.json", "shard-000000.tar", "shard-000001.tar"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert run.import_dataset(killed)[1].samples == 0 and second.hash == first.hash
    with pytest.raises(ValueError, match="holds a finished dataset of another input"):
        run.import_dataset(killed.model_copy(update={"samples": 1}))


def test_a_sample_is_read_alone(labels: Labels, tmp_path: Path) -> None:
    file = layouts.write_md17(tmp_path / "m.db", [labels("water", "pbe", "def2-svp"), labels("stretched", "pbe", "def2-svp")])
    made, proven = run.import_dataset(config("md17", file, tmp_path / "out", samples=1, proof_share=0.0))
    assert made.key.tolist() == ["md17-H2O-1"] and proven.samples == 1 and isinstance(made, Manifest)
    assert ShardReader(made).read(0).hamiltonian.shape == (int(ao_offsets("def2-svp", np.array([8, 1, 1]))[-1]),) * 2
