"""Converts AO order and signs of PySCF, ORCA and Psi4; no other module permutes AOs.

Canonical: atoms in input order; shells of an atom sorted by l, shells of one l in the source's
order; inside a shell m = -l..l; real solid harmonics without Condon-Shortley sign, polar axis z
(PySCF's phases).
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from helm_scale.basis import elements
from helm_scale.basis.shells import shells_of

SOURCES = ("canonical", "pyscf", "orca", "psi4")
ORCA_HIGHEST = 4  # signs of its h functions are not known; the other programs follow one rule
# Degrees of the shells of def2-TZVPD as ORCA prints them: most diffuse shells come last, after the
# f shells.
_ORCA_TZVPD_SHELLS = """
H He 00011; Li 000001111; Be 0000011121; B C N 00000111223 02; O F Ne 00000111223 012;
Na Mg 000001111222 1; Al Si P 0000011111223 02; S Cl Ar 0000011111223 012; K Ca 00000011111222;
Ga Ge As 000000111112222 3 02; Se Br Kr 0000001111122223 012; Rb Sr 0000001111222;
Y Zr Nb Mo Tc Ru Rh Pd Ag Cd Ba 00000011112223; In Sn Sb Tl Pb Bi 0000001111122233 02;
Te I Xe 0000001111122233 012; Cs 000001111222; Hf Ta W Re Os Ir Pt Au 00000011112223 1;
Hg 000000111112223 1
"""


def _shell_order(source: str, degree: int) -> tuple[list[int], list[float]]:
    """Place in the source shell, and sign, of m = -l..l."""
    orders = range(-degree, degree + 1)
    if source == "canonical" or (source == "pyscf" and degree != 1):
        return list(range(2 * degree + 1)), [1.0] * (2 * degree + 1)
    if source == "pyscf":
        return [1, 2, 0], [1.0] * 3  # PySCF writes p as x, y, z
    # ORCA and Psi4 list m = 0, +1, -1, +2, -2, ...
    listed = [0] + [sign * m for m in range(1, degree + 1) for sign in (1, -1)]
    flips = source == "orca"  # ORCA's |m| = 3 and 4 functions carry the opposite sign
    return [listed.index(m) for m in orders], [
        -1.0 if flips and abs(m) in (3, 4) else 1.0 for m in orders
    ]


@cache
def _orca_tzvpd() -> dict[str, tuple[int, ...]]:
    """Read the table above: symbol -> degrees of its shells."""
    shells: dict[str, tuple[int, ...]] = {}
    for group in _ORCA_TZVPD_SHELLS.split(";"):
        words = group.split()
        degrees = tuple(int(digit) for word in words if word.isdigit() for digit in word)
        shells |= {word: degrees for word in words if not word.isdigit()}
    return shells


def listed_shells(source: str, basis: str, atomic_number: int) -> tuple[int, ...]:
    """Degrees of an element's shells in the order in which a program lists them.

    Programs sort them by degree, except ORCA in def2-TZVPD.

    Raises:
        ValueError: the basis does not cover the element.
    """
    if source == "orca" and basis == "def2-tzvpd":
        elements.check_supported(basis, [atomic_number], "basis")
        return _orca_tzvpd()[elements.symbol(atomic_number)]
    return shells_of(basis, atomic_number)


def ao_order(
    source: str, shells_per_atom: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (index, sign) with canonical[i] = sign[i] * source[index[i]].

    Args:
        source: "canonical", "pyscf", "orca" or "psi4".
        shells_per_atom: for every atom the degrees of its shells in the order in which the source
            lists them.
    Raises:
        ValueError: unknown source, or a degree whose order is not known of ORCA (l > 4).
    """
    if source not in SOURCES:
        raise ValueError(f"AO order: got '{source}', wanted one of {', '.join(SOURCES)}")
    index: list[int] = []
    sign: list[float] = []
    start = 0
    for shells in shells_per_atom:
        offsets = start + np.concatenate(
            [[0], np.cumsum([2 * degree + 1 for degree in shells])]
        ).astype(int)
        # sorted is stable: shells of one degree keep the source's order.
        for shell in sorted(range(len(shells)), key=lambda s: shells[s]):
            if source == "orca" and shells[shell] > ORCA_HIGHEST:
                raise ValueError(
                    f"AO order of orca: degree {shells[shell]} is not known,"
                    f" wanted 0 to {ORCA_HIGHEST}"
                )
            place, signs = _shell_order(source, shells[shell])
            index += [int(offsets[shell]) + p for p in place]
            sign += signs
        start = int(offsets[-1])
    return np.array(index, dtype=np.int64), np.array(sign)


def to_canonical(
    matrix: np.ndarray, source: str, shells_per_atom: Sequence[Sequence[int]]
) -> np.ndarray:
    """Reorder a matrix [..., nao, nao] of the source into the canonical order; units unchanged."""
    index, sign = ao_order(source, shells_per_atom)
    return matrix[..., index[:, None], index] * sign[:, None] * sign


def from_canonical(
    matrix: np.ndarray, source: str, shells_per_atom: Sequence[Sequence[int]]
) -> np.ndarray:
    """Reorder a canonical matrix [..., nao, nao] into the source's order: to_canonical inverted."""
    index, sign = ao_order(source, shells_per_atom)
    inverse = np.argsort(index)  # of a permutation, its inverse
    # Signs belong to canonical places, so they are applied before the matrix is reordered.
    signed = matrix * sign[:, None] * sign
    return signed[..., inverse[:, None], inverse]


def rows_from_canonical(
    coefficients: np.ndarray, source: str, shells_per_atom: Sequence[Sequence[int]]
) -> np.ndarray:
    """Reorder the rows (AOs) of canonical orbital coefficients [nao, n] into the source's order."""
    index, sign = ao_order(source, shells_per_atom)
    return (coefficients * sign[:, None])[np.argsort(index)]
