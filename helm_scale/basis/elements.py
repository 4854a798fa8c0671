"""The 58 elements, their symbols and the cores that effective core potentials replace."""

from collections.abc import Iterable
from functools import cache

from helm_scale.basis import registry

# Those of OMol_CSH_58k: no first-row transition metals, no lanthanides.
ELEMENTS: tuple[int, ...] = (*range(1, 21), *range(31, 57), *range(72, 84))
MAX_Z = ELEMENTS[-1]  # tables and embeddings have a row for every atomic number from 0 to this
FIRST_ECP_ELEMENT = 37  # rubidium: the def2 basis sets have all electrons up to krypton
# In the order of ELEMENTS.
_SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru"
    " Rh Pd Ag Cd "
    "In Sn Sb Te I Xe Cs Ba Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi"
)
_SYMBOL_OF = dict(zip(ELEMENTS, _SYMBOLS.split(" "), strict=True))
_NUMBER_OF = {symbol: z for z, symbol in _SYMBOL_OF.items()}


@cache
def supported(basis: str) -> tuple[int, ...]:
    """Atomic numbers that a basis covers here, ascending.

    Raises:
        ValueError: unknown basis, or its table names an element that the package does not have.
    """
    symbols = registry.table(basis)
    for symbol_ in symbols:
        if symbol_ not in _NUMBER_OF:
            raise ValueError(
                f"basis {basis}: element {symbol_} is not among Z {_ranges(ELEMENTS)}; remove it"
                " from the table or add it to basis/elements.py"
            )
    return tuple(sorted(_NUMBER_OF[symbol_] for symbol_ in symbols))


@cache
def _covered(basis: str) -> frozenset[int]:
    return frozenset(supported(basis))  # cached: asked for every molecule that is read


def check_supported(basis: str, atomic_numbers: Iterable[int], where: str) -> None:
    """Raise ValueError naming `where` and the first atomic number that the basis does not cover."""
    covered = _covered(basis)
    for z in map(int, atomic_numbers):
        if z not in covered:
            name = _SYMBOL_OF.get(z, f"Z = {z}")
            raise ValueError(
                f"{where}: element {name} is not among the {len(covered)} elements of {basis};"
                f" remove the molecule (supported: Z {_ranges(supported(basis))})"
            )


def _ranges(numbers: Iterable[int]) -> str:
    """Write ascending numbers as ranges: "1-20, 31-56"."""
    runs: list[list[int]] = []
    for z in numbers:
        if runs and z == runs[-1][-1] + 1:
            runs[-1].append(z)
        else:
            runs.append([z])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def symbol(atomic_number: int) -> str:
    """Chemical symbol of a supported element."""
    return _SYMBOL_OF[int(atomic_number)]


def atomic_number(symbol_: str) -> int:
    """Atomic number of a supported element's symbol."""
    return _NUMBER_OF[symbol_]


def pyscf_ecp(basis: str, atomic_numbers: Iterable[int]) -> dict[str, str]:
    """Build the `ecp=` argument that PySCF needs for heavy atoms."""
    # Without it PySCF keeps all electrons of a heavy atom in a valence basis, and does not say so.
    return {
        symbol(z): basis
        for z in sorted(set(int(z) for z in atomic_numbers))
        if z >= FIRST_ECP_ELEMENT
    }
