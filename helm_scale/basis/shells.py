"""Shells of every element in every basis, from the committed tables."""

import json
from functools import cache
from pathlib import Path

from helm_scale.basis import elements


@cache
def _table(basis: str) -> dict[str, dict]:
    elements.supported(basis)
    return json.loads((Path(__file__).parent / "data" / f"{basis}.json").read_text())


def shells_of(basis: str, atomic_number: int) -> tuple[int, ...]:
    """Degrees l of an element's shells, sorted by l (PySCF's order).

    Raises:
        ValueError: the basis does not cover the element.
    """
    elements.check_supported(basis, [atomic_number], "basis")
    return tuple(_table(basis)[elements.symbol(atomic_number)]["shells"])


def shell_counts(basis: str, atomic_number: int) -> tuple[int, ...]:
    """Number of shells of degree 0, 1, 2, 3."""
    shells = shells_of(basis, atomic_number)
    return tuple(shells.count(degree) for degree in range(4))


@cache
def nao(basis: str, atomic_number: int) -> int:
    """Number of atomic orbitals of an element."""
    return sum(2 * degree + 1 for degree in shells_of(basis, atomic_number))


def ecp_core_electrons(basis: str, atomic_number: int) -> int:
    """Electrons that the element's effective core potential replaces."""
    elements.check_supported(basis, [atomic_number], "basis")
    return int(_table(basis)[elements.symbol(atomic_number)]["ecp_core_electrons"])


@cache
def slot_counts(basis: str) -> tuple[int, ...]:
    """Slots per degree common to all elements: the most shells of that degree (7s 6p 5d 2f for
    def2-TZVPD)."""
    counts = [shell_counts(basis, z) for z in elements.supported(basis)]
    return tuple(max(column) for column in zip(*counts, strict=True))
