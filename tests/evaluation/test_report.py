"""The report: means of sums and counts, units everywhere, pictures that open."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helm_scale.evaluation.molecule import EvaluationJob, evaluate_molecule
from helm_scale.evaluation.report import build_report
from helm_scale.evaluation.results import MoleculeResult
from helm_scale.evaluation.summary import summarise
from helm_scale.evaluation.tables import tables
from helm_scale.evaluation.verdict import number
from helm_scale.types import Molecule
from tests.evaluation.labels import SVP, noise_like

LABELLED = tuple[Molecule, np.ndarray]
ABOUT: dict[str, Any] = {"source": "noise", "split": "test", "method": asdict(SVP)}


@pytest.fixture(scope="module")
def records(water: LABELLED) -> list[MoleculeResult]:
    """Water with noise of 1e-5 Eh, a copy with twice the noise, an atom without orbitals."""
    molecule = water[0]
    assert molecule.hamiltonian is not None
    noise = noise_like(molecule.hamiltonian, 1e-5, 0)
    jobs = [
        EvaluationJob(
            molecule=molecule,
            residual=molecule.hamiltonian + noise,
            method=replace(SVP, conv_tol=1e-9),
            baseline="none",
            pair_cutoff=50.0,
            depth="scf",
            inference_seconds=0.5,
        ),
        EvaluationJob(
            molecule=replace(molecule, key="twice"),
            residual=molecule.hamiltonian + 2 * noise,
            method=SVP,
            baseline="none",
            pair_cutoff=50.0,
        ),
    ]
    oxygen = Molecule("atom", np.array([8]), np.zeros((1, 3)), charge=-2, hamiltonian=np.eye(14))
    jobs.append(
        EvaluationJob(
            molecule=oxygen,
            residual=np.eye(14) * (1 + 1e-3),
            method=SVP,
            baseline="none",
            pair_cutoff=50.0,
            depth="matrix",
        )
    )
    return [evaluate_molecule(job) for job in jobs]


def test_means_over_molecules_and_over_elements_are_told_apart(
    records: list[MoleculeResult],
) -> None:
    report = build_report(records, ABOUT)
    row = report["rows"]["prediction"]
    maes = {
        key: one["prediction"]["hamiltonian_mae_over_elements_uEh"]
        for key, one in report["by_molecule"].items()
    }
    sizes = {key: one["nao"] ** 2 for key, one in report["by_molecule"].items()}
    assert maes["twice"] == pytest.approx(2 * maes["water"])
    assert maes["atom"] == pytest.approx(1e3 * 14 / 14**2)
    assert row["hamiltonian_mae_over_molecules_uEh"] == pytest.approx(np.mean(list(maes.values())))
    assert row["hamiltonian_mae_median_uEh"] == pytest.approx(np.median(list(maes.values())))
    assert "Largest H MAE / uEh: atom 71.4, twice" in tables(report)
    weighted = sum(maes[key] * sizes[key] for key in maes) / sum(sizes.values())
    assert row["hamiltonian_mae_over_elements_uEh"] == pytest.approx(weighted)
    assert weighted != pytest.approx(row["hamiltonian_mae_over_molecules_uEh"], rel=1e-2)
    assert (
        report["molecules"] == 3
        and report["molecules_with_orbitals"] == 2
        and report["molecules_with_scf"] == 1
    )


def test_every_error_names_its_unit(records: list[MoleculeResult]) -> None:
    report = build_report(records, ABOUT)
    assert json.loads(json.dumps(report)) == report
    units = ("_uEh", "_meV", "_meV_per_angstrom", "_mD", "_percent", "_1e-6", "_per_molecule")
    for row in report["rows"].values():
        assert all(name.endswith(units) for name in row)
    heads = [line for line in tables(report).splitlines() if line.startswith("| Hamiltonian |")]
    assert len(heads) == 3
    for head in heads:
        for cell in head.strip("| ").split(" | ")[1:]:
            assert cell.endswith(
                ("/ uEh", "/ meV", "/ meV/A", "/ mD", "/ %", "/ 1e-6", "per molecule")
            ), cell
    assert list(report["by_element_pair_offsite"]) == ["H-H", "H-O"]
    assert list(report["by_irrep_degree"]) == ["0", "1", "2", "3", "4"]


def test_the_true_row_is_compared_with_the_stored_labels(records: list[MoleculeResult]) -> None:
    rows = build_report(records, ABOUT)["rows"]
    assert (
        rows["truth"]["energy_mae_meV"] < 1e-5
        and rows["truth"]["forces_mae_meV_per_angstrom"] < 1e-4
    )
    total, count = (
        sum(one.rows["prediction"]["energy"][part] for one in records[:2]) for part in (0, 1)
    )
    assert rows["prediction"]["energy_mae_meV"] == pytest.approx(
        total / count * 27211.386, rel=1e-6
    )
    assert rows["prediction"]["energy_mae_meV"] > 1e-5
    assert count == 2 and "truncated" not in rows and "projected" not in rows


def test_a_wrong_stored_energy_or_force_shows_in_the_true_row(water: LABELLED) -> None:
    molecule = water[0]
    assert (
        molecule.hamiltonian is not None
        and molecule.energy is not None
        and molecule.forces is not None
    )
    wrong = replace(molecule, energy=molecule.energy + 1e-3, forces=molecule.forces + 1e-3)
    rows = build_report(
        [
            evaluate_molecule(
                EvaluationJob(
                    molecule=wrong,
                    residual=molecule.hamiltonian,
                    method=SVP,
                    baseline="none",
                    pair_cutoff=50.0,
                )
            )
        ],
        ABOUT,
    )["rows"]
    assert rows["truth"]["energy_mae_meV"] == pytest.approx(27.2, rel=1e-3)
    assert rows["truth"]["forces_mae_meV_per_angstrom"] == pytest.approx(27.2, rel=1e-3)
    assert (
        rows["prediction"]["energy_mae_meV"]
        == rows["prediction"]["forces_mae_meV_per_angstrom"]
        == 0
    )


def test_scf_cycles_and_seconds_are_reported(records: list[MoleculeResult]) -> None:
    report = build_report(records, ABOUT)
    cycles = report["scf"]["cycles"]
    assert (
        1 <= cycles["truth"] <= 2 and cycles["truth"] <= cycles["prediction"] < cycles["minao"]
    )  # noise of 1e-5 Eh
    assert report["scf"]["largest_energy_spread_Eh"] < 1e-7 and not report["scf"]["other_energy"]
    assert (
        report["scf"]["tight_labels"] == 1
        and report["scf"]["cycles_from_tight_labels"] == cycles["truth"]
    )
    loose = replace(records[0], facts=records[0].facts | {"label_gradient_Eh": 1e-4})
    text = tables(build_report([loose], ABOUT))
    assert (
        "The SCF stops at an orbital gradient of 3.2e-05 Eh; 0 of the labels are converged 10"
        " times tighter" in text
    )
    assert report["seconds_per_molecule"]["inference"] == pytest.approx(0.5 / 3)
    assert None not in report["seconds_per_molecule"].values()
    assert set(report["seconds_per_molecule"]) == {"inference", "setup", "energy", "forces"}
    other = replace(records[0], facts=records[0].facts | {"scf_energy_spread_Eh": 1e-3})
    assert "WARNING: other final energy: water." in tables(build_report([other], ABOUT))
    lost = replace(records[0], facts=records[0].facts | {"scf_converged_sad": 0.0})
    assert "did not converge from every density: water." in tables(build_report([lost], ABOUT))


def test_ghosts_are_reported_with_a_remedy(records: list[MoleculeResult]) -> None:
    report = build_report(records, ABOUT)
    assert "WARNING" not in tables(report)
    assert "chemically accurate (1 kcal/mol is 43 meV), better than one Fock" in tables(report)
    report["rows"]["prediction"] |= {"ghosts_per_molecule": 0.5}
    assert "raise overlap_threshold above" in tables(report)
    report["projection"]["threshold_largest"] = 1e-2
    text = tables(report)
    assert "too large to tell which orbitals are occupied" in text
    assert text.index("**Verdict.**") < text.index("WARNING: ghosts") < text.index("\n| ")


def test_the_page_says_what_was_judged_and_how_good_it_is_in_words(
    records: list[MoleculeResult],
) -> None:
    report = build_report(records, ABOUT | {"data": "water", "model": {"channels": 8, "lmax": 4}})
    text = tables(report)
    assert text.startswith("# Evaluation of noise\n\n- model: 8 channels, lmax 4\n- data: water,")
    assert "- method: xc pbe, basis def2-svp" in text
    assert "| chemical accuracy: 1 kcal/mol (per A) | 43.4 | 43.4 |  |" in text
    report["rows"]["prediction"]["energy_mae_meV"] = 23456.0
    report["rows"]["truth"]["energy_mae_meV"] = 2.0
    text = tables(report)
    assert (
        "Energies: mean error 23,500 meV, 541 times chemical accuracy (43 meV), no better" in text
    )
    assert "WARNING: stored energies differ from those of the stored H by 2.00 meV" in text
    assert "e+0" not in text


def test_numbers_near_a_hundred_keep_their_digits() -> None:
    assert [number(value) for value in (99.98764, 100.0, 0.0, 12.345, 1e-7, 12345.6, None)] == [
        "99.9876",
        "100",
        "0.00",
        "12.3",
        "1.00e-07",
        "12,300",
        "",
    ]


def test_no_molecules_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no molecules; wanted at least one in the split"):
        build_report([], ABOUT)


def test_the_summary_holds_the_model_against_minao(
    records: list[MoleculeResult], tmp_path: Path
) -> None:
    report = build_report(records, ABOUT | {"data": "data_shards/water"})
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "report.json").write_text(json.dumps(report))
    text = summarise(tmp_path)
    lines = {line[:44].strip(): line[44:].split() for line in text.splitlines()}
    plain, ours = (report["rows"][row]["energy_mae_meV"] for row in ("minao", "prediction"))
    cells = [float(cell.replace(",", "")) for cell in lines["error of the total energy / meV"]]
    assert cells == pytest.approx([plain, ours], rel=0.05) and plain > 100 * ours
    cycles = report["scf"]["cycles"]
    saved = f"{100 * (1 - cycles['prediction'] / cycles['minao']):.0f} % fewer cycles"
    assert saved in text and "e+" not in text and "report" in text
    assert summarise(tmp_path / "evaluation") == text


def test_a_summary_needs_a_report(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no report\.json"):
        summarise(tmp_path)
