"""Known noise costs what the field found in def2-SVP, and gives ghosts where S is nearly singular.

The calibration is PBE/def2-SVP with white noise on H: mean |dH| / energy error / mean |dF| /
occupied orbital energies are water 7.9 uEh / 6.7e-4 meV / 0.41 meV/A / 6.7 uEh, ethanol 2.35 /
1.7e-3 / 0.15 / 1.9 and 7.95 / 1.9e-2 / 0.46 / 6.8.
"""

from dataclasses import asdict

import numpy as np
import pytest

from helm_scale.evaluation.error_sums import mean_errors
from helm_scale.evaluation.molecule import EvaluationJob, evaluate_molecule
from helm_scale.evaluation.report import build_report
from helm_scale.evaluation.tables import tables
from helm_scale.types import Molecule
from helm_scale.units import HARTREE_IN_MEV, MICROHARTREE
from tests.evaluation.labels import BENZENE, hexane, noise_like

LABELLED = tuple[Molecule, np.ndarray]


def _job(molecule: Molecule, error: float, seed: int, **changes: object) -> EvaluationJob:
    """White noise whose mean absolute value is `error` (uEh)."""
    assert molecule.hamiltonian is not None and molecule.method is not None
    noise = noise_like(molecule.hamiltonian, error * MICROHARTREE * (np.pi / 2) ** 0.5, seed)
    return EvaluationJob(
        molecule=molecule,
        residual=molecule.hamiltonian + noise,
        method=molecule.method,
        baseline="none",
        pair_cutoff=50.0,
        **changes,
    )  # type: ignore[arg-type]


def _averages(jobs: list[EvaluationJob], row: str) -> dict[str, float]:
    """Means over runs: all and occupied in uEh, energy in meV, forces in meV/A."""
    found = [mean_errors(evaluate_molecule(job).rows[row]) for job in jobs]
    units = {
        "all": 1 / MICROHARTREE,
        "occupied": 1 / MICROHARTREE,
        "energy": HARTREE_IN_MEV,
        "forces": HARTREE_IN_MEV,
    }
    return {
        name: float(np.mean([one[name] for one in found])) * unit for name, unit in units.items()
    }


@pytest.mark.slow
def test_white_noise_on_water_costs_what_was_calibrated(water: LABELLED) -> None:
    jobs = [_job(water[0], 7.9, seed) for seed in range(8)]
    found, rebuilt = _averages(jobs, "prediction"), _averages(jobs, "rebuilt")
    assert found["all"] == pytest.approx(7.9, rel=0.1)
    assert found["occupied"] == pytest.approx(6.7, rel=0.3)
    assert found["energy"] == pytest.approx(6.7e-4, rel=0.4)
    assert found["forces"] == pytest.approx(0.41, rel=0.3)
    assert (
        rebuilt["energy"] < 0.2 * found["energy"]
        and rebuilt["all"] < 0.5 * found["all"]
        and rebuilt["forces"] < found["forces"]
    )


@pytest.mark.slow
def test_white_noise_on_ethanol_costs_second_order_in_the_energy_and_first_order_in_the_forces(
    ethanol: LABELLED,
) -> None:
    found = {
        error: _averages([_job(ethanol[0], error, seed) for seed in (0, 1)], "prediction")
        for error in (2.35, 7.95)
    }
    for error, energy, forces, occupied in ((2.35, 1.7e-3, 0.15, 1.9), (7.95, 1.9e-2, 0.46, 6.8)):
        assert found[error]["all"] == pytest.approx(error, rel=0.03)
        assert found[error]["energy"] == pytest.approx(energy, rel=0.25)
        assert found[error]["forces"] == pytest.approx(forces, rel=0.2)
        assert found[error]["occupied"] == pytest.approx(occupied, rel=0.2)
    ratio = 7.95 / 2.35
    assert found[7.95]["energy"] / found[2.35]["energy"] == pytest.approx(ratio**2, rel=0.05)
    assert found[7.95]["forces"] / found[2.35]["forces"] == pytest.approx(ratio, rel=0.02)


@pytest.mark.slow
def test_no_ghost_survives_the_chosen_threshold_where_the_overlap_is_nearly_singular() -> None:
    molecule = hexane()
    assert len(molecule.atomic_numbers) == 20
    for sigma, occupied_error in ((1e-5, 1e-5), (6e-5, 6e-5)):
        record = evaluate_molecule(
            _job(molecule, sigma / MICROHARTREE * (2 / np.pi) ** 0.5, 0, depth="orbitals")
        )
        prediction, projected = (
            mean_errors(record.rows[row]) for row in ("prediction", "projected")
        )
        assert record.facts["overlap_smallest"] < 1e-5 and record.facts["orbitals_dropped"] > 10
        assert record.facts["ghosts_unprojected"] >= 3 and prediction["ghosts"] == 0
        assert (
            prediction["occupied"] < occupied_error
            and prediction["lost_occupied"] < 1e-2
            and prediction["lumo"] < 1e-3
        )
        assert 1e-6 < projected["occupied"] < 1e-4 and projected["ghosts"] == 0
        text = tables(build_report([record], {}))
        assert f"below {record.facts['overlap_threshold']:.1e} were projected out" in text
        assert f"without it: {record.facts['ghosts_unprojected']:.0f}." in text
        assert (
            "| true H, projected: cost of the overlap threshold |" in text and "WARNING" not in text
        )


def test_too_small_a_threshold_fires_the_ghost_detector() -> None:
    record = evaluate_molecule(_job(hexane(), 8.0, 0, depth="orbitals", overlap_threshold=1e-6))
    found = mean_errors(record.rows["prediction"])
    assert found["ghosts"] >= 3 and found["lost_occupied"] > 2.5 and found["occupied"] > 0.1
    assert "WARNING: ghosts" in tables(build_report([record], {"method": asdict(BENZENE)}))
