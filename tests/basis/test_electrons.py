"""One count of electrons: ECP cores leave the rest, which fill orbitals in pairs or not at all."""

import numpy as np
import pytest

from helm_scale.basis.electrons import check_multiplicity, occupied_orbitals, valence_electrons

HYDROGEN_IODIDE = np.array([1, 53])


def test_an_ecp_leaves_its_valence_electrons() -> None:
    assert valence_electrons("def2-tzvpd", HYDROGEN_IODIDE, 0) == 1 + 53 - 28
    assert valence_electrons("def2-tzvpd", np.array([8, 1]), -1) == 10
    counted = occupied_orbitals("def2-tzvpd", HYDROGEN_IODIDE, charge=0, multiplicity=1, where="hi")
    assert counted == 13


@pytest.mark.parametrize(("charge", "multiplicity"), [(1, 1), (0, 3), (1, 2), (26, 1)])
def test_open_shells_and_bare_cores_have_no_pairs(charge: int, multiplicity: int) -> None:
    with pytest.raises(ValueError, match=r"^hi: .* wanted an even number of electrons"):
        occupied_orbitals(
            "def2-tzvpd", HYDROGEN_IODIDE, charge=charge, multiplicity=multiplicity, where="hi"
        )


def test_a_multiplicity_needs_as_many_electrons_outside_the_cores() -> None:
    fine = dict(charge=24, where="a.xyz")
    check_multiplicity("def2-tzvpd", np.array([53]), multiplicity=2, **fine)
    with pytest.raises(ValueError, match=r"^a.xyz: 29 electrons .* from 2 to 2$"):
        check_multiplicity("def2-tzvpd", np.array([53]), multiplicity=4, **fine)
