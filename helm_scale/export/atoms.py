"""ASE Atoms as the package's own Molecule."""

from typing import Any

import torch

from helm_scale.export import loader
from helm_scale.types import Molecule


def molecule_of(atoms: Any) -> Molecule:
    """The molecule that ASE Atoms describe; a Molecule is returned as it is.

    The charge is atoms.info["charge"] (0 where absent), the multiplicity 2S+1 atoms.info["spin"] (1
    where absent).

    Raises:
        ValueError: periodic atoms, a charge or spin that is no integer, or a multiplicity that does
            not fit the number of electrons.
    """
    if isinstance(atoms, Molecule):
        return atoms
    positions, numbers, charge, spin = loader.read_atoms(atoms)
    loader.check_electrons(numbers, torch.zeros_like(numbers), charge, spin)
    return Molecule(
        "atoms",
        numbers.numpy(),
        positions.numpy(),
        charge=int(charge),
        spin_multiplicity=int(spin),
    )
