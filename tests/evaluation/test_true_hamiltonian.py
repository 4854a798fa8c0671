"""The true Hamiltonian through the whole protocol gives back PySCF's converged run.

Twelve molecules: both basis sets, semilocal and hybrid functionals, range separation, exact and
fitted integrals, ECPs.
"""

from dataclasses import replace

import numpy as np
import pytest

from helm_scale.dft.energies import overlap
from helm_scale.evaluation import orbitals
from helm_scale.evaluation.error_sums import mean_errors
from helm_scale.evaluation.molecule import EvaluationJob, evaluate_molecule
from helm_scale.types import Method, Molecule
from helm_scale.units import BOHR_IN_ANGSTROM
from tests.evaluation.labels import SVP, TZVPD, label
from tests.tolerances import TRUE_H_ENERGY

FORCES = 1e-6 / BOHR_IN_ANGSTROM  # Hartree/Angstrom
JKFIT, JFIT = "def2-universal-jkfit", "def2-universal-jfit"


def _molecule(
    key: str, numbers: list[int], positions: list[list[float]], charge: int = 0
) -> Molecule:
    return Molecule(key, np.array(numbers), np.array(positions), charge=charge)


def _pair(key: str, numbers: list[int], length: float, charge: int = 0) -> Molecule:
    """Two atoms along a direction that is no axis."""
    return _molecule(
        key,
        numbers,
        [
            [0.1, 0.0, -0.2],
            (np.array([0.1, 0.0, -0.2]) + length * np.array([0.36, 0.48, 0.8])).tolist(),
        ],
        charge,
    )


WATER = _molecule("water", [8, 1, 1], [[0.0, 0.0, 0.1], [0.76, 0.1, 0.68], [-0.74, 0.0, 0.58]])
AMMONIA = _molecule(
    "ammonia",
    [7, 1, 1, 1],
    [[0, 0, 0.1], [0.95, 0.05, -0.25], [-0.45, 0.84, -0.3], [-0.5, -0.8, -0.27]],
)
NITROXYL = _molecule("hno", [7, 8, 1], [[0.0, 0.05, 0.0], [1.05, 0.6, 0.1], [-0.9, 0.4, 0.5]])
HYDROGEN_CYANIDE = _molecule("hcn", [1, 6, 7], [[-1.05, 0.1, 0.0], [0, 0, 0], [1.15, 0.0, 0.08]])
CASES: list[tuple[Molecule, Method]] = [
    (WATER, SVP),
    (AMMONIA, replace(SVP, xc="b3lyp5")),
    (HYDROGEN_CYANIDE, replace(SVP, xc="pbe0", auxbasis=JKFIT)),
    (_pair("hbr", [1, 35], 1.45), replace(SVP, xc="tpss", auxbasis=JFIT)),
    (_pair("oh-", [8, 1], 0.97, -1), replace(SVP, xc="wb97x")),
    (_pair("lih", [3, 1], 1.6), replace(TZVPD, xc="b3lyp5")),
    (_pair("hi", [53, 1], 1.64), replace(TZVPD, grid_level=0, auxbasis=JFIT)),
    (_pair("agh", [47, 1], 1.65), replace(TZVPD, grid_level=0, xc="pbe0", auxbasis=JKFIT)),
    (_pair("auh", [79, 1], 1.55), replace(TZVPD, grid_level=0, auxbasis=JFIT)),
    (_pair("tlh", [81, 1], 1.9), replace(TZVPD, grid_level=0, auxbasis=JFIT)),
    (_pair("hcl", [17, 1], 1.3), replace(TZVPD, xc="wb97x", auxbasis=JKFIT)),
    (NITROXYL, replace(TZVPD, xc="lda,vwn", grid_level=0, auxbasis=JFIT)),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("molecule", "method"), CASES, ids=[f"{m.key}-{b.xc}-{b.basis}" for m, b in CASES]
)
def test_the_true_hamiltonian_gives_pyscfs_energy_forces_and_orbitals(
    molecule: Molecule, method: Method
) -> None:
    labelled, mo_energy = label(molecule, method)
    assert labelled.hamiltonian is not None
    job = EvaluationJob(
        molecule=labelled,
        residual=labelled.hamiltonian,
        method=replace(method, conv_tol=1e-9),
        baseline="none",
        pair_cutoff=50.0,
        depth="scf",
    )
    record = evaluate_molecule(job)
    rows, facts = {name: mean_errors(row) for name, row in record.rows.items()}, record.facts
    assert rows["truth"]["energy"] < TRUE_H_ENERGY and rows["truth"]["forces"] < FORCES
    assert (
        rows["truth"]["all"] < 1e-8 and rows["truth"]["occupied"] < 1e-7
    )  # H is the Fock matrix of its own density
    for name in (
        "all",
        "occupied",
        "homo",
        "lumo",
        "gap",
        "density",
        "dipole",
        "energy",
        "forces",
        "ghosts",
    ):
        assert rows["prediction"][name] == pytest.approx(0.0, abs=1e-9), name
        assert name == "ghosts" or rows["minao"][name] > 1e-6, name
    for row in ("prediction", "truth"):
        assert rows[row]["subspace_overlap"] == pytest.approx(1.0, abs=1e-8)
    assert rows["prediction"]["coefficients"] == pytest.approx(1.0, abs=1e-12)
    projector = orbitals.canonical_projectors(overlap(molecule, method.basis), (1e-6,))[0]
    found = orbitals.solve(labelled.hamiltonian, projector, int(facts["occupied"]))
    assert np.abs(found.energies - mo_energy).max() < TRUE_H_ENERGY
    assert facts["label_gradient_Eh"] < 1e-2 * facts["scf_gradient_limit_Eh"]
    assert 1 <= facts["scf_cycles_truth"] <= 2 < facts["scf_cycles_minao"]
    assert facts["scf_energy_spread_Eh"] < 1e-7 and facts["scf_converged_minao"] == 1
