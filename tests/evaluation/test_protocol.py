"""The protocol: a perfect prediction has no error, known noise has the known price, the true-H row measures the pipeline."""

from dataclasses import replace

import numpy as np
import pytest

from helm_scale.batch import Molecule
from helm_scale.evaluation.assemble import truncate
from helm_scale.evaluation.protocol import Job, evaluate_molecule, evaluate_molecules
from helm_scale.evaluation.tally import means
from helm_scale.units import HARTREE_IN_MEV, MICROHARTREE
from tests.evaluation.labels import NO_THRESHOLD, noise_like
from tests.tolerances import TRUE_H_ENERGY

LABELLED = tuple[Molecule, np.ndarray]
ENERGIES = ("occupied", "homo", "lumo", "gap", "energy")


def _job(molecule: Molecule, residual: np.ndarray, **changes: object) -> Job:
    assert molecule.method is not None
    return replace(Job(molecule, residual, molecule.method, "none", 50.0, NO_THRESHOLD), **changes)  # type: ignore[arg-type]


def test_a_perfect_prediction_has_no_error_and_the_true_row_meets_the_stored_labels(hydrogen_iodide: LABELLED) -> None:
    molecule = hydrogen_iodide[0]
    assert molecule.hamiltonian is not None
    record = evaluate_molecule(_job(molecule, molecule.hamiltonian))
    assert set(record.rows) == {"prediction", "rebuilt", "truth", "truncated", "baseline"}
    found = {row: means(tally) for row, tally in record.rows.items()}
    assert found["prediction"]["all"] == 0.0
    for name in ENERGIES:
        assert found["prediction"][name] < 1e-10
        assert found["truth"][name] < TRUE_H_ENERGY
        assert found["baseline"][name] > 1e-5
    assert found["prediction"]["subspace_overlap"] == pytest.approx(1.0, abs=1e-8)
    assert found["truth"]["ghosts"] == found["prediction"]["ghosts"] == 0
    assert record.facts["occupied"] == 13 and record.facts["orbitals_dropped"] == 0


def test_white_noise_on_water_costs_what_was_calibrated(water: LABELLED) -> None:
    molecule = water[0]
    assert molecule.hamiltonian is not None
    sigma = 7.9 * MICROHARTREE * (np.pi / 2) ** 0.5  # mean |noise| 7.9 uEh
    runs = [evaluate_molecule(_job(molecule, molecule.hamiltonian + noise_like(molecule.hamiltonian, sigma, s))) for s in range(6)]
    found = [means(run.rows["prediction"]) for run in runs]
    assert np.mean([one["all"] for one in found]) / MICROHARTREE == pytest.approx(7.9, rel=0.1)
    assert 3.0 < np.mean([one["occupied"] for one in found]) / MICROHARTREE < 14.0  # 6.7
    assert 2e-4 < np.mean([one["energy"] for one in found]) * HARTREE_IN_MEV < 2e-3  # 6.7e-4: second order
    rebuilt = [means(run.rows["rebuilt"]) for run in runs]
    assert np.mean([one["energy"] for one in rebuilt]) < 0.3 * np.mean([one["energy"] for one in found])
    assert np.mean([one["all"] for one in rebuilt]) < 0.6 * np.mean([one["all"] for one in found])


def test_the_residual_completes_with_the_baseline_stored_or_computed(water: LABELLED) -> None:
    molecule = water[0]
    assert molecule.hamiltonian is not None and molecule.baseline_hamiltonian is not None
    residual = molecule.hamiltonian - molecule.baseline_hamiltonian
    for one in (molecule, replace(molecule, baseline_hamiltonian=None)):
        record = evaluate_molecule(_job(one, residual, baseline="minao", with_orbitals=False))
        assert means(record.rows["prediction"])["all"] < 1e-9
        assert means(record.rows["baseline"])["all"] > 1e-3
        assert "truth" not in record.rows and "occupied" not in record.facts


def test_a_perfect_model_of_short_range_makes_exactly_the_truncated_row(nitroxyl: LABELLED) -> None:
    molecule = nitroxyl[0]
    assert molecule.hamiltonian is not None and molecule.method is not None and molecule.baseline_hamiltonian is not None
    cut = truncate(molecule.hamiltonian, molecule, molecule.method.basis, 1.5)
    record = evaluate_molecule(_job(molecule, cut, pair_cutoff=1.5))
    assert record.rows["prediction"] == record.rows["truncated"]
    assert record.facts["far_pairs"] == 1
    assert means(record.rows["truncated"])["energy"] > 1e-6
    base = molecule.baseline_hamiltonian
    residual = truncate(molecule.hamiltonian - base, molecule, molecule.method.basis, 1.5)
    better = evaluate_molecule(_job(molecule, residual, baseline="minao", pair_cutoff=1.5, with_orbitals=False))
    assert means(better.rows["truncated"])["all"] < 0.5 * means(record.rows["truncated"])["all"]


def test_parallel_processes_find_the_same_numbers(water: LABELLED) -> None:
    molecule = water[0]
    assert molecule.hamiltonian is not None
    jobs = [
        _job(replace(molecule, key=f"water-{s}"), molecule.hamiltonian + noise_like(molecule.hamiltonian, 1e-5, s), keep_matrices=s == 1)
        for s in range(3)
    ]
    records = {record.key: record for record in evaluate_molecules(iter(jobs), processes=2, total=3)}
    assert sorted(records) == ["water-0", "water-1", "water-2"]
    alone = evaluate_molecule(jobs[2])
    for name, pair in alone.rows["prediction"].items():
        assert records["water-2"].rows["prediction"][name] == pytest.approx(pair, rel=1e-6, abs=1e-12)
    kept = [key for key, record in records.items() if record.matrices is not None]
    assert kept == ["water-1"]


def test_a_missing_or_foreign_label_is_named(water: LABELLED) -> None:
    molecule = water[0]
    with pytest.raises(ValueError, match=r"water: no hamiltonian to compare with"):
        evaluate_molecule(_job(replace(molecule, hamiltonian=None), np.zeros((24, 24))))
    with pytest.raises(ValueError, match=r"water: predicted H has shape \(3, 3\), wanted \(24, 24\)"):
        evaluate_molecule(_job(molecule, np.zeros((3, 3))))
