"""ASE Atoms as the package's own Molecule."""

from typing import Any

import numpy as np

from helm_scale.reading import identity
from helm_scale.reading.numbers import numbers
from helm_scale.types import Molecule


def molecule_of(atoms: Any) -> Molecule:
    """The molecule that ASE Atoms describe; a Molecule is returned as it is.

    Charge (0 where absent) and multiplicity (1) stand in atoms.info, under any name that
    reading/identity.py knows, such as "charge" and "spin" (2S+1).

    Raises:
        ValueError: something else, no atoms, periodic atoms, a charge or multiplicity that is no
            integer, contradicts another or does not fit the number of electrons, or a name that
            only looks like theirs.
    """
    if isinstance(atoms, Molecule):
        return atoms
    if not hasattr(atoms, "get_atomic_numbers"):
        raise ValueError(f"atoms: got {type(atoms).__name__}, wanted one ASE Atoms or Molecule")
    identity.check_no_cell(bool(np.any(atoms.pbc)), "atoms")
    atomic_numbers = np.asarray(atoms.get_atomic_numbers(), dtype=np.int64)
    if not len(atomic_numbers) or not atomic_numbers.all():
        raise ValueError("atoms: got no atoms or a dummy atom X, wanted real elements")
    charge, multiplicity = identity.read_identity(
        atoms.info,
        atomic_numbers,
        "atoms.info",
        initial_charges=float(atoms.get_initial_charges().sum()),
        magnetic_moments=float(np.sum(atoms.get_initial_magnetic_moments())),
    )
    return Molecule(
        "atoms",
        atomic_numbers,
        numbers(atoms.get_positions(), (len(atoms), 3), "atoms: positions"),
        charge=charge,
        spin_multiplicity=multiplicity,
    )
