"""Charge and multiplicity under every name; what cannot be meant is refused."""

from typing import Any

import numpy as np
import pytest

from helm_scale.reading.identity import read_identity

WATER, HYDROXIDE, OXYGEN = np.array([8, 1, 1]), np.array([8, 1]), np.array([8, 8])


@pytest.mark.parametrize(
    ("info", "identity"),
    [
        ({}, (0, 1)),
        ({"charge": -2}, (-2, 1)),
        ({"total_charge": np.int64(-2)}, (-2, 1)),
        ({"Charge": -2.0}, (-2, 1)),
        ({"q": np.array([-2]), "S": 0}, (-2, 1)),
        ({"q": [-1], "S": 0.5}, (-1, 2)),
        ({"charge": 1, "total_charge": 1, "multiplicity": 2, "spin": 2}, (1, 2)),
        ({"charge": 0, "mult": 3}, (0, 3)),
        ({"spin_multiplicity": 3}, (0, 3)),
        ({"total_charge": -1, "total_spin": 2}, (-1, 2)),
        # Text, fractions, lists and values that change nothing are no charge of a molecule
        ({"charge_method": "mulliken", "max_charge": 0.3, "charges": [0.1, 0.2]}, (0, 1)),
        ({"charge_state": 0, "spinpol": True, "magmom": 0.0, 7: -2}, (0, 1)),
    ],
)
def test_every_name_means_what_it_says(info: dict[Any, Any], identity: tuple[int, int]) -> None:
    assert read_identity(info, WATER, "here") == identity


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"charge": -2, "total_charge": 0}, "charge=-2, total_charge=0 contradict"),
        ({"multiplicity": 1, "S": 1}, "multiplicity=1, S=3 contradict"),
        ({"net_charge": -2}, r"net_charge=-2 is not read.*did you mean charge=-2"),
        ({"chrage": -2}, "did you mean charge=-2"),
        ({"totalCharge": "-2"}, "did you mean charge=-2"),
        ({"multiplicty": 3}, "did you mean multiplicity=3"),
        ({"spin_state": 3}, "did you mean multiplicity=3"),
        ({"magmom": 2.0}, "did you mean multiplicity=3"),
        ({"uhf": 2}, "did you mean multiplicity=3"),
        ({"num_unpaired_electrons": 2}, "did you mean multiplicity=3"),
        ({"charge": True}, "here: charge: got True, wanted an integer"),
        ({"charge": None}, "here: charge: got None"),
        ({"charge": "-2"}, "here: charge: got '-2'"),
        ({"charge": float("nan")}, "here: charge: got nan"),
        ({"charge": [0, 0]}, r"here: charge: got \[0, 0\]"),
        ({"S": 0.3}, "here: 2S.1: got 1.6"),
        ({"charge": -1}, "11 electrons .charge -1. cannot have multiplicity 1.*state charge"),
        ({"spin": 0}, "spin is read as 2S.1: if it is 2S, write multiplicity=1"),
        ({"charge": 11}, "leaves -1 electrons"),
    ],
)
def test_what_cannot_be_meant_is_refused(info: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_identity(info, WATER, "here")


def test_what_atoms_start_from_must_not_contradict() -> None:
    with pytest.raises(ValueError, match=r"charges of the atoms sum to -1.00, .*state charge=-1"):
        read_identity({}, HYDROXIDE, "here", initial_charges=-1.0)
    assert read_identity({"charge": -1}, HYDROXIDE, "here", initial_charges=-1.0) == (-1, 1)
    with pytest.raises(ValueError, match=r"of the atoms sum to 2.00, .*state multiplicity=3"):
        read_identity({}, OXYGEN, "here", magnetic_moments=2.0)
    assert read_identity({"spin": 3}, OXYGEN, "here", magnetic_moments=2.0) == (0, 3)
