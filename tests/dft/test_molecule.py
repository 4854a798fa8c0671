"""Electrons, charge and multiplicity: what cannot be is refused with the reason."""

import numpy as np
import pytest

from helm_scale.dft.molecule import check_electrons
from helm_scale.types import Molecule


def atom(z: int, charge: int, multiplicity: int) -> Molecule:
    return Molecule(
        "one", np.array([z]), np.zeros((1, 3)), charge=charge, spin_multiplicity=multiplicity
    )


@pytest.mark.parametrize(
    ("z", "charge", "reason"),
    [(1, 1, "leaves no electrons"), (53, 25, "leaves no electrons outside the ECP cores")],
)
def test_charges_that_leave_no_electrons_are_refused(z: int, charge: int, reason: str) -> None:
    message = rf"^in\.xyz: charge \+{charge} {reason}; wanted a lower charge"
    with pytest.raises(ValueError, match=message):
        check_electrons(atom(z, charge, 1), "def2-tzvpd", "in.xyz")


@pytest.mark.parametrize(
    ("z", "charge", "multiplicity", "wanted"),
    [
        (8, 0, 2, "an odd multiplicity from 1 to 9"),
        (9, 0, 1, "an even multiplicity from 2 to 10"),
        (2, 0, 5, "an odd multiplicity from 1 to 3"),
        (8, 0, 0, "an odd multiplicity from 1 to 9"),
        (53, 24, 4, "an even multiplicity from 2 to 2"),
    ],
)
def test_multiplicities_that_cannot_be_are_refused_with_what_can(
    z: int, charge: int, multiplicity: int, wanted: str
) -> None:
    electrons = rf"^in\.xyz: {z - charge} electrons \(charge \+{charge}\)"
    message = f"{electrons} cannot have multiplicity {multiplicity}; wanted {wanted}"
    with pytest.raises(ValueError, match=message):
        check_electrons(atom(z, charge, multiplicity), "def2-tzvpd", "in.xyz")


@pytest.mark.parametrize(
    ("z", "charge", "multiplicity"), [(1, 0, 2), (1, -1, 1), (8, 0, 3), (53, 0, 2), (53, 24, 2)]
)
def test_electrons_that_can_be_pass(z: int, charge: int, multiplicity: int) -> None:
    check_electrons(atom(z, charge, multiplicity), "def2-tzvpd", "in.xyz")
