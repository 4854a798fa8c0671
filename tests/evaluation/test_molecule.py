"""The protocol of one molecule: rows, thresholds, files.

What the numbers are worth is in test_true_hamiltonian.py and test_noise.py.
"""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from helm_scale.evaluation import orbitals
from helm_scale.evaluation.error_sums import mean_errors
from helm_scale.evaluation.geometry import truncate
from helm_scale.evaluation.molecule import (
    DEPTHS,
    EvaluationJob,
    check_method,
    evaluate_molecule,
    evaluate_molecules,
)
from helm_scale.types import Molecule
from tests.evaluation.labels import SVP, noise_like

LABELLED = tuple[Molecule, np.ndarray]


def _job(molecule: Molecule, residual: np.ndarray, **changes: object) -> EvaluationJob:
    assert molecule.method is not None
    return replace(
        EvaluationJob(
            molecule=molecule,
            residual=residual,
            method=molecule.method,
            baseline="none",
            pair_cutoff=50.0,
            depth="energies",
        ),
        **changes,
    )  # type: ignore[arg-type]


def _noisy(molecule: Molecule, sigma: float = 1e-5, seed: int = 0) -> np.ndarray:
    assert molecule.hamiltonian is not None
    return molecule.hamiltonian + noise_like(molecule.hamiltonian, sigma, seed)


@pytest.mark.parametrize(
    ("name", "value"),
    [("xc", "blyp"), ("basis", "def2-tzvpd"), ("ecp", "none"), ("grid_level", 5),
     ("auxbasis", "weigend")],
)  # fmt: skip
def test_labels_of_another_method_are_refused_by_name(name: str, value: object) -> None:
    check_method(SVP, replace(SVP, conv_tol=1e-9, baseline="none", program="PySCF 9"), "data")
    with pytest.raises(ValueError, match=f"labels in data .*differ: {name} "):
        check_method(SVP, replace(SVP, **{name: value}), "data")  # type: ignore[arg-type]


def test_every_depth_adds_to_the_one_before(water: LABELLED) -> None:
    molecule = water[0]
    found = {
        depth: evaluate_molecule(_job(molecule, _noisy(molecule), depth=depth)) for depth in DEPTHS
    }
    names = [set(record.rows["prediction"]) for record in found.values()]
    added = [after - before for before, after in pairwise(names)]
    assert {"all", "onsite", "offsite"} <= names[0]
    assert {"occupied", "coefficients", "density", "ghosts"} <= added[0]
    assert added[1:] == [{"energy", "dipole"}, {"forces"}, set()]
    assert set(found["matrix"].rows) == {"prediction", "minao"}  # the dataset has minao H0
    assert set(found["scf"].rows) == {"prediction", "rebuilt", "truth", "minao", "sad"}
    assert {"seconds_energy", "seconds_forces", "scf_cycles_sad"} <= set(found["scf"].facts)
    shallow, deep = found["orbitals"].rows["prediction"], found["scf"].rows["prediction"]
    assert all(
        deep[name] == pytest.approx(value, rel=1e-9, abs=1e-12) for name, value in shallow.items()
    )


def test_the_residual_completes_with_the_baseline_stored_or_computed(water: LABELLED) -> None:
    molecule = water[0]
    assert molecule.hamiltonian is not None and molecule.baseline_hamiltonian is not None
    residual = molecule.hamiltonian - molecule.baseline_hamiltonian
    for one in (molecule, replace(molecule, baseline_hamiltonian=None)):
        record = evaluate_molecule(_job(one, residual, baseline="minao", depth="matrix"))
        assert mean_errors(record.rows["prediction"])["all"] < 1e-9
        assert mean_errors(record.rows["minao"])["all"] > 1e-3
        assert "truth" not in record.rows and "occupied" not in record.facts


def test_baselines_are_judged_whatever_the_predictor(water: LABELLED) -> None:
    molecule = replace(water[0], baseline_hamiltonian=None)
    rows = evaluate_molecule(_job(molecule, _noisy(molecule))).rows
    minao, sad = (mean_errors(rows[name]) for name in ("minao", "sad"))
    assert minao["energy"] > 1e-3 and sad["energy"] > 1e-3
    assert minao["all"] != pytest.approx(sad["all"], rel=1e-2)


