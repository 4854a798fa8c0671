"""Predictions as files: self-describing, symmetric, in both AO orders; PySCF starts from them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helm_scale.basis import conventions
from helm_scale.basis.assembly import assemble
from helm_scale.basis.shells import shells_of
from helm_scale.config import ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.dft.energies import overlap
from helm_scale.dft.molecule import build_mol, kohn_sham
from helm_scale.evaluation.prediction import (
    PredictJob,
    check_molecules,
    predict_residual,
    write_prediction,
    write_predictions,
)
from helm_scale.model.helm import Helm
from helm_scale.types import Molecule
from tests.evaluation.labels import NO_THRESHOLD, SVP, TZVPD

LABELLED = tuple[Molecule, np.ndarray]


@pytest.fixture(scope="module")
def written(
    hydrogen_iodide: LABELLED, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """The file of a perfect residual of HI over minao H0."""
    molecule = hydrogen_iodide[0]
    assert molecule.hamiltonian is not None and molecule.baseline_hamiltonian is not None
    residual = molecule.hamiltonian - molecule.baseline_hamiltonian
    path = tmp_path_factory.mktemp("prediction") / "hi.npz"
    unlabelled = Molecule(molecule.key, molecule.atomic_numbers, molecule.positions)
    write_prediction(
        PredictJob(
            molecule=unlabelled,
            residual=residual,
            method=TZVPD,
            baseline="minao",
            overlap_threshold=NO_THRESHOLD,
            path=path,
        )
    )
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_the_file_holds_one_matrix_in_two_orders_and_says_so(
    hydrogen_iodide: LABELLED, written: dict[str, np.ndarray]
) -> None:
    molecule, mo_energy = hydrogen_iodide
    index = written["canonical_from_pyscf"]
    assert np.abs(written["hamiltonian"] - molecule.hamiltonian).max() < 1e-9
    assert np.array_equal(written["hamiltonian"], written["hamiltonian"].T)
    assert np.array_equal(written["hamiltonian_pyscf"][index][:, index], written["hamiltonian"])
    shells = [shells_of(TZVPD.basis, int(z)) for z in molecule.atomic_numbers]
    assert np.array_equal(
        conventions.to_canonical(written["hamiltonian_pyscf"], "pyscf", shells),
        written["hamiltonian"],
    )
    assert np.abs(written["mo_energy"] - mo_energy).max() < 1e-8
    about = str(written["about"])
    assert "Hartree" in about and "Angstrom" in about and "canonical AO order" in about
    assert json.loads(str(written["method"]))["ecp"] == "def2"


def test_the_orbitals_solve_the_equation_in_pyscf_order(
    hydrogen_iodide: LABELLED, written: dict[str, np.ndarray]
) -> None:
    s = build_mol(hydrogen_iodide[0], TZVPD.basis).intor("int1e_ovlp")
    coefficients, energies = written["mo_coeff_pyscf"], written["mo_energy"]
    assert (
        np.abs(written["hamiltonian_pyscf"] @ coefficients - s @ coefficients * energies).max()
        < 1e-8
    )
    density = coefficients * written["mo_occ"] @ coefficients.T
    assert np.abs(density - written["density_matrix_pyscf"]).max() < 1e-10
    assert np.trace(density @ s) == pytest.approx(26.0, abs=1e-8)


def test_pyscf_converges_faster_from_the_density_of_the_true_hamiltonian(
    hydrogen_iodide: LABELLED, written: dict[str, np.ndarray]
) -> None:
    molecule = hydrogen_iodide[0]
    cycles = []
    for guess in (written["density_matrix_pyscf"], None):
        solver = kohn_sham(build_mol(molecule, TZVPD.basis), replace(TZVPD, conv_tol=1e-9))
        solver.kernel(dm0=guess)
        assert solver.converged and abs(solver.e_tot - molecule.energy) < 1e-8
        cycles.append(solver.cycles)
    assert cycles[0] <= 2 < cycles[1]


def test_a_model_predicts_its_packed_output_plus_reference(water: LABELLED) -> None:
    config = ModelConfig(
        basis="def2-svp", lmax=4, mmax=2, channels=4, hidden_channels=4, edge_channels=8,
        num_layers=1, radial_functions=8, baseline="minao",
    )  # fmt: skip
    torch.manual_seed(0)
    model = Helm(config).eval()
    model.set_reference(torch.randn_like(model.reference), 1e-3)
    matrix = predict_residual(model, water[0])
    assert matrix.shape == (24, 24) and np.array_equal(matrix, matrix.T)
    batch = collate([water[0]], config)
    with torch.no_grad():
        prediction = model(batch)
    parts = (prediction.onsite, prediction.offsite)
    (bare,) = assemble(batch, *parts, basis=config.basis, parity=config.parity)
    difference = matrix - bare.numpy()  # the reference: on-site, l = 0 only
    assert np.abs(difference[:14, 14:]).max() == 0 and np.abs(difference[:3, :3]).max() > 0.1


def test_an_atom_alone_has_a_hamiltonian(tmp_path: Path) -> None:
    config = ModelConfig(
        basis="def2-svp",
        lmax=4,
        mmax=1,
        channels=2,
        hidden_channels=2,
        edge_channels=4,
        num_layers=1,
        radial_functions=4,
    )
    molecule = Molecule("neon", np.array([10]), np.zeros((1, 3)))
    residual = predict_residual(Helm(config).eval(), molecule)
    assert residual.shape == (14, 14)
    jobs = [
        PredictJob(
            molecule=replace(molecule, key=key),
            residual=residual,
            method=SVP,
            baseline="none",
            overlap_threshold=1e-4,
            path=tmp_path / f"{key}.npz",
        )
        for key in "ab"
    ]
    paths = list(write_predictions(jobs, processes=2, total=2))
    assert sorted(path.name for path in paths) == ["a.npz", "b.npz"] and all(
        path.is_file() for path in paths
    )


def test_molecules_that_cannot_be_predicted_are_named() -> None:
    where = np.array([[0.0, 0, 0], [0, 0, 1.6]])
    for molecule, message in (
        (Molecule("odd", np.array([1, 53]), where, charge=1), r"molecule 'odd': 53 electrons"),
        (
            Molecule("triplet", np.array([8, 8]), where, charge=0, spin_multiplicity=3),
            r"triplet: 16 electrons, multiplicity 3: orbitals are filled in pairs",
        ),
        (
            Molecule("zinc", np.array([30, 1]), where),
            r"molecule 'zinc': element Z = 30 is not among the 58",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            check_molecules([molecule], "def2-tzvpd")


def test_matrices_that_a_model_reads_are_computed_where_a_molecule_has_none(
    water: LABELLED,
) -> None:
    config = ModelConfig(
        basis="def2-svp", lmax=4, mmax=2, channels=4, hidden_channels=4, edge_channels=8,
        num_layers=1, radial_functions=8, baseline="minao",
        conditions=("overlap", "baseline_hamiltonian"), dtype="float64",
    )  # fmt: skip
    torch.manual_seed(0)
    model, molecule = Helm(config), water[0]
    bare = Molecule("bare", molecule.atomic_numbers, molecule.positions)
    whole = predict_residual(model, replace(molecule, overlap=overlap(molecule, "def2-svp")))
    assert np.abs(predict_residual(model, bare, molecule.method) - whole).max() < 1e-9
    other = replace(molecule, method=replace(molecule.method, baseline="atoms"), overlap=np.eye(24))
    assert np.abs(predict_residual(model, other) - whole).max() > 1e-6
    atoms = predict_residual(
        model, replace(molecule, method=replace(molecule.method, baseline="atoms"))
    )
    assert np.abs(atoms - whole).max() < 1e-9  # an H0 of another kind is not taken for the model's
