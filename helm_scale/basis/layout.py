"""Lays out the irreps of on-site blocks and element pairs in packed vectors.

Shells of every element are aligned in common slots: its n-th shell of degree l takes slot n of that
degree. A packed vector lists the irreps of a block by degree L, then M, then row; a row is one
(slot, slot) pair. Only rows that the elements have exist: nothing is padded.

Axes: p = 2*l1+1, q = 2*l2+1, M = 2*L+1, rows of degree L are numbered through all slot pairs that
couple to L.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from helm_scale.basis.shells import nao, shell_counts, slot_counts
from helm_scale.irreps.coupling import coupled_degrees

PARITIES = ("semilocal", "full")


@dataclass(frozen=True, kw_only=True)
class ShellGroup:
    """All shell pairs of degrees (l1, l2) of one block.

    Attributes:
        first, second: shell number within its degree, [G] each.
        degrees: irreps kept.
        weight: factor of the packed irreps: sqrt(2) where the transposed block is not stored.
    """

    l1: int
    l2: int
    first: tuple[int, ...]
    second: tuple[int, ...]
    degrees: tuple[int, ...]
    weight: float


# eq=False: layouts are cached and compared by identity, so that they can be keys of other caches.
@dataclass(frozen=True, eq=False, kw_only=True)
class BlockLayout:
    """Layout of the on-site blocks of an element, or of the blocks of an ordered element pair.

    Attributes:
        shape: AOs of the first and second atom.
        groups: shell groups, in the order in which they are coupled.
        rows: for every degree L the head rows that exist, ascending; degrees without rows are
            absent.
        order: place, in the group-major list of irreps, of every packed component, [size] int64.
        size: number of packed components.
    """

    shape: tuple[int, int]
    groups: tuple[ShellGroup, ...]
    rows: dict[int, np.ndarray]
    order: np.ndarray
    size: int


@cache
def _slot_pair_rows(basis: str, onsite: bool) -> dict[tuple[int, int, int, int, int], int]:
    """Head row of (L, l1, n1, l2, n2); on-site only slot pairs with (l1, n1) <= (l2, n2)."""
    counts = slot_counts(basis)
    slots = [(degree, n) for degree, count in enumerate(counts) for n in range(count)]
    rows: dict[tuple[int, int, int, int, int], int] = {}
    used: dict[int, int] = {}
    # The loops fix the order of the rows, and with it the meaning of head weights in checkpoints.
    for slot1 in slots:
        for slot2 in slots:
            if onsite and slot1 > slot2:
                continue
            for degree in coupled_degrees(slot1[0], slot2[0]):
                rows[degree, *slot1, *slot2] = used.get(degree, 0)
                used[degree] = used.get(degree, 0) + 1
    return rows


def head_multiplicities(basis: str, onsite: bool) -> dict[int, int]:
    """Number of head rows of every degree L, over all elements of the basis."""
    multiplicities: dict[int, int] = {}
    for degree, *_ in _slot_pair_rows(basis, onsite):
        multiplicities[degree] = multiplicities.get(degree, 0) + 1
    return multiplicities


def _build(
    basis: str, shape: tuple[int, int], groups: list[ShellGroup], onsite: bool
) -> BlockLayout:
    """Sort the group-major irreps by degree, M and head row."""
    table = _slot_pair_rows(basis, onsite)
    # In the order in which `pack` couples: group, shell pair, degree, M.
    keys = [
        (degree, m, table[degree, group.l1, n1, group.l2, n2])
        for group in groups
        for n1, n2 in zip(group.first, group.second, strict=True)
        for degree in group.degrees
        for m in range(2 * degree + 1)
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    rows: dict[int, np.ndarray] = {}
    for degree in sorted({key[0] for key in keys}):
        rows[degree] = np.array(sorted({row for L, _, row in keys if degree == L}), dtype=np.int64)
    return BlockLayout(
        shape=shape,
        groups=tuple(groups),
        rows=rows,
        order=np.array(order, dtype=np.int64),
        size=len(keys),
    )


@cache
def offsite_layout(basis: str, first: int, second: int) -> BlockLayout:
    """Layout of the blocks between two atoms of elements (first, second), with all degrees."""
    return _offsite(basis, shell_counts(basis, first), shell_counts(basis, second))


def _offsite(basis: str, first: Sequence[int], second: Sequence[int]) -> BlockLayout:
    """Layout between atoms with so many shells of every degree."""
    groups = []
    for l1, n1 in enumerate(first):
        for l2, n2 in enumerate(second):
            a, b = np.divmod(np.arange(n1 * n2), max(n2, 1))  # all pairs; max: no shell, no pair
            if n1 * n2:
                groups.append(
                    ShellGroup(
                        l1=l1,
                        l2=l2,
                        first=tuple(a),
                        second=tuple(b),
                        degrees=coupled_degrees(l1, l2),
                        weight=2**0.5,
                    )
                )
    return _build(basis, (_functions(first), _functions(second)), groups, onsite=False)


def _functions(counts: Sequence[int]) -> int:
    """Atomic orbitals in so many shells of degree 0, 1, ..."""
    return sum((2 * degree + 1) * count for degree, count in enumerate(counts))


@cache
def transposed_rows(basis: str) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return for every degree L (index, sign) of the off-site head rows of the transposed block.

    h(l2, l1; L) = (-1)^(l1+l2+L) h(l1, l2; L), so row n of the transposed block is sign[n] times
    row index[n].
    """
    table = _slot_pair_rows(basis, False)
    by_degree: list[tuple[np.ndarray, np.ndarray]] = []
    for degree, count in sorted(head_multiplicities(basis, onsite=False).items()):
        index, sign = np.empty(count, dtype=np.int64), np.empty(count)
        for (L, l1, n1, l2, n2), row in table.items():
            if degree == L:
                index[row], sign[row] = table[L, l2, n2, l1, n1], (-1.0) ** (l1 + l2 + L)
        by_degree.append((index, sign))
    return tuple(by_degree)


