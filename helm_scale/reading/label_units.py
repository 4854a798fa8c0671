"""Units of energies and forces in files: their names, and what one Hartree is in them."""

from helm_scale.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

ENERGY_UNITS = ("eV", "Hartree", "kcal/mol", "kJ/mol")
FORCE_UNITS = tuple(
    f"{energy}/{length}" for length in ("Angstrom", "bohr") for energy in ENERGY_UNITS
)
# CODATA 2018: one Hartree is 4.3597447222071e-18 J, times the Avogadro constant
HARTREE_IN_KJ_MOL = 2625.4996394799
_HARTREE_IN: dict[str, float] = {
    "eV": HARTREE_IN_EV,
    "Hartree": 1.0,
    "kcal/mol": HARTREE_IN_KJ_MOL / 4.184,
    "kJ/mol": HARTREE_IN_KJ_MOL,
}
_SPELLINGS = {
    "ev": "eV", "hartree": "Hartree", "ha": "Hartree", "eh": "Hartree", "kcal/mol": "kcal/mol",
    "kj/mol": "kJ/mol", "ang": "Angstrom", "angstrom": "Angstrom", "a": "Angstrom",
    "bohr": "bohr", "a0": "bohr",
}  # fmt: skip


def hartree_in(unit: str) -> float:
    """One Hartree in a unit of energy."""
    return _HARTREE_IN[unit]


def hartree_per_angstrom_in(unit: str) -> float:
    """One Hartree/Angstrom in a unit of force."""
    energy, _, length = unit.rpartition("/")
    return _HARTREE_IN[energy] * (BOHR_IN_ANGSTROM if length == "bohr" else 1.0)


def energy_unit(text: str, where: str) -> str:
    """The unit that metadata mean.

    Raises:
        ValueError: an unknown one; names `where`.
    """
    unit = _SPELLINGS.get(text.strip().lower(), "")
    if unit not in ENERGY_UNITS:
        raise ValueError(f"{where}: unit {text!r}, wanted one of {', '.join(ENERGY_UNITS)}")
    return unit


def force_unit(text: str, where: str) -> str:
    """The unit of forces that metadata mean.

    Raises:
        ValueError: an unknown one; names `where`.
    """
    energy, _, length = text.strip().lower().rpartition("/")
    unit = f"{_SPELLINGS.get(energy, energy)}/{_SPELLINGS.get(length, length)}"
    if unit not in FORCE_UNITS:
        raise ValueError(f"{where}: unit {text!r}, wanted one of {', '.join(FORCE_UNITS)}")
    return unit
