"""Energies of free atoms in a file of their own, as MACE's E0s: {"1": -13.6, "O": -2041.8}."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from helm_scale.data.format.labels import LabelOptions
from helm_scale.reading import free_atoms, label_units
from helm_scale.reading.numbers import number
from helm_scale.types import Molecule


def read_atom_energies(given: str, options: LabelOptions) -> list[Molecule]:
    """Read energies of free, neutral atoms in their ground states.

    Args:
        given: path of a JSON file, or the text of one: energies by atomic number or symbol.
        options: their unit, eV where none is set, and whether they are totals.
    Returns:
        One molecule per element, with its energy in Hartree.
    Raises:
        ValueError: no such file, another content, an element twice, or energies that are no totals
            in the unit.
    """
    where, unit = _place(given), options.energy_unit or "eV"
    atoms: dict[int, Molecule] = {}
    for name, value in _entries(given, where).items():
        element = _element(name, f"{where}: {name}")
        if element in atoms:
            raise ValueError(f"{where}: {name}: a second energy of this element; keep one")
        energy = number(value, f"{where}: {name}, in {unit}") / label_units.hartree_in(unit)
        atoms[element] = Molecule(
            chemical_symbols[element],
            np.array([element]),
            np.zeros((1, 3)),
            spin_multiplicity=free_atoms.ground_state(element) or 1 + element % 2,
            energy=energy,
        )
    molecules = list(atoms.values())
    if not options.relative:
        places = [f"{where}: {molecule.key}" for molecule in molecules]
        free_atoms.check_totals(molecules, places, name="energy", unit=unit)
    return molecules


def _place(given: str) -> str:
    return "e0s" if given.lstrip().startswith("{") else given


def _entries(given: str, where: str) -> dict[Any, Any]:
    """What the file or the text holds."""
    text = given
    read: Callable[[str], Any] = _literal
    if not given.lstrip().startswith("{"):
        if not Path(given).is_file():
            hint = "; leave it out to have them fitted" if given == "average" else ""
            raise ValueError(f"e0s: got {given!r}, wanted a JSON file, or {{...}}{hint}")
        text, read = Path(given).read_text(encoding="utf-8", errors="replace"), json.loads
    try:
        entries = read(text)
    except (ValueError, SyntaxError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON: {error}") from None
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f'{where}: got no energies by element, wanted {{"1": -13.6, ...}}')
    return entries


def _literal(text: str) -> Any:
    """JSON, or as MACE's command line has it, Python with numbers as keys."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)


def _element(name: Any, where: str) -> int:
    text = str(name).strip()
    element = int(text) if text.isascii() and text.isdecimal() else atomic_numbers.get(text, 0)
    if isinstance(name, bool) or not 0 < element < len(chemical_symbols):
        raise ValueError(f"{where}: unknown element; wanted an atomic number or a symbol")
    return int(element)