def test_a_perfect_model_of_short_range_makes_exactly_the_truncated_row(nitroxyl: LABELLED) -> None:
    molecule = nitroxyl[0]
    assert (
        molecule.hamiltonian is not None
        and molecule.method is not None
        and molecule.baseline_hamiltonian is not None
    )
    cut = truncate(molecule.hamiltonian, molecule, molecule.method.basis, 1.5)
    record = evaluate_molecule(_job(molecule, cut, pair_cutoff=1.5))
    assert record.rows["prediction"] == record.rows["truncated"]
    assert record.facts["far_pairs"] == 1
    assert mean_errors(record.rows["truncated"])["energy"] > 1e-6
    base = molecule.baseline_hamiltonian
    residual = truncate(molecule.hamiltonian - base, molecule, molecule.method.basis, 1.5)
    better = evaluate_molecule(
        _job(molecule, residual, baseline="minao", pair_cutoff=1.5, depth="matrix")
    )
    assert (
        mean_errors(better.rows["truncated"])["all"]
        < 0.5 * mean_errors(record.rows["truncated"])["all"]
    )


def test_the_threshold_follows_the_error_unless_it_is_given(nitroxyl: LABELLED) -> None:
    molecule = nitroxyl[0]
    chosen = evaluate_molecule(_job(molecule, _noisy(molecule, 5e-4), depth="orbitals"))
    error = mean_errors(chosen.rows["prediction"])["all"]
    assert chosen.facts["overlap_threshold"] == pytest.approx(15 * error)
    assert chosen.facts["orbitals_dropped"] > 0 and "projected" in chosen.rows
    assert mean_errors(chosen.rows["projected"])["occupied"] > 1e-9
    given = evaluate_molecule(
        _job(molecule, _noisy(molecule, 5e-4), depth="orbitals", overlap_threshold=1e-5)
    )
    assert given.facts["orbitals_dropped"] == 0 and "projected" not in given.rows
    assert orbitals.chosen_threshold(0.0) == 1e-6 and orbitals.chosen_threshold(1.0) == 1e-2


@pytest.mark.slow
def test_parallel_processes_find_the_same_numbers(water: LABELLED) -> None:
    molecule = water[0]
    jobs = [
        _job(replace(molecule, key=f"water-{seed}"), _noisy(molecule, seed=seed), depth="orbitals")
        for seed in range(3)
    ]
    records = {
        record.key: record for record in evaluate_molecules(iter(jobs), processes=2, total=3)
    }
    assert sorted(records) == ["water-0", "water-1", "water-2"]
    alone = evaluate_molecule(jobs[2])
    for name, pair in alone.rows["prediction"].items():
        assert records["water-2"].rows["prediction"][name] == pytest.approx(
            pair, rel=1e-6, abs=1e-12
        )


def test_the_same_job_is_done_once_and_another_anew(water: LABELLED, tmp_path: Path) -> None:
    molecule, file = water[0], tmp_path / "molecules" / "water.json"
    job = _job(molecule, _noisy(molecule), depth="orbitals", record=file)
    first = evaluate_molecule(job)
    content = json.loads(file.read_text())
    content["facts"]["nao"] = -1  # to tell reading from doing
    file.write_text(json.dumps(content))
    again = evaluate_molecule(replace(job, inference_seconds=9.0))
    assert again.facts["nao"] == -1 and again.rows == first.rows
    assert np.array_equal(again.atomic_numbers, first.atomic_numbers)
    for other in (
        replace(job, residual=_noisy(molecule, seed=1)),
        replace(job, depth="matrix"),
        replace(job, overlap_threshold=1e-3),
    ):
        assert evaluate_molecule(other).facts["nao"] == 24
        file.write_text(json.dumps(content))


def test_a_missing_or_foreign_label_is_named(water: LABELLED) -> None:
    molecule = water[0]
    with pytest.raises(ValueError, match=r"water: no hamiltonian to compare with"):
        evaluate_molecule(_job(replace(molecule, hamiltonian=None), np.zeros((24, 24))))
    with pytest.raises(
        ValueError, match=r"water: predicted H has shape \(3, 3\), wanted \(24, 24\)"
    ):
        evaluate_molecule(_job(molecule, np.zeros((3, 3))))
