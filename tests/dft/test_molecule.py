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
    ("z", "charge", "multiplicity", "message"),
    [
        (1, 1, 1, r"in.xyz: charge \+1 leaves no electrons; wanted a lower charge"),
        (
            53,
            25,
            1,
            r"in.xyz: charge \+25 leaves no electrons outside the ECP cores; wanted a lower charge",
        ),
        (
            8,
            0,
            2,
            r"in.xyz: 8 electrons \(charge \+0\) cannot have multiplicity 2; wanted an odd multiplicity from 1 to 9",
        ),
        (
            9,
            0,
            1,
            r"9 electrons \(charge \+0\) cannot have multiplicity 1; wanted an even multiplicity from 2 to 10",
        ),
        (
            2,
            0,
            5,
            r"2 electrons \(charge \+0\) cannot have multiplicity 5; wanted an odd multiplicity from 1 to 3",
        ),
        (
            8,
            0,
            0,
            r"8 electrons \(charge \+0\) cannot have multiplicity 0; wanted an odd multiplicity from 1 to 9",
        ),
        (
            53,
            24,
            4,
            r"29 electrons \(charge \+24\) cannot have multiplicity 4; wanted an even multiplicity from 2 to 2",
        ),
    ],
)
def test_electrons_that_cannot_be_are_refused_with_the_reason(
    z: int, charge: int, multiplicity: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_electrons(atom(z, charge, multiplicity), "def2-tzvpd", "in.xyz")


@pytest.mark.parametrize(
    ("z", "charge", "multiplicity"), [(1, 0, 2), (1, -1, 1), (8, 0, 3), (53, 0, 2), (53, 24, 2)]
)
def test_electrons_that_can_be_pass(z: int, charge: int, multiplicity: int) -> None:
    check_electrons(atom(z, charge, multiplicity), "def2-tzvpd", "in.xyz")
