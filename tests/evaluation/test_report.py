"""The report: means of sums and counts, units everywhere, pictures that open."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from helm_scale.batch import Molecule
from helm_scale.evaluation.protocol import Job, Record, evaluate_molecule
from helm_scale.evaluation.report import build_report, tables, write_report
from tests.evaluation.labels import SVP, noise_like

LABELLED = tuple[Molecule, np.ndarray]
ABOUT: dict[str, Any] = {"source": "noise", "split": "test", "method": asdict(SVP), "overlap_threshold": 1e-4}


@pytest.fixture(scope="module")
def records(water: LABELLED) -> list[Record]:
    """Water with noise of 1e-5 Eh, with picture; a copy with twice the noise; and one atom of it without orbitals."""
    molecule = water[0]
    assert molecule.hamiltonian is not None
    noise = noise_like(molecule.hamiltonian, 1e-5, 0)
    jobs = [
        Job(molecule, molecule.hamiltonian + noise, SVP, "none", 50.0, 1e-4, keep_matrices=True),
        Job(replace(molecule, key="twice"), molecule.hamiltonian + 2 * noise, SVP, "none", 50.0, 1e-4),
    ]
    oxygen = Molecule("atom", np.array([8]), np.zeros((1, 3)), charge=-2, hamiltonian=np.eye(14))
    jobs.append(Job(oxygen, np.eye(14) * (1 + 1e-3), SVP, "none", 50.0, 1e-4, with_orbitals=False))
    return [evaluate_molecule(job) for job in jobs]


def test_means_over_molecules_and_over_elements_are_told_apart(records: list[Record]) -> None:
    report = build_report(records, ABOUT)
    row = report["rows"]["prediction"]
    maes = {key: one["prediction"]["hamiltonian_mae_over_elements_uEh"] for key, one in report["by_molecule"].items()}
    sizes = {key: one["nao"] ** 2 for key, one in report["by_molecule"].items()}
    assert maes["twice"] == pytest.approx(2 * maes["water"])
    assert maes["atom"] == pytest.approx(1e3 * 14 / 14**2)
    assert row["hamiltonian_mae_over_molecules_uEh"] == pytest.approx(np.mean(list(maes.values())))
    assert row["hamiltonian_mae_median_uEh"] == pytest.approx(np.median(list(maes.values())))
    assert "Largest H MAE / uEh: atom 71.4, twice" in tables(report)
    weighted = sum(maes[key] * sizes[key] for key in maes) / sum(sizes.values())
    assert row["hamiltonian_mae_over_elements_uEh"] == pytest.approx(weighted)
    assert weighted != pytest.approx(row["hamiltonian_mae_over_molecules_uEh"], rel=1e-2)
    assert report["molecules"] == 3 and report["molecules_with_orbitals"] == 2


def test_every_error_names_its_unit(records: list[Record], tmp_path: Path) -> None:
    text = write_report(tmp_path, records, ABOUT)
    report = json.loads((tmp_path / "report.json").read_text())
    for row in report["rows"].values():
        for name in row:
            assert name.endswith(("_uEh", "_meV")) or name in (
                "ghosts_per_molecule", "lost_occupied_per_molecule", "occupied_subspace_overlap"
            )  # fmt: skip
    head = text.splitlines()[0]
    for cell in head.strip("| ").split(" | ")[1:-1]:
        assert cell.endswith(("/ uEh", "/ meV"))
    assert "true H (against stored labels)" in text and "H0 alone" in text
    assert (tmp_path / "report.md").read_text() == text == tables(build_report(records, ABOUT))
    assert list(report["by_element_pair_offsite"]) == ["H-H", "H-O"]
    assert list(report["by_irrep_degree"]) == ["0", "1", "2", "3", "4"]


def test_the_energy_of_the_true_row_is_compared_with_the_stored_one(records: list[Record]) -> None:
    rows = build_report(records, ABOUT)["rows"]
    assert rows["truth"]["energy_mae_meV"] < 1e-5
    total, count = (sum(one.rows["prediction"]["energy"][part] for one in records[:2]) for part in (0, 1))
    assert rows["prediction"]["energy_mae_meV"] == pytest.approx(total / count * 27211.386, rel=1e-6)
    assert rows["prediction"]["energy_mae_meV"] > 1e-5
    assert rows["truncated"]["hamiltonian_mae_over_elements_uEh"] == 0


def test_ghosts_are_reported_with_a_remedy(records: list[Record]) -> None:
    report = build_report(records, ABOUT)
    assert "WARNING" not in tables(report)
    report["rows"]["prediction"] |= {"ghosts_per_molecule": 0.5, "hamiltonian_mae_over_molecules_uEh": 300.0}
    assert "raise overlap_threshold from 0.0001 to about ten times the error of H, 3e-03" in tables(report)
    report["overlap_threshold"] = 1e-2
    assert "too large to tell which orbitals are occupied" in tables(report)


def test_pictures_open_and_are_not_blank(records: list[Record], tmp_path: Path) -> None:
    write_report(tmp_path, records, ABOUT)
    for name in ("hamiltonian", "error_by_element_pair", "error_by_distance"):
        image = matplotlib.image.imread(tmp_path / f"{name}.png")
        assert image.shape[0] > 400 and image.shape[1] > 700
        assert image[..., :3].std() > 0.05


def test_no_molecules_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no molecules; wanted at least one in the split"):
        build_report([], ABOUT)
