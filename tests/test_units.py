"""The constants of units.py are those of the programs and tables that they name."""

import pytest
from pyscf.data import nist
from scipy.constants import physical_constants

from helm_scale import units


def test_the_bohr_radius_is_that_of_pyscf_to_the_last_bit() -> None:
    assert nist.BOHR == units.BOHR_IN_ANGSTROM


def test_the_electron_volt_is_that_of_codata() -> None:
    hartree, unit, _ = physical_constants["Hartree energy in eV"]
    # Releases differ in the eleventh digit.
    assert unit == "eV" and pytest.approx(hartree, rel=1e-10) == units.HARTREE_IN_EV
    assert units.HARTREE_IN_MEV == 1000 * units.HARTREE_IN_EV
