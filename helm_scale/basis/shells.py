"""Shells of every element in every basis, from the committed tables."""

from functools import cache

from helm_scale.basis import elements, registry


def _element(basis: str, atomic_number: int) -> registry.Element:
    elements.check_supported(basis, [atomic_number], "basis")
    return registry.table(basis)[elements.symbol(atomic_number)]


def shells_of(basis: str, atomic_number: int) -> tuple[int, ...]:
    """Degrees l of an element's shells, sorted by l (PySCF's order).

    Raises:
        ValueError: the basis does not cover the element.
    """
    return tuple(_element(basis, atomic_number)["shells"])


@cache
def highest_degree(basis: str) -> int:
    """The largest l of any shell of the basis: 3 for def2-TZVPD, 4 for def2-QZVP."""
    return max(max(shells_of(basis, z)) for z in elements.supported(basis))


def shell_counts(basis: str, atomic_number: int) -> tuple[int, ...]:
    """Number of an element's shells of degree 0, 1, ... up to the highest degree of the basis."""
    shells = shells_of(basis, atomic_number)
    return tuple(shells.count(degree) for degree in range(highest_degree(basis) + 1))


@cache
def nao(basis: str, atomic_number: int) -> int:
    """Number of atomic orbitals of an element."""
    return sum(2 * degree + 1 for degree in shells_of(basis, atomic_number))


def ecp_core_electrons(basis: str, atomic_number: int) -> int:
    """Electrons that the element's effective core potential replaces."""
    return int(_element(basis, atomic_number)["ecp_core_electrons"])


@cache
def slot_counts(basis: str) -> tuple[int, ...]:
    """Number of slots of every degree: the largest number of shells that any element has.

    7s 6p 5d 2f for def2-TZVPD.
    """
    counts = [shell_counts(basis, z) for z in elements.supported(basis)]
    return tuple(max(column) for column in zip(*counts, strict=True))
