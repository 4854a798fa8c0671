"""The projected matrix where it is used: rows, densities, and the rule that chooses it."""

import logging
from pathlib import Path

import numpy as np
import pytest

from helm_scale.dft import potential
from helm_scale.evaluation import kohn_sham
from helm_scale.evaluation.molecule import EvaluationJob, evaluate_molecule
from helm_scale.evaluation.prediction import PredictJob, write_prediction
from helm_scale.evaluation.report import build_report
from helm_scale.evaluation.tables import tables
from helm_scale.types import Molecule
from tests.evaluation.labels import SVP, TZVPD, noise_like

LABELLED = tuple[Molecule, np.ndarray]


@pytest.mark.parametrize(
    ("setting", "error", "basis", "projected", "reason"),
    [
        ("auto", 1.7e-3, "def2-tzvpd", True, "1.7e+03 uEh, above the 30 uEh"),
        ("auto", 1e-6, "def2-svp", False, "1 uEh, below the 30 uEh"),
        ("auto", 1e-6, "def2-tzvpd", False, "below"),
        ("auto", None, "def2-tzvpd", True, "unknown; overlaps of def2-tzvpd are nearly singular"),
        ("auto", None, "def2-svp", False, "are not nearly singular"),
        ("on", 1e-6, "def2-svp", True, "projection: on"),
        ("off", 1.7e-3, "def2-tzvpd", False, "projection: off"),
    ],
)
def test_the_rule(
    setting: kohn_sham.Setting, error: float | None, basis: str, projected: bool, reason: str
) -> None:
    choice = kohn_sham.choose(setting, error=error, basis=basis)
    assert choice.projected is projected and reason in str(choice)


def test_a_molecule_too_large_for_the_memory_is_used_as_predicted_and_named(
    hydrogen_iodide: LABELLED, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    choice = kohn_sham.choose("auto", error=1e-3, basis="def2-tzvpd")
    assert choice.covers(hydrogen_iodide[0], TZVPD) and not caplog.text
    monkeypatch.setattr(potential, "MEMORY_LIMIT", 10**6)
    with caplog.at_level(logging.WARNING):
        assert not choice.covers(hydrogen_iodide[0], TZVPD)
    assert "hi: used as predicted" in caplog.text
    forced = kohn_sham.choose("on", error=1e-3, basis="def2-tzvpd")
    assert forced.covers(hydrogen_iodide[0], TZVPD)  # and then refused by the projection itself


@pytest.mark.slow
def test_the_rows_of_the_projection_stand_beside_the_raw_ones(hydrogen_iodide: LABELLED) -> None:
    molecule = hydrogen_iodide[0]
    assert molecule.hamiltonian is not None
    noise = noise_like(molecule.hamiltonian, sigma=1e-3, seed=0)
    record = evaluate_molecule(
        EvaluationJob(
            molecule=molecule,
            residual=molecule.hamiltonian + noise,
            method=TZVPD,
            baseline="none",
            pair_cutoff=50.0,
            projected=True,
            depth="scf",
        )
    )
    choice = kohn_sham.choose("auto", error=1e-3, basis=TZVPD.basis)
    report = build_report([record], {"matrix": str(choice)})
    raw, found, rebuilt, cost = (
        report["rows"][row]
        for row in ("prediction", "kohn_sham", "kohn_sham_rebuilt", "kohn_sham_truth")
    )
    name = "hamiltonian_mae_over_molecules_uEh"
    assert cost[name] < 100 and cost[name] < found[name] < raw[name] / 3
    assert found["ghosts_per_molecule"] == 0 and found["energy_mae_meV"] < raw["energy_mae_meV"] / 3
    assert rebuilt["energy_mae_meV"] < found["energy_mae_meV"] < 5.0
    cycles = report["scf"]["cycles"]
    assert cycles["truth"] < cycles["kohn_sham"] < min(cycles["minao"], cycles["prediction"] + 1)
    text = tables(report)
    assert "prediction as Kohn-Sham matrix, one Fock rebuild" in text
    assert "above the 30 uEh that the projection costs). Molecules projected: 1." in text
    report["rows"]["prediction"]["ghosts_per_molecule"] = 1.0
    text = tables(report)
    assert "The raw prediction has ghosts" in text and "WARNING" not in text
    report["by_molecule"]["hi"]["kohn_sham"]["ghosts_per_molecule"] = 1.0
    assert "WARNING: ghosts" in tables(report)


def test_an_accurate_model_of_water_in_def2_svp_is_left_alone(water: LABELLED) -> None:
    molecule = water[0]
    assert molecule.hamiltonian is not None
    noise = noise_like(molecule.hamiltonian, sigma=1e-6, seed=0)
    job = EvaluationJob(
        molecule=molecule,
        residual=molecule.hamiltonian + noise,
        method=SVP,
        baseline="none",
        pair_cutoff=50.0,
        projected=kohn_sham.choose("auto", error=1e-6, basis=SVP.basis).covers(molecule, SVP),
        depth="energies",
    )
    assert set(evaluate_molecule(job).rows) == {"prediction", "rebuilt", "truth", "minao", "sad"}


def test_a_file_holds_both_matrices_and_the_density_of_the_projected_one(
    hydrogen_iodide: LABELLED, tmp_path: Path
) -> None:
    molecule = hydrogen_iodide[0]
    assert molecule.hamiltonian is not None
    predicted = molecule.hamiltonian + noise_like(molecule.hamiltonian, sigma=1e-3, seed=0)
    path = write_prediction(
        PredictJob(
            molecule=molecule,
            residual=predicted,
            method=TZVPD,
            baseline="none",
            overlap_threshold=1e-3,
            path=tmp_path / "hi.npz",
            projected=True,
        )
    )
    with np.load(path, allow_pickle=False) as file:
        fields = {name: file[name] for name in file.files}
    assert np.array_equal(fields["hamiltonian"], predicted)
    used, orbitals = fields["hamiltonian_kohn_sham_pyscf"], fields["mo_coeff_pyscf"]
    before, after = (
        np.abs(matrix - molecule.hamiltonian).mean()
        for matrix in (predicted, fields["hamiltonian_kohn_sham"])
    )
    assert after < before / 3
    assert np.abs(orbitals.T @ used @ orbitals - np.diag(fields["mo_energy"])).max() < 1e-8
    assert fields["overlap_threshold"] == 1e-6
