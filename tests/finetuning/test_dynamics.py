"""Energies and forces of finetuned models carry dynamics and a relaxation, on the data of
docs/finetune.md."""

from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase import units
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from helm_scale.export.calculator import EnergyCalculator
from helm_scale.finetuning import labels, modes, train
from tests.blocks import blocks_of
from tests.finetuning.made_up import settings, started

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "finetune.md"


@pytest.fixture(scope="module")
def water(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The molecules of the page: water with springs, their energies and forces."""
    path = tmp_path_factory.mktemp("water") / "energies.xyz"
    block = next(body for _, body in blocks_of(PAGE) if "ase.io.write" in body)
    exec(block.replace("runs/docs/energies.xyz", str(path)), {})
    return path


@pytest.fixture(scope="module")
def calculator(water: Path) -> EnergyCalculator:
    config = settings(data=str(water), target="forces", steps=40, batch_molecules=8)
    run = started("finetuned", config, labels.read(config))
    train.start_head(run, config)
    train.train(run, modes.parameter_groups(run.model, "finetuned", config), config, seed=0)
    test = run.splits.tests["test"]
    alone = started("finetuned", config, labels.read(config))
    before, after = (train.errors(r, test, forces=True) for r in (alone, run))
    assert after.force_mae is not None and before.force_mae is not None
    assert after.mae < 0.2 * before.mae and after.force_mae < 0.2 * before.force_mae
    return EnergyCalculator(run.model)


def distances(atoms: ase.Atoms) -> np.ndarray:
    return atoms.get_all_distances()[np.triu_indices(3, 1)]


def test_a_relaxation_ends_at_the_minimum(water: Path, calculator: EnergyCalculator) -> None:
    for atoms in ase.io.read(water, ":3"):
        atoms.calc = calculator
        assert BFGS(atoms, logfile=None).run(fmax=0.02, steps=60)
        assert distances(atoms) == pytest.approx([0.96, 0.96, 1.52], abs=0.03)


def test_500_steps_of_dynamics_keep_the_energy(water: Path, calculator: EnergyCalculator) -> None:
    atoms = ase.io.read(water, "0")
    atoms.calc = calculator
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(1))
    dynamics, energies = VelocityVerlet(atoms, 0.5 * units.fs), [atoms.get_total_energy()]
    for _ in range(50):
        dynamics.run(10)
        energies.append(atoms.get_total_energy())
        assert distances(atoms) == pytest.approx([0.96, 0.96, 1.52], abs=0.25)
    assert np.ptp(energies) < 0.02  # eV, of some 0.3 that move
