"""The ASE calculator of energy models: physics, and what it refuses."""

import os
from pathlib import Path

import ase
import ase.build
import ase.units
import numpy as np
import pytest
import torch
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from torch import nn

import helm_scale
from helm_scale import commands
from helm_scale.export.atoms import molecule_of
from helm_scale.model.energy import EnergyModel
from helm_scale.model.weights import save_weights
from helm_scale.types import GraphBatch
from tests.export.conftest import DOMAIN
from tests.rotations import random_rotation


@pytest.fixture
def atoms(energy_folder: Path) -> ase.Atoms:
    found = ase.build.molecule("CH3OH")
    found.rattle(0.05, seed=1)
    found.calc = helm_scale.EnergyCalculator(commands.load_energy_model(energy_folder)[0])
    return found


def test_the_energy_does_not_change_when_atoms_are_moved_turned_or_reordered(
    atoms: ase.Atoms,
) -> None:
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    rotation, order = random_rotation(5).numpy(), [3, 1, 5, 0, 2, 4]
    other = atoms[order]
    other.positions = other.positions @ rotation.T + [4.0, 5.0, -6.0]
    other.calc = atoms.calc
    assert other.get_potential_energy() == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(other.get_forces(), forces[order] @ rotation.T, atol=1e-9)
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-9)


def test_forces_are_finite_differences_of_the_energy(atoms: ase.Atoms) -> None:
    forces, step = atoms.get_forces(), 1e-4
    numeric = np.zeros_like(forces)
    for i, axis in np.ndindex(forces.shape):
        for sign in (1, -1):
            atoms.positions[i, axis] += sign * step
            numeric[i, axis] -= sign * atoms.get_potential_energy() / (2 * step)
            atoms.positions[i, axis] -= sign * step
    assert np.abs(forces).max() > 0.01
    assert np.abs(forces - numeric).max() <= 1e-4 * np.abs(forces).max()


class Held(nn.Module):
    """An energy model and springs that hold its atoms together, as a random network does not."""

    def __init__(self, model: EnergyModel, atoms: ase.Atoms) -> None:
        super().__init__()
        self.config, self.model, self.rest = (
            model.config,
            model,
            torch.tensor(atoms.get_all_distances()),
        )

    def forward(self, batch: GraphBatch) -> torch.Tensor:
        first, second = batch.edge_index
        stretch = (batch.positions[first] - batch.positions[second]).norm(dim=-1) - self.rest[
            first, second
        ]
        return self.model(batch) + 0.05 * stretch.square().sum()


def test_dynamics_conserve_the_energy(atoms: ase.Atoms) -> None:
    atoms.calc = helm_scale.EnergyCalculator(Held(atoms.calc.model, atoms))
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(0))
    dynamics, totals, potentials = VelocityVerlet(atoms, timestep=0.25 * ase.units.fs), [], []
    for _ in range(200):
        dynamics.run(1)
        totals.append(atoms.get_total_energy())
        potentials.append(atoms.get_potential_energy())
    drift = abs(np.mean(totals[-50:]) - np.mean(totals[:50])) / len(atoms)
    spread = np.ptp(potentials) / len(atoms)
    print(f"200 steps of NVE: drift {drift:.1e} eV/atom, potential energy varies by {spread:.1e}")
    assert drift < 1e-5 < 1e-3 < spread


def test_charge_and_spin_count_and_wrong_ones_are_refused(atoms: ase.Atoms) -> None:
    neutral = atoms.get_potential_energy()
    atoms.info.update(charge=1, spin=2)
    assert atoms.get_potential_energy() != neutral
    for info, message in (
        ({"charge": 1, "spin": 1}, r"17 electrons \(charge \+1\) cannot have multiplicity 1"),
        ({"charge": 7, "spin": 2}, r"charge \+7, wanted at most"),
        ({"charge": 0, "spin": 9}, r"multiplicity 9, wanted 1 to"),
        ({"charge": 0, "spin": 1.5}, r"atoms.info: spin: got 1.5, wanted an integer"),
        ({"spin": 1, "total_charge": -2}, "charge=0, total_charge=-2 contradict"),
        ({"total_charge": 0, "net_charge": -2}, "did you mean charge=-2"),
    ):
        atoms.info.update(info)
        with pytest.raises(ValueError, match=message):
            atoms.get_potential_energy()


def test_only_a_finetuned_model_has_energies(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no energy model"):
        commands.load_energy_model(tmp_path)


def test_a_charge_by_another_name_counts_at_once(atoms: ase.Atoms) -> None:
    neutral = atoms.get_potential_energy()
    atoms.info["total_charge"] = -2
    charged = atoms.get_potential_energy()  # not the result that was kept
    assert charged != neutral
    atoms.info = {"charge": -2}
    assert atoms.get_potential_energy() == charged
    atoms.info = {}
    atoms.set_initial_charges([-1.0] + [0.0] * (len(atoms) - 1))
    with pytest.raises(ValueError, match="charges of the atoms sum to -1"):
        atoms.get_potential_energy()


def test_an_unseen_element_is_refused_and_what_is_extrapolated_is_said_once(
    energy_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = commands.load_energy_model(energy_folder)[0]
    model.training_domain = DOMAIN
    ammonia, benzene = ase.build.molecule("NH3"), ase.build.molecule("C6H6")
    ammonia.calc = benzene.calc = helm_scale.EnergyCalculator(model)
    with pytest.raises(ValueError, match="element N: never seen in training"):
        ammonia.get_potential_energy()
    for _ in range(3):
        benzene.rattle(0.01)
        benzene.get_potential_energy()
    assert len(caplog.records) == 1 and "more than 8 atoms" in caplog.text
    ammonia.calc = helm_scale.EnergyCalculator(model, allow_extrapolation=True)
    assert np.isfinite(ammonia.get_potential_energy()) and len(caplog.records) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "got NoneType, wanted one ASE Atoms"),
        ("H2O", "got str, wanted one ASE Atoms"),
        ([ase.Atoms("He")], "got list, wanted one ASE Atoms"),
        (ase.Atoms(), "got no atoms"),
        (ase.Atoms("HeX", [[0, 0, 0], [0, 0, 2]]), "a dummy atom X"),
    ],
)
def test_what_is_no_molecule_is_refused(given: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        molecule_of(given)


def test_a_folder_is_enough_and_a_list_gives_what_each_molecule_gives(energy_folder: Path) -> None:
    calculator = helm_scale.EnergyCalculator(energy_folder, allow_extrapolation=True)
    frames = [ase.build.molecule(name) for name in ("CH3OH", "H2O", "C6H6", "NH3")]
    for frame, (energy, forces) in zip(
        frames, calculator.evaluate(frames, atoms_per_batch=9), strict=True
    ):
        frame.calc = calculator
        assert energy == pytest.approx(frame.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(forces, frame.get_forces(), atol=1e-4)
    with pytest.raises(ValueError, match=r"no model\.json, so this is no energy model"):
        helm_scale.EnergyCalculator(energy_folder.parent)


def test_files_of_weights_have_ordinary_permissions(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_weights({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o644
