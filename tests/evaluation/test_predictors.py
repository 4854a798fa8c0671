"""Anybody's Hamiltonians: files in every AO order become the same matrix; misfits are named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helm_scale.basis import conventions
from helm_scale.basis.shells import shells_of
from helm_scale.evaluation.prediction import PredictJob, write_prediction
from helm_scale.evaluation.predictors import is_folder, of_folder, read_hamiltonian
from helm_scale.types import Molecule
from tests.evaluation.labels import SVP, TZVPD

LABELLED = tuple[Molecule, np.ndarray]


def _shells(molecule: Molecule) -> list[list[int]]:
    return [list(shells_of(TZVPD.basis, int(z))) for z in molecule.atomic_numbers]


@pytest.mark.parametrize("order", conventions.SOURCES)
def test_a_file_in_any_order_is_read_into_the_canonical_one(
    order: str, nitroxyl: LABELLED, tmp_path: Path
) -> None:
    molecule = nitroxyl[0]
    assert molecule.hamiltonian is not None
    listed = _shells(molecule)
    if order in ("orca", "psi4"):
        listed = [
            shells[::-1] for shells in listed
        ]  # diffuse and high shells first: an order of its own
    fields = {
        "hamiltonian": _from_canonical(molecule.hamiltonian, order, listed),
        "ao_order": np.array(order),
    }
    fields |= {
        "shells_per_atom": np.array([len(s) for s in listed]),
        "shell_degrees": np.concatenate(listed),
    }
    np.savez(
        tmp_path / "hno.npz",
        atomic_numbers=molecule.atomic_numbers,
        positions=molecule.positions,
        **fields,
    )  # type: ignore[arg-type]
    found = of_folder(tmp_path, TZVPD.basis, None).residual(molecule)
    if order == "canonical":
        assert np.array_equal(found, molecule.hamiltonian)
    same_shells = (
        [np.arange(len(found))]
        if order in ("canonical", "pyscf")
        else _reversed_within_degree(molecule)
    )
    assert (
        np.abs(found - molecule.hamiltonian[np.ix_(same_shells[0], same_shells[0])]).max() < 1e-14
    )


def _from_canonical(matrix: np.ndarray, order: str, listed: list[list[int]]) -> np.ndarray:
    """The matrix as a program writes it that lists shells like this."""
    index, sign = conventions.ao_order(order, listed)
    found = np.zeros_like(matrix)
    found[np.ix_(index, index)] = matrix * np.outer(sign, sign)
    return found


def _reversed_within_degree(molecule: Molecule) -> list[np.ndarray]:
    """The stable sort by degree undoes any order of degrees.

    Shells of one degree keep the file's order, here the same.
    """
    return [np.arange(sum(2 * degree + 1 for atom in _shells(molecule) for degree in atom))]


def test_what_predict_writes_evaluate_reads(water: LABELLED, tmp_path: Path) -> None:
    molecule = water[0]
    assert molecule.hamiltonian is not None
    write_prediction(
        PredictJob(
            molecule=molecule,
            residual=molecule.hamiltonian,
            method=SVP,
            baseline="none",
            overlap_threshold=1e-4,
            path=tmp_path / "water.npz",
        )
    )
    assert is_folder(tmp_path) and not is_folder(tmp_path / "nowhere")
    assert np.array_equal(
        read_hamiltonian(tmp_path, molecule, SVP.basis, None), molecule.hamiltonian
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("hamiltonian"), r"water.npz: no 'hamiltonian'; found: ao_order"),
        (
            lambda f: f.pop("ao_order"),
            r"ao_order: got '', wanted one of canonical, pyscf, orca, psi4",
        ),
        (lambda f: f.update(ao_order=np.array("gaussian")), r"ao_order: got 'gaussian'"),
        (
            lambda f: f.update(ao_order=np.array("orca")),
            r"orca lists shells in its own order; wanted it in 'shells_per_atom'",
        ),
        (
            lambda f: f.update(hamiltonian=np.eye(3)),
            r"hamiltonian: got shape \(3, 3\), wanted \(24, 24\) in def2-svp",
        ),
        (lambda f: f["hamiltonian"].__setitem__((0, 1), 5.0), r"hamiltonian is not symmetric"),
        (
            lambda f: f.update(hamiltonian=np.full((24, 24), np.nan)),
            r"hamiltonian is not symmetric",
        ),
        (
            lambda f: f.update(atomic_numbers=np.array([8, 1, 9])),
            r"atomic_numbers: got \[8, 1, 9\], wanted \[8, 1, 1\]",
        ),
        (
            lambda f: f.update(positions=np.zeros((3, 3))),
            r"positions: not those of molecule 'water'",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    change: Callable[[dict[str, np.ndarray]], object], message: str, water: LABELLED, tmp_path: Path
) -> None:
    molecule = water[0]
    assert molecule.hamiltonian is not None
    fields = {"hamiltonian": molecule.hamiltonian.copy(), "ao_order": np.array("canonical")}
    change(fields)
    np.savez(tmp_path / "water.npz", **fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        read_hamiltonian(tmp_path, molecule, SVP.basis, None)


def test_a_missing_file_is_named(water: LABELLED, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"water.npz: not found; wanted one npz file per molecule"):
        read_hamiltonian(tmp_path, water[0], SVP.basis, "pyscf")
