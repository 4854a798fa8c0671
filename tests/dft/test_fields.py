"""Cube files: orbitals integrate to one, densities to the electrons; PySCF reads them back."""

from pathlib import Path

import numpy as np
import pytest
from pyscf import gto
from pyscf.tools import cubegen

from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.fields import write_cubes
from helm_scale.evaluation import orbitals
from helm_scale.types import Molecule
from helm_scale.units import BOHR_IN_ANGSTROM
from tests.evaluation.labels import SVP

WATER = Molecule(
    "water", np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.1], [0.76, 0.1, 0.68], [-0.74, 0.0, 0.58]])
)


def test_fields_have_the_norm_of_what_they_are_and_cubes_hold_them(tmp_path: Path) -> None:
    projector = orbitals.canonical_projectors(overlap(WATER, SVP.basis), (1e-6,))[0]
    solution = orbitals.solve(EnergyFunctional(WATER, SVP).baseline(), projector, 5)
    occupied = {f"orbital-{place}": solution.coefficients[:, place] for place in range(5)}
    fields = write_cubes(
        WATER,
        SVP.basis,
        orbitals=occupied,
        densities={"density": solution.density_matrix()},
        folder=tmp_path,
        spacing=0.25,
    )
    volume = np.prod(fields.step / BOHR_IN_ANGSTROM)
    assert np.square(fields.values["orbital-4"]).sum() * volume == pytest.approx(1.0, abs=0.02)
    squares = sum(2 * np.square(fields.values[name]) for name in occupied)
    assert np.abs(squares - fields.values["density"]).max() < 1e-10
    for name, values in fields.values.items():
        cube = cubegen.Cube(gto.M(atom="H", spin=1, verbose=0), 2, 2, 2)
        assert (
            np.abs(cube.read(str(tmp_path / f"{name}.cube")) - values).max()
            < 1e-4 * np.abs(values).max()
        )
    oxygen = np.round((WATER.positions[0] - fields.origin) / fields.step).astype(int)
    assert np.unravel_index(
        fields.values["density"].argmax(), fields.values["density"].shape
    ) == pytest.approx(oxygen, abs=1)
