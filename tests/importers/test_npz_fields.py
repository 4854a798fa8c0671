"""Fields of npz files: arrays of one are numbers; others are refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helm_scale.config import ImportConfig
from helm_scale.importers.npz_folder import NpzFolder
from helm_scale.types import Molecule

METHOD = '{"xc": "pbe", "basis": "def2-svp"}'


def read(tmp_path: Path, **fields: Any) -> Molecule:
    whole = {
        "atomic_numbers": [9, 1],
        "positions": [[0, 0, 0], [0, 0, 0.9]],
        "hamiltonian": np.zeros((19, 19)),
        "method": METHOD,
    }
    np.savez(tmp_path / "hf.npz", **{**whole, **fields})
    config = ImportConfig(dataset="npz", source=str(tmp_path))
    return NpzFolder(tmp_path, config).read("hf.npz").molecule


def test_arrays_of_one_are_numbers(tmp_path: Path) -> None:
    molecule = read(tmp_path, energy=[-100.0], charge=[[2]], spin_multiplicity=np.array([3.0]))
    assert (molecule.energy, molecule.charge, molecule.spin_multiplicity) == (-100.0, 2, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"energy": "-100"}, "energy: got '-100'"),
        ({"energy": np.nan}, "energy: got nan"),
        ({"energy": [-100.0, 0.0]}, "energy: got .-100.0, 0.0."),
        ({"charge": True}, "charge: got True"),
        ({"charge": 0.5}, "charge: got 0.5"),
        ({"charge": 1}, "9 electrons .charge .1. cannot have multiplicity 1"),
        ({"atomic_numbers": ["F", "H"]}, "atomic_numbers: got <U1 .*symbols are not read"),
        ({"positions": [[0, 0, 0]]}, r"positions: got shape \(1, 3\), wanted \(2, 3\)"),
        ({"forces": [[0, 0, 0], [0, 0, np.inf]]}, "forces: got NaN or infinity"),
        ({"hamiltonian": np.zeros((19, 19), dtype=complex)}, "hamiltonian: got complex128"),
    ],
    ids=str,
)
def test_what_is_no_number_is_refused(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"hf\.npz: {message}"):
        read(tmp_path, **fields)
