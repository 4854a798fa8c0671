"""Every importer gives back the matrices that its file was made of, with method and splits.

The licence is kept, too, and an import that was killed goes on.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helm_scale.config import ImportConfig
from helm_scale.data.format.manifest import RejectedMolecule
from helm_scale.data.format.shards import ShardReader, verify
from helm_scale.importers import registry, run
from helm_scale.types import Molecule
from tests.importers import layouts
from tests.importers.conftest import Labels
from tests.tolerances import SHARD_MAX, SHARD_MEAN

ROOT = Path(__file__).parents[2]
WB97X_D = "hyb_gga_xc_wb97x_d"
HALF_STEP = (
    2**-25
)  # Hartree: what a shard rounds an off-site element to; on-site blocks stay in float64
FLOAT32_FILES = ("md17", "nabla-dft")
Case = tuple[str, str, list[str], Callable[[Path, list[Molecule]], Path], dict]
CASES: list[Case] = [
    ("md17", "pbe", ["water", "stretched"], layouts.write_md17, {}),
    ("qh9-stable", "b3lyp5", ["water", "fluoride"], layouts.write_qh9_stable, {}),
    ("qh9-dynamic", "b3lyp5", ["water", "fluoride"], layouts.write_qh9_dynamic, {}),
    ("nabla-dft", WB97X_D, ["water", "fluoride"], layouts.write_nabla_dft, {}),
    ("omol-csh-58k", "pbe", ["fluoride", "iodide"], layouts.write_omol, {"xc": "pbe"}),
    (
        "npz",
        "pbe",
        ["fluoride", "water"],
        layouts.write_npz,
        {"xc": "pbe", "basis": "def2-svp", "licence": "CC0-1.0"},
    ),
]


def config(dataset: str, source: Path, out: Path, **more: object) -> ImportConfig:
    """Import settings; every sample is proven."""
    settings = {"proof_share": 1.0, "molecules_per_shard": 1, "processes": 1, **more}
    return ImportConfig(dataset=dataset, source=str(source), out=str(out), **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "xc", "names", "write", "more"), CASES, ids=[case[0] for case in CASES]
)
def test_imported_matrices_are_the_originals(
    dataset: str,
    xc: str,
    names: list[str],
    write: Callable,
    more: dict,
    labels: Labels,
    tmp_path: Path,
) -> None:
    basis = "def2-tzvpd" if "omol" in dataset else "def2-svp"
    originals = [labels(name, xc, basis) for name in names]
    file = write(tmp_path / "source", originals)
    made, proven = run.import_dataset(config(dataset, file, tmp_path / "out", **more))
    assert (
        len(made) == 2
        and (proven.samples, proven.consistent) == (4, 4)
        and verify(tmp_path / "out") == []
    )
    assert (made.method.xc, made.method.basis) == (xc, basis) and made.licence == (
        more.get("licence") or registry.find(dataset).licence
    )
    reader = ShardReader(made)
    for number, original in enumerate(originals):
        found = reader.read(number)
        assert original.hamiltonian is not None and found.hamiltonian is not None
        wanted = (
            original.hamiltonian.astype(np.float32).astype(np.float64)
            if dataset in FLOAT32_FILES
            else original.hamiltonian
        )
        error = np.abs(found.hamiltonian - wanted)
        assert error.max() < HALF_STEP and error.mean() < SHARD_MEAN
        assert np.array_equal(found.atomic_numbers, original.atomic_numbers)
        assert np.abs(found.positions - original.positions).max() < (
            1e-6 if dataset == "nabla-dft" else 1e-12
        )
        if found.forces is not None:
            assert (
                original.forces is not None and np.abs(found.forces - original.forces).max() < 1e-6
            )
        if found.energy is not None:
            assert original.energy is not None and abs(found.energy - original.energy) < 1e-5
    kept = {"md17": ("energy", "forces"), "nabla-dft": ("energy", "forces"), "npz": ("energy",)}
    assert set(made.labels) == {"hamiltonian", *kept.get(dataset, ())}


@pytest.mark.slow
def test_orca_triangles_with_overlap_and_baseline_in_npz_files(
    labels: Labels, tmp_path: Path
) -> None:
    original = labels("fluoride", "pbe", "def2-tzvpd")
    method = '{"xc": "pbe", "basis": "def2-tzvpd", "program": "ORCA 5"}'
    folder = layouts.write_npz(tmp_path / "npz", [original], "orca", triangle=True, method=method)
    made, _ = run.import_dataset(
        config(
            "npz",
            folder,
            tmp_path / "out",
            order="orca",
            licence="MIT",
            baseline="minao",
            overlap=True,
        )
    )
    found = ShardReader(made).read(0)
    for name in ("hamiltonian", "overlap"):
        error = np.abs(getattr(found, name) - getattr(original, name))
        assert error.max() < SHARD_MAX and error.mean() < SHARD_MEAN
    assert made.method == replace(
        original.method, program="ORCA 5", conv_tol=1e-9, baseline="minao"
    )
    assert (
        found.baseline_hamiltonian is not None
        and 1e-3 < np.abs(found.baseline_hamiltonian - found.hamiltonian).max() < 2
    )


def test_forces_that_are_all_zero_are_left_out(labels: Labels, tmp_path: Path) -> None:
    for forces in (False, True):
        file = layouts.write_nabla_dft(
            tmp_path / f"{forces}.db", [labels("water", WB97X_D, "def2-svp")], forces=forces
        )
        found = registry.find("nabla-dft").open(file, ImportConfig()).read(0).molecule
        assert (found.forces is not None) == forces and found.energy is not None


@pytest.mark.slow
def test_a_killed_import_goes_on_and_gives_the_same_bytes(labels: Labels, tmp_path: Path) -> None:
    file = layouts.write_qh9_stable(
        tmp_path / "q.db",
        [labels(name, "b3lyp5", "def2-svp") for name in ("water", "fluoride", "water")],
    )
    settings = config("qh9-stable", file, tmp_path / "killed")
    options = [
        word
        for name, value in settings.model_dump(exclude_defaults=True).items()
        for word in (f"--{name}", str(value))
    ]
    process = subprocess.Popen(
        [sys.executable, "launch/shards.py", "import", "qh9-stable", *options],
        cwd=ROOT,
        start_new_session=True,
    )
    staging, deadline = tmp_path / "killed" / "staging", time.monotonic() + 300
    while not (staging / "part-000000" / "manifest.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    kept = (staging / "part-000000" / "shard-000000.tar").stat().st_mtime_ns
    with pytest.raises(
        ValueError, match=r"part-000000 and what is asked for now differ: xc 'b3lyp5' and 'b3lyp'"
    ):
        run.import_dataset(settings.model_copy(update={"xc": "b3lyp"}))
    second, _ = run.import_dataset(settings)
    assert (
        tmp_path / "killed" / "shard-000000.tar"
    ).stat().st_mtime_ns == kept and not staging.exists()
    first, proven = run.import_dataset(
        settings.model_copy(update={"out": str(tmp_path / "whole"), "processes": 2})
    )
    assert proven.samples == 6
    for name in ("manifest.json", *(f"shard-00000{number}.tar" for number in range(3))):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert run.import_dataset(settings)[1].samples == 0 and second.hash == first.hash
    with pytest.raises(ValueError, match=r"the finished dataset in .* differ: input"):
        run.import_dataset(settings.model_copy(update={"samples": 1}))


def test_an_import_killed_while_shards_move_goes_on(
    labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = layouts.write_qh9_stable(
        tmp_path / "q.db",
        [labels("water", "b3lyp5", "def2-svp"), labels("fluoride", "b3lyp5", "def2-svp")],
    )
    settings, move = config("qh9-stable", file, tmp_path / "out", proof_share=0.0), run._move

    def interrupted(shard: Path, target: Path) -> None:
        if target.name == "shard-000001.tar":
            raise KeyboardInterrupt
        move(shard, target)

    with monkeypatch.context() as change, pytest.raises(KeyboardInterrupt):
        change.setattr(run, "_move", interrupted)
        run.import_dataset(settings)
    assert (tmp_path / "out" / "shard-000000.tar").exists()
    assert len(run.import_dataset(settings)[0]) == 2 and verify(tmp_path / "out") == []


@pytest.mark.slow
def test_the_first_samples_or_all_but_some(labels: Labels, tmp_path: Path) -> None:
    file = layouts.write_md17(
        tmp_path / "m.db",
        [labels("water", "pbe", "def2-svp"), labels("stretched", "pbe", "def2-svp")],
    )
    made, proven = run.import_dataset(
        config("md17", file, tmp_path / "first", samples=1, proof_share=0.0)
    )
    assert made.key.tolist() == ["md17-H2O-1"] and proven == run.ProofCounts(1, 1)
    made, _ = run.import_dataset(config("md17", file, tmp_path / "rest", exclude=("1",)))
    assert made.key.tolist() == ["md17-H2O-2"] and made.rejected == (
        RejectedMolecule("1", "excluded by the user"),
    )
    with pytest.raises(ValueError, match="exclude: no sample '7'"):
        run.import_dataset(config("md17", file, tmp_path / "none", exclude=("1", "7")))
    with pytest.raises(ValueError, match="all are excluded"):
        run.import_dataset(config("md17", file, tmp_path / "none", exclude=("1", "2")))


def test_an_import_in_which_nothing_proves_the_functional_is_refused(
    labels: Labels, tmp_path: Path
) -> None:
    file = layouts.write_qh9_stable(tmp_path / "q.db", [labels("water", "b3lyp5", "def2-svp")])
    with pytest.raises(
        ValueError,
        match="none of the first 4 samples has at most 2 atoms, so nothing proves the functional",
    ):
        run.import_dataset(config("qh9-stable", file, tmp_path / "out", proof_atoms=2))
    _, proven = run.import_dataset(
        config("qh9-stable", file, tmp_path / "out", proof_atoms=0, proof_share=0.0)
    )
    assert proven == run.ProofCounts(1, 0)
