"""Counts the electrons of a molecule that the ECPs leave, and checks how they are paired."""

from collections.abc import Iterable

import numpy as np

from helm_scale.basis import elements
from helm_scale.basis.shells import ecp_core_electrons


def valence_electrons(basis: str, atomic_numbers: Iterable[int], charge: int) -> int:
    """Count the electrons outside the cores that the basis' effective core potentials replace.

    Raises:
        ValueError: the basis does not cover an element.
    """
    return sum(int(z) - ecp_core_electrons(basis, int(z)) for z in atomic_numbers) - charge


def check_multiplicity(
    basis: str, atomic_numbers: np.ndarray, *, charge: int, multiplicity: int, where: str
) -> None:
    """Raise ValueError naming `where` if electrons, charge and multiplicity 2S+1 do not fit."""
    elements.check_supported(basis, atomic_numbers, where)
    electrons = int(atomic_numbers.sum()) - charge
    valence = valence_electrons(basis, atomic_numbers, charge)
    if valence < 1:
        outside = " outside the ECP cores" if valence < electrons else ""
        raise ValueError(
            f"{where}: charge {charge:+d} leaves no electrons{outside}; wanted a lower charge"
        )
    # Closed cores pair their spins, so only electrons outside them can be unpaired
    check_pairing(electrons, charge=charge, multiplicity=multiplicity, most=valence, where=where)


def check_pairing(electrons: int, *, charge: int, multiplicity: int, most: int, where: str) -> None:
    """Raise ValueError naming `where` if so many electrons cannot have multiplicity 2S+1.

    n electrons have between 0 and `most` unpaired spins, of the parity of n.
    """
    if not 1 <= multiplicity <= most + 1 or (electrons + 1 - multiplicity) % 2:
        parity = "odd" if electrons % 2 == 0 else "even"
        raise ValueError(
            f"{where}: {electrons} electrons (charge {charge:+d}) cannot have multiplicity"
            f" {multiplicity}; wanted an {parity} multiplicity from {1 + electrons % 2} to"
            f" {most + 1}"
        )


def occupied_orbitals(
    basis: str, atomic_numbers: Iterable[int], *, charge: int, multiplicity: int, where: str
) -> int:
    """Count the doubly occupied orbitals of a closed shell.

    Raises:
        ValueError: not a closed shell, or no electrons; names `where`.
    """
    electrons = valence_electrons(basis, atomic_numbers, charge)
    if multiplicity != 1 or electrons % 2 or electrons < 2:
        raise ValueError(
            f"{where}: {electrons} electrons, multiplicity {multiplicity}: orbitals are filled in"
            " pairs; wanted an even number of electrons and multiplicity 1"
        )
    return electrons // 2