@cache
def onsite_layout(basis: str, atomic_number: int, parity: str) -> BlockLayout:
    """Layout of an element's symmetric on-site block: shell pairs a <= b, even L for a = b.

    Args:
        parity: "semilocal" keeps even l1+l2+L only, exact for semilocal functionals; "full" keeps
            all, which exact exchange needs.
    Raises:
        ValueError: unknown parity.
    """
    if parity not in PARITIES:
        raise ValueError(f"parity: got '{parity}', wanted one of {', '.join(PARITIES)}")
    return _onsite(basis, shell_counts(basis, atomic_number), parity)


def all_slots_layout(basis: str, parity: str | None) -> BlockLayout:
    """Layout of an off-site block (parity None) or an on-site one that fills every slot."""
    counts = slot_counts(basis)
    return _onsite(basis, counts, parity) if parity else _offsite(basis, counts, counts)


def _onsite(basis: str, counts: Sequence[int], parity: str) -> BlockLayout:
    """Layout of an atom with so many shells of every degree."""
    groups = []
    for l1, n1 in enumerate(counts):
        for l2, n2 in list(enumerate(counts))[l1:]:
            degrees = tuple(
                L for L in coupled_degrees(l1, l2) if parity == "full" or (l1 + l2 + L) % 2 == 0
            )
            if l1 == l2 and n1:
                # A shell with itself: its block is symmetric, so odd degrees vanish.
                equal = tuple(range(n1))
                groups.append(
                    ShellGroup(
                        l1=l1,
                        l2=l2,
                        first=equal,
                        second=equal,
                        degrees=tuple(range(0, 2 * l1 + 1, 2)),
                        weight=1.0,
                    )
                )
                a, b = np.triu_indices(n1, k=1)
            else:
                a, b = np.divmod(np.arange(n1 * n2), max(n2, 1))
            if len(a):
                groups.append(
                    ShellGroup(
                        l1=l1,
                        l2=l2,
                        first=tuple(a),
                        second=tuple(b),
                        degrees=degrees,
                        weight=2**0.5,
                    )
                )
    return _build(basis, (_functions(counts),) * 2, groups, onsite=True)


def ao_offsets(basis: str, atomic_numbers: np.ndarray) -> np.ndarray:
    """First AO of every atom and, last, the number of AOs: [N+1] int64."""
    return np.cumsum(
        [0, *(nao(basis, z) for z in np.asarray(atomic_numbers).tolist())], dtype=np.int64
    )
