"""The public Python interface, on a model whose output is so small that it predicts H0 itself."""

import dataclasses
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
import torch

import helm_scale
from helm_scale import commands, config
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.molecule import from_canonical
from helm_scale.evaluation import orbitals
from helm_scale.model.helm import Helm
from helm_scale.model.weights import load_weights, save_weights
from helm_scale.reading.domain import TrainingDomain
from helm_scale.types import Molecule
from tests.evaluation.labels import SVP

CONFIG = config.ModelConfig(
    basis="def2-svp",
    baseline="minao",
    lmax=4,
    mmax=1,
    channels=4,
    hidden_channels=4,
    edge_channels=8,
    num_layers=1,
    radial_functions=8,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the model."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    model = Helm(CONFIG)
    model.set_reference(torch.zeros_like(model.reference), 1e-10)
    save_weights(model.state_dict(), folder / "model.safetensors")
    record = {"model": CONFIG.model_dump(mode="json"), "method": dataclasses.asdict(SVP)}
    (folder / "model.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def atoms() -> ase.Atoms:
    """Ammonia without symmetry."""
    atoms = ase.build.molecule("NH3")
    atoms.rattle(0.1, seed=3)
    return atoms


def test_the_lines_of_the_package_give_a_hamiltonian_an_energy_and_the_start_of_an_scf(
    source: Path, atoms: ase.Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "runs").mkdir(exist_ok=True)
    (source / "runs" / "pretrain").symlink_to(source)
    monkeypatch.chdir(source)
    lines = textwrap.dedent((helm_scale.__doc__ or "").partition("\n\n")[2])
    scope = {"helm_scale": helm_scale, "atoms": atoms}
    exec(lines, scope)
    plain = helm_scale.load(source).solver(atoms).run()
    solver, hamiltonian = scope["solver"], scope["hamiltonian"]
    assert hamiltonian.shape == (29, 29) and hamiltonian.dtype == np.float64
    assert np.array_equal(hamiltonian, hamiltonian.T)
    assert solver.converged and solver.cycles > 1  # the density of H0 is no solution
    assert solver.e_tot == pytest.approx(plain.e_tot, abs=1e-8)
    assert plain.e_tot < scope["energy"] < plain.e_tot + 1.0


def test_hamiltonian_and_energy_are_those_of_pyscf_in_its_own_order(
    source: Path, atoms: ase.Atoms
) -> None:
    model = helm_scale.load(source)
    solver = model.solver(atoms)
    fock = solver.get_fock(dm=solver.get_init_guess(key="minao"))
    hamiltonian = model.hamiltonian(atoms, ao_order="pyscf")
    np.testing.assert_allclose(hamiltonian, fock, atol=1e-8)
    assert np.abs(model.hamiltonian(atoms) - fock).max() > 1e-2  # p shells in another order
    density = solver.make_rdm1(*_orbitals(solver, fock))
    assert model.energy(atoms) == pytest.approx(solver.energy_tot(density), abs=1e-8)


def test_energies_and_starts_are_those_of_the_projected_matrix_where_asked(
    source: Path, atoms: ase.Atoms, tmp_path: Path
) -> None:
    weights = load_weights(source / "model.safetensors")
    weights["output_scale"] += 1e-3  # Hartree: H0 itself is its own projection
    save_weights(weights, tmp_path / "model.safetensors")
    source = Path(shutil.copy(source / "model.json", tmp_path)).parent
    energies = {key: helm_scale.load(source, projection=key).energy(atoms) for key in ("on", "off")}
    model = helm_scale.load(source)
    assert model.validation_error is None and model.energy(atoms) == energies["off"]  # def2-svp
    molecule = Molecule("mol", atoms.numbers, atoms.positions)
    functional = EnergyFunctional(molecule, SVP)
    projected = functional.kohn_sham_matrix(model.hamiltonian(atoms))
    (whole,) = orbitals.canonical_projectors(overlap(molecule, SVP.basis), (1e-6,))
    density = orbitals.solve(projected, whole, 5).density_matrix()
    assert functional.energy_and_fock(density)[0] == pytest.approx(energies["on"], abs=1e-9)
    assert 1e-7 < abs(energies["on"] - energies["off"]) < 1e-3
    start = helm_scale.load(source, projection="on").initial_guess(model.solver(atoms).mol)
    wanted = from_canonical(density, SVP.basis, atoms.numbers)
    np.testing.assert_allclose(start, wanted, atol=1e-8)


def _orbitals(solver: object, fock: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and occupations."""
    energies, coefficients = solver.eig(fock, solver.get_ovlp())  # type: ignore[attr-defined]
    return coefficients, solver.get_occ(energies, coefficients)  # type: ignore[attr-defined]


def test_charge_is_read_and_open_shells_are_refused(source: Path, atoms: ase.Atoms) -> None:
    model = helm_scale.load(source)
    hydroxide = ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"charge": -1})
    molecule = Molecule("hydroxide", hydroxide.numbers, hydroxide.positions, charge=-1)
    assert np.array_equal(model.hamiltonian(hydroxide), model.hamiltonian(molecule))
    atoms.info.update(charge=1, spin=2)
    with pytest.raises(ValueError, match="orbitals are filled in pairs"):
        model.hamiltonian(atoms)
    with pytest.raises(ValueError, match="Z = 92"):
        model.hamiltonian(ase.Atoms("U"))


@pytest.fixture
def trained_on_ammonia(source: Path, atoms: ase.Atoms, tmp_path: Path) -> Path:
    """The model, with a record of ammonia and water."""
    folder = Path(shutil.copytree(source, tmp_path / "trained", ignore=lambda *_: ["runs"]))
    record = json.loads((folder / "model.json").read_text())
    water = ase.build.molecule("H2O")
    seen = [Molecule(m.get_chemical_formula(), m.numbers, m.positions) for m in (atoms, water)]
    record["training_domain"] = TrainingDomain.of(seen).record()
    (folder / "model.json").write_text(json.dumps(record))
    return folder


def test_an_unseen_element_is_refused_wherever_a_molecule_comes_in(
    trained_on_ammonia: Path, atoms: ase.Atoms, caplog: pytest.LogCaptureFixture
) -> None:
    model = helm_scale.load(trained_on_ammonia)
    methane, message = ase.build.molecule("CH4"), "element C: never seen in training, which had H N"
    free = helm_scale.load(trained_on_ammonia, allow_extrapolation=True)
    mol = free.solver(methane).mol
    for use, got in (
        (model.hamiltonian, methane),
        (model.energy, methane),
        (model.initial_guess, mol),
    ):
        with pytest.raises(ValueError, match=message):
            use(got)
    model.hamiltonian(atoms)
    hydroxide = ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"charge": -1})
    model.hamiltonian(hydroxide)
    model.hamiltonian(hydroxide)
    for words in ("fewer than 3 atoms", "charge -1"):
        assert sum(words in record.message for record in caplog.records) == 1
    caplog.clear()
    assert free.hamiltonian(methane).shape == free.initial_guess(mol).shape
    # An earlier test may have switched on what is said of the matrix in use
    assert all(record.message.startswith("Matrix in use") for record in caplog.records)


def test_predict_refuses_an_unseen_element_before_it_writes(
    trained_on_ammonia: Path, tmp_path: Path
) -> None:
    xyz, out = tmp_path / "methane.xyz", tmp_path / "out"
    ase.io.write(xyz, ase.build.molecule("CH4"), format="extxyz")
    given = config.PredictConfig(source=str(trained_on_ammonia), xyz=str(xyz), out=str(out))
    with pytest.raises(ValueError, match="element C: never seen in training"):
        commands.predict(given)
    assert not out.exists()
    accepted = given.model_copy(update={"allow_extrapolation": True, "processes": 1})
    assert "1 molecules written" in commands.predict(accepted)


def test_importing_the_package_is_light_and_names_what_it_has() -> None:
    code = "import sys, helm_scale; assert 'torch' not in sys.modules; helm_scale.lode"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "helm_scale has no 'lode'; it has Backbone, EnergyCalculator" in result.stderr
    assert all(hasattr(helm_scale, name) for name in helm_scale.__all__)
