"""Charge and multiplicity of a molecule, by whatever name a file, a database or Atoms give them.

The names are those of ASE, fairchem, MACE, tmQM and PySCF users. Values that contradict each other
are refused, and so are names that are not among these but look like one: a charge that is read as 0
gives wrong numbers in silence.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from helm_scale.basis.electrons import check_pairing
from helm_scale.reading.numbers import integer, number

CHARGES = ("charge", "total_charge", "q")
# fairchem's spin and MACE's total_spin are multiplicities too; the parity of the electrons tells
MULTIPLICITIES = ("multiplicity", "spin_multiplicity", "mult", "spin", "total_spin")
SPIN = "S"  # tmQM's: the quantum number S, 0.5 for a doublet
# Names of 2S that other programs use, without signs between letters
UNPAIRED = re.compile(r"uhf|.*unpaired.*|2s|twos|magmom|magneticmoment")
CHARGE_LIKE = re.compile(r"charge|^chg$|^qtot$|^net_?q$", re.IGNORECASE)
SPIN_LIKE = re.compile(r"spin|multiplic|^mul$", re.IGNORECASE)


class Identity(NamedTuple):
    """Total charge and multiplicity 2S+1."""

    charge: int
    multiplicity: int


def read_identity(
    info: Mapping[str, Any],
    atomic_numbers: np.ndarray,
    where: str,
    *,
    initial_charges: float = 0.0,
    magnetic_moments: float = 0.0,
) -> Identity:
    """Read charge (0 where none is stated) and multiplicity (1) of a molecule.

    Args:
        info: values by name. atomic_numbers: [N]. where: file and frame, for errors.
        initial_charges, magnetic_moments: sums over atoms, as ASE has them, of what a calculation
            starts from or found; they state nothing, but must not contradict.
    Raises:
        ValueError: no integers, values that contradict each other, a name that only looks like one
            of the known names, or a multiplicity that the number of electrons rules out.
    Property: the electrons of what is returned can be paired as its multiplicity says.
    """
    stated = {name: value for name, value in info.items() if isinstance(name, str)}
    identity = Identity(
        _agreed(_charges(stated, where), "charge", default=0, where=where),
        _agreed(_multiplicities(stated, where), "multiplicity (2S+1)", default=1, where=where),
    )
    _check_sums(stated, identity, where, charges=initial_charges, moments=magnetic_moments)
    for name, value in stated.items():
        _check_name(name, value, identity, where)
    _check_electrons(stated, identity, atomic_numbers, where)
    return identity


def states_multiplicity(info: Mapping[str, Any]) -> bool:
    """Whether one of the known names gives a multiplicity."""
    return bool(_multiplicities({k: v for k, v in info.items() if isinstance(k, str)}, ""))


def identity_names(info: Mapping[Any, Any]) -> dict[str, Any]:
    """The part of `info` that charge and multiplicity are read from."""
    names = (*CHARGES, *MULTIPLICITIES)
    return {
        k: v for k, v in info.items() if isinstance(k, str) and (k.lower() in names or k == SPIN)
    }


def check_no_cell(periodic: bool, where: str, *, ignore: bool = False) -> None:
    """Raise ValueError naming `where` for a cell that repeats, unless its images may go."""
    if periodic and not ignore:
        raise ValueError(
            f"{where}: got a periodic cell, wanted a molecule; set pbc to F F F if the images"
            " do not matter"
        )


def _charges(info: Mapping[str, Any], where: str) -> dict[str, int]:
    return {
        name: integer(value, f"{where}: {name}")
        for name, value in info.items()
        if name.lower() in CHARGES
    }


def _multiplicities(info: Mapping[str, Any], where: str) -> dict[str, int]:
    found = {
        name: integer(value, f"{where}: {name}")
        for name, value in info.items()
        if name.lower() in MULTIPLICITIES
    }
    if SPIN in info:
        found[SPIN] = integer(2 * number(info[SPIN], f"{where}: {SPIN}") + 1, f"{where}: 2S+1")
    return found


def _agreed(values: dict[str, int], what: str, *, default: int, where: str) -> int:
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{name}={value}" for name, value in values.items())
        raise ValueError(f"{where}: {listed} contradict each other; give one {what}")
    return next(iter(values.values()), default)


def _check_sums(
    info: Mapping[str, Any], identity: Identity, where: str, *, charges: float, moments: float
) -> None:
    """What atoms start from must not sum to another charge or spin than that of the molecule."""
    if abs(charges) > 0.5 and abs(charges - identity.charge) > 0.5:
        raise ValueError(
            f"{where}: charges of the atoms sum to {charges:+.2f}, but the charge is read as"
            f" {identity.charge:+d}; state charge={round(charges)}"
        )
    if abs(moments) > 0.5 and not states_multiplicity(info):
        raise ValueError(
            f"{where}: magnetic moments of the atoms sum to {moments:.2f}, but no multiplicity is"
            f" stated; state multiplicity={round(abs(moments)) + 1}"
        )


def _check_name(name: str, value: Any, identity: Identity, where: str) -> None:
    """Refuse a name that looks like a charge or multiplicity and says something else."""
    if name in identity_names({name: value}):
        return
    wanted = _looks_like(name)
    if wanted is None:
        return
    try:
        stated = integer(_as_number(value), where)
    except ValueError:
        return  # text, fractions and values of every atom are no charge of a molecule
    read = identity.charge if wanted == "charge" else identity.multiplicity
    meant = abs(stated) + 1 if UNPAIRED.fullmatch(_plain(name)) else stated
    if meant != read:
        known = ", ".join(CHARGES if wanted == "charge" else MULTIPLICITIES)
        raise ValueError(
            f"{where}: {name}={value} is not read, and {wanted} would be {read}; did you mean"
            f" {wanted}={meant}? Known names: {known}"
        )


def _looks_like(name: str) -> str | None:
    """ "charge", "multiplicity", or None."""
    if CHARGE_LIKE.search(name):
        return "charge"
    if SPIN_LIKE.search(name) or UNPAIRED.fullmatch(_plain(name)):
        return "multiplicity"
    close = difflib.get_close_matches(
        name.lower(), [n for n in (*CHARGES, *MULTIPLICITIES) if len(n) > 5], n=1, cutoff=0.8
    )
    if not close:
        return None
    return "charge" if close[0] in CHARGES else "multiplicity"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _as_number(value: Any) -> Any:
    """A number that is written as text, as a number."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,9}", value.strip(), re.ASCII):
        return int(value)
    return value


def _check_electrons(
    info: Mapping[str, Any], identity: Identity, atomic_numbers: np.ndarray, where: str
) -> None:
    charge, multiplicity = identity
    electrons = int(atomic_numbers.sum()) - charge
    if electrons < 0:
        raise ValueError(
            f"{where}: charge {charge:+d} leaves {electrons} electrons; wanted a lower charge"
        )
    try:
        check_pairing(
            electrons, charge=charge, multiplicity=multiplicity, most=electrons, where=where
        )
    except ValueError as error:
        spins = [name for name in identity_names(info) if "spin" in name.lower()]
        hint = (
            f"; {spins[0]} is read as 2S+1: if it is 2S, write multiplicity={multiplicity + 1}"
            if spins
            else "; state charge and multiplicity"
        )
        raise ValueError(f"{error}{hint}") from None
