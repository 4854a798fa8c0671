"""Models of metatomic through its own ASE calculator; needs metatomic-torch.

Run by make test-adapters.
"""

from pathlib import Path

import ase
import ase.build
import numpy as np
import pytest
import torch

from helm_scale import Backbone, EnergyCalculator, commands
from tests.export import page

pytest.importorskip(
    "metatomic.torch",
    reason="metatomic-torch is not installed; `make test-adapters` builds an environment",
)

import metatomic.torch
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator

from helm_scale.export.metatomic import save_energies, save_features

# metatomic's models are traced, which torch calls deprecated; the two rows of edges stay two
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    # its stress of atoms without a cell, whose volume is 0
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning:metatomic_ase"),
]


def molecules() -> list[ase.Atoms]:
    """Not of the size that is traced; charged, with an open shell, and one atom without edges."""
    found = [
        ase.build.molecule("CH3OH"),
        ase.build.molecule("O2"),
        ase.build.molecule("H2O"),
        ase.Atoms("Li"),
    ]
    for number, info in enumerate(({}, {"spin": 3}, {"charge": 1, "spin": 2}, {"charge": 1})):
        found[number].info.update(info)
        found[number].rattle(0.05, seed=number)
    return found


def test_features_are_those_of_the_plain_loader(pristine: Path, tmp_path: Path) -> None:
    backbone = Backbone.from_pretrained(pristine, allow_extrapolation=True)
    save_features(backbone, tmp_path / "backbone.pt", allow_extrapolation=True)
    calculator = MetatomicCalculator(tmp_path / "backbone.pt", check_consistency=True)
    found = calculator.run_model(molecules(), {"feature": ModelOutput(sample_kind="atom")})[
        "feature"
    ].block()
    assert found.samples.names == ["system", "atom"] and found.values.dtype == torch.float64
    wanted = torch.cat([backbone.features(one, invariants=True) for one in molecules()]).double()
    error = float((found.values - wanted).detach().abs().max() / wanted.abs().max())
    versions = f"metatomic-torch {metatomic.torch.__version__}, torch {torch.__version__}"
    print(f"{versions}: feature deviates by {error:.1e}")
    assert error <= 1e-5


def test_energies_and_forces_are_those_of_the_ase_calculator(
    energy_folder: Path, tmp_path: Path
) -> None:
    model = commands.load_energy_model(energy_folder)[0]
    save_energies(model, tmp_path / "energy.pt")
    theirs, ours = (
        MetatomicCalculator(tmp_path / "energy.pt", check_consistency=True),
        EnergyCalculator(model),
    )
    for one in molecules():
        one.calc = ours
        energy, forces = one.get_potential_energy(), one.get_forces()
        one.calc = theirs
        assert one.get_potential_energy() == pytest.approx(energy, rel=1e-7)
        np.testing.assert_allclose(
            one.get_forces(), forces, atol=1e-5 * max(1e-3, np.abs(forces).max())
        )
        if len(one) == 6:
            assert np.abs(forces).max() > 0.01


def test_elements_that_training_did_not_show_are_refused(pristine: Path, tmp_path: Path) -> None:
    save_features(Backbone.from_pretrained(pristine), tmp_path / "backbone.pt")
    calculator = MetatomicCalculator(tmp_path / "backbone.pt")
    outputs = {"feature": ModelOutput(sample_kind="atom")}
    calculator.run_model([ase.build.molecule("CH3OH")], outputs)
    with pytest.raises(Exception, match="7"):
        calculator.run_model([ase.build.molecule("NH3")], outputs)


def test_periodic_systems_are_refused(pristine: Path, tmp_path: Path) -> None:
    save_features(Backbone.from_pretrained(pristine), tmp_path / "backbone.pt")
    calculator = MetatomicCalculator(tmp_path / "backbone.pt")
    with pytest.raises(Exception, match="wanted a molecule"):
        calculator.run_model(
            [ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.74]], cell=[5, 5, 5], pbc=True)],
            {"feature": ModelOutput(sample_kind="atom")},
        )


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"charge": 0.4}, "charge: got 0.4"),
        ({"charge": float("nan")}, "charge: got nan, wanted an integer"),
        ({"charge": 1}, r"9 electrons .charge 1. cannot have multiplicity 1"),
        ({"spin": 0}, "cannot have multiplicity 0"),
        ({"spin": 13}, "cannot have multiplicity 13"),
    ],
)
def test_charges_that_cannot_be_are_refused(
    info: dict[str, float], message: str, pristine: Path, tmp_path: Path
) -> None:
    save_features(Backbone.from_pretrained(pristine), tmp_path / "backbone.pt")
    calculator = MetatomicCalculator(tmp_path / "backbone.pt")
    water = ase.build.molecule("H2O")
    water.info.update(info)
    with pytest.raises(Exception, match=message):
        calculator.run_model([water], {"feature": ModelOutput(sample_kind="atom")})


def test_the_documented_blocks_run(pristine: Path, energy_folder: Path, tmp_path: Path) -> None:
    scope = page.run("python metatomic", tmp_path, bundle=pristine, energy_model=energy_folder)
    assert tuple(scope["forces"].shape) == (6, 3)  # type: ignore[attr-defined]
