"""launch/evaluate.py and launch/predict.py as a user runs them: files in, files out."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from helm_scale.config import ModelConfig
from helm_scale.data.format.shards import ShardWriter
from helm_scale.model.helm import Helm
from helm_scale.model.weights import save_weights
from helm_scale.types import Molecule
from tests.evaluation.labels import SVP

LABELLED = tuple[Molecule, np.ndarray]
Options = dict[str, object]
ROOT = Path(__file__).parents[2]
CONFIG = ModelConfig(
    basis="def2-svp", baseline="minao", lmax=4, mmax=1, channels=4, hidden_channels=4,
    edge_channels=8, num_layers=1, radial_functions=8,
)  # fmt: skip
XYZ = """3
key=one charge=0
O 0.0 0.0 0.1
H 0.76 0.1 0.68
H -0.74 0.0 0.58
2
key=two charge=-1
O 0.0 0.0 0.0
H 0.0 0.0 0.97
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model whose output is tiny, so that it predicts H0."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    model = Helm(CONFIG)
    model.set_reference(torch.zeros_like(model.reference), 1e-6)
    save_weights(model.state_dict(), folder / "model.safetensors", {})
    (folder / "model.json").write_text(
        json.dumps({"model": CONFIG.model_dump(mode="json"), "method": asdict(SVP)})
    )
    return folder


@pytest.fixture(scope="module")
def dataset(water: LABELLED, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two waters in split test."""
    folder = tmp_path_factory.mktemp("data") / "shards"
    writer = ShardWriter(folder, SVP, licence="CC0-1.0", source="test", molecules_per_shard=8)
    for key in ("first", "second"):
        writer.write(replace(water[0], key=key), "test")
    writer.close()
    return folder


def _launch(name: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    flags = [f"--{option}={value}" for option, value in options.items()]
    command = [sys.executable, str(ROOT / "launch" / f"{name}.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module")
def options(source: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Options:
    """Settings of a whole evaluation."""
    out = tmp_path_factory.mktemp("whole") / "evaluation"
    return {
        "source": source,
        "data": dataset,
        "out": out,
        "orbital_molecules": 1,
        "bond": "[0, 1]",
        "other": source,
    }


@pytest.fixture(scope="module")
def evaluated(options: Options) -> Path:
    """The folder that one command writes."""
    done = _launch("evaluate", **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"# Evaluation of {options['source']}\n")
    assert "evaluate: 100%" in done.stderr  # the progress bar
    return Path(str(options["out"]))


@pytest.mark.slow
def test_evaluate_writes_everything_with_one_command(evaluated: Path) -> None:
    assert {path.name for path in evaluated.iterdir()} == {
        "report.json", "report.md", "molecules", "hamiltonian.png", "error_by_element_pair.png",
        "error_by_distance.png", "orbitals.png", "cubes", "stretch.json", "stretch.png",
        "embedding.npz", "embedding.png",
    }  # fmt: skip
    took = re.search(
        r"All of this took (\d+) s on the clock and (\d+) s of processor time, 2 processes\.",
        (evaluated / "report.md").read_text(),
    )
    assert took and int(took[2]) > 0
    for path in evaluated.glob("*.png"):
        image = matplotlib.image.imread(path)
        assert image.shape[0] > 400 and image.shape[1] > 700, path.name
        assert image[..., :3].std() > 0.02, path.name


@pytest.mark.slow
def test_the_report_judges_prediction_and_truth(evaluated: Path) -> None:
    report = json.loads((evaluated / "report.json").read_text())
    assert report["molecules"] == 2
    assert report["molecules_with_orbitals"] == report["molecules_with_scf"] == 1
    assert report["method"]["xc"] == "pbe" and report["model"]["baseline"] == "minao"
    prediction, minao, truth = (report["rows"][name] for name in ("prediction", "minao", "truth"))
    name = "hamiltonian_mae_over_elements_uEh"
    assert prediction[name] == pytest.approx(minao[name], rel=1e-2)
    assert truth["energy_mae_meV"] < 1e-3  # through a shard
    assert truth["forces_mae_meV_per_angstrom"] < 1e-2


@pytest.mark.slow
def test_extras_stretch_a_bond_and_map_environments(evaluated: Path) -> None:
    points = json.loads((evaluated / "stretch.json").read_text())["points"]
    assert points[0]["reference"]["energy"] == pytest.approx(-76.2, abs=0.3)
    assert points[-1]["factor"] == 1.5
    with np.load(evaluated / "embedding.npz", allow_pickle=False) as maps:  # beside itself
        assert len(maps["atomic_numbers"]) == 6
        largest = np.abs(maps["pca_0"]).max()
        assert np.abs(maps["pca_0"] - maps["pca_1"]).max() < 1e-12 < largest


@pytest.mark.slow
def test_evaluate_resumes(evaluated: Path, options: Options) -> None:
    rows = json.loads((evaluated / "report.json").read_text())["rows"]
    before = {path: path.stat().st_mtime_ns for path in (evaluated / "molecules").iterdir()}
    again = _launch("evaluate", **options, extras=[])
    assert again.returncode == 0 and len(before) == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((evaluated / "molecules").iterdir())) == 2
    assert json.loads((evaluated / "report.json").read_text())["rows"] == rows


@pytest.mark.slow
def test_evaluate_judges_the_files_of_somebody_else(
    dataset: Path, water: LABELLED, tmp_path: Path
) -> None:
    assert water[0].hamiltonian is not None
    for key in ("first", "second"):
        np.savez(tmp_path / f"{key}.npz", hamiltonian=water[0].hamiltonian + 1e-5 * np.eye(24))
    few = {"extras": [], "orbital_molecules": 1, "energy_molecules": 1}
    options = {"source": tmp_path, "data": dataset, "out": tmp_path / "evaluation", **few}
    unnamed = _launch("evaluate", **options)
    assert unnamed.returncode == 1
    assert "ao_order: got '', wanted one of canonical, pyscf, orca, psi4" in unnamed.stderr
    done = _launch("evaluate", ao_order="canonical", **options)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "evaluation" / "report.json").read_text())["rows"]
    error = rows["prediction"]["hamiltonian_mae_over_elements_uEh"]
    assert error == pytest.approx(10 / 24, rel=1e-2)


@pytest.mark.slow
def test_predict_needs_no_labels(source: Path, tmp_path: Path) -> None:
    (tmp_path / "in.xyz").write_text(XYZ)
    out = tmp_path / "predicted"
    done = _launch("predict", source=source, xyz=tmp_path / "in.xyz", out=out)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["one.npz", "two.npz"]
    with np.load(out / "two.npz", allow_pickle=False) as file:
        assert file["charge"] == -1 and file["mo_occ"].sum() == 10
        assert file["hamiltonian"].shape == file["density_matrix_pyscf"].shape == (19, 19)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "changes", "message"),
    [
        ("evaluate", {"split": "tset"}, "no split 'tset'; known: test"),
        (
            "evaluate",
            {"source": "nowhere"},
            "nowhere: neither a folder nor a model that ships",
        ),
        ("predict", {"xyz": "missing.xyz"}, "missing.xyz: file not found; wanted extended XYZ"),
    ],
)
def test_a_mistake_ends_in_one_line(
    command: str, changes: dict[str, str], message: str, source: Path, dataset: Path
) -> None:
    options = (
        {"source": str(source)}
        | ({"data": str(dataset)} if command == "evaluate" else {})
        | changes
    )
    done = _launch(command, **options)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
