"""The 58 elements, their symbols and the cores that effective core potentials replace."""

from collections.abc import Iterable

ELEMENTS: tuple[int, ...] = (*range(1, 21), *range(31, 57), *range(72, 84))
MAX_Z = ELEMENTS[-1]  # tables and embeddings have a row for every atomic number from 0 to this
BASES: dict[str, tuple[int, ...]] = {
    "def2-tzvpd": ELEMENTS,
    "def2-svp": tuple(z for z in ELEMENTS if z <= 36),
}
_KNOWN = {basis: frozenset(numbers) for basis, numbers in BASES.items()}
FIRST_ECP_ELEMENT = 37
_SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd "
    "In Sn Sb Te I Xe Cs Ba Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi"
)
_SYMBOL_OF = dict(zip(ELEMENTS, _SYMBOLS.split(" "), strict=True))
_NUMBER_OF = {symbol: z for z, symbol in _SYMBOL_OF.items()}


def supported(basis: str) -> tuple[int, ...]:
    """Atomic numbers that a basis covers here.

    Raises:
        ValueError: unknown basis.
    """
    if basis not in BASES:
        raise ValueError(f"basis: got '{basis}', wanted one of {', '.join(BASES)}")
    return BASES[basis]


def check_supported(basis: str, atomic_numbers: Iterable[int], where: str) -> None:
    """Raise ValueError naming `where` and the first atomic number that the basis does not cover."""
    supported(basis)
    for z in map(int, atomic_numbers):
        if z not in _KNOWN[basis]:
            name = _SYMBOL_OF.get(z, f"Z = {z}")
            raise ValueError(
                f"{where}: element {name} is not among the {len(_KNOWN[basis])} elements of {basis}; remove the molecule"
                " (supported: Z 1-20, 31-56, 72-83; def2-svp up to 36)"
            )


def symbol(atomic_number: int) -> str:
    """Chemical symbol of a supported element."""
    return _SYMBOL_OF[int(atomic_number)]


def atomic_number(symbol_: str) -> int:
    """Atomic number of a supported element's symbol."""
    return _NUMBER_OF[symbol_]


def pyscf_ecp(basis: str, atomic_numbers: Iterable[int]) -> dict[str, str]:
    """The `ecp=` argument PySCF needs: without it heavy atoms keep all electrons and the numbers
    are garbage."""
    return {
        symbol(z): basis
        for z in sorted(set(int(z) for z in atomic_numbers))
        if z >= FIRST_ECP_ELEMENT
    }
