"""Free atoms: their ground states, and energies that tell in which unit totals are.

`python -m helm_scale.dft.free_atoms` writes the table.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from helm_scale.basis.elements import symbol
from helm_scale.reading.label_units import ENERGY_UNITS, hartree_in
from helm_scale.types import Molecule

FINE_STRUCTURE = 1 / 137.036
BINDING = 0.3  # Hartree per atom: more than the strongest bonds, those of carbon and nitrogen
STRAIN = 0.05  # Hartree per atom above free atoms, as in compressed geometries
IONISATION = 1.0  # Hartree per positive charge, dications included
AFFINITY = 0.15  # Hartree per negative charge


@cache
def _table() -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = json.loads(
        Path(__file__).with_name("free_atoms.json").read_text()
    )
    return table


def ground_state(atomic_number: int) -> int:
    """Multiplicity of a free neutral atom; 0 for an element that the package does not have."""
    try:
        return int(_table()["multiplicity"][symbol(atomic_number)])
    except KeyError:
        return 0


def families() -> list[str]:
    """Kinds of methods whose totals differ: with all electrons, with effective cores."""
    return [name for name in _table() if name != "multiplicity"]


def fits(energy: float, molecule: Molecule, family: str) -> bool:
    """Whether a number can be the total energy of a molecule, Hartree, in a family of methods.

    The totals of methods differ by less than a per cent, and those without relativity by a share
    that grows with (Z/137)^2.
    """
    table = _table()[family]
    try:
        atoms = [(int(z), table[symbol(int(z))]) for z in molecule.atomic_numbers]
    except KeyError:
        return False
    total, count = sum(e for _, e in atoms), len(atoms)
    methods = sum(abs(e) * (0.01 + 0.2 * (z * FINE_STRUCTURE) ** 2) for z, e in atoms)
    lowest = total - methods - BINDING * count - AFFINITY * max(-molecule.charge, 0)
    highest = total + methods + STRAIN * count + IONISATION * max(molecule.charge, 0)
    return bool(lowest <= energy <= highest)


def misfits(energies: Sequence[float], molecules: Sequence[Molecule]) -> list[int]:
    """Molecules whose energy, Hartree, is no total of the family that fits most of them.

    Those with an element that the package does not have are left out.
    """
    known = [i for i, m in enumerate(molecules) if all(map(ground_state, m.atomic_numbers))]
    listed = [[i for i in known if not fits(energies[i], molecules[i], f)] for f in families()]
    return min(listed, key=len)


def check_totals(
    molecules: Sequence[Molecule], places: Sequence[str], *, name: str, unit: str
) -> None:
    """Refuse energies that are no totals in the unit in which they were read.

    Args:
        molecules: with energies, Hartree. places: file and frame of each. name: of the label.
    Raises:
        ValueError: names the first place, and the unit that would fit.
    """
    energies = [float(m.energy or 0.0) for m in molecules]
    wrong = misfits(energies, molecules)
    if not wrong:
        return
    few, first = [molecules[i] for i in wrong], wrong[0]
    in_file = [energies[i] * hartree_in(unit) for i in wrong]
    other = next(
        (u for u in ENERGY_UNITS if not misfits([e / hartree_in(u) for e in in_file], few)), None
    )
    if other:
        remedy = f"they fit {other}: set energy_unit: {other}"
    elif np.abs([energies[i] for i in wrong]).max() < BINDING * max(len(m.positions) for m in few):
        remedy = (
            "they look like formation or atomisation energies: give totals, or set"
            " energy_kind: relative"
        )
    else:
        remedy = "they fit no unit; set energy_kind: relative if they are not totals"
    raise ValueError(
        f"{places[first]}: {name} {in_file[0]:.6g} {unit} is no total energy of {len(wrong)} of"
        f" {len(molecules)} molecules, held against free atoms; {remedy}"
    )
