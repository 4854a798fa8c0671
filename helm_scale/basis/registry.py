"""Reads the tables of basis sets, one file each in basis/data.

A file there makes its basis known. To add one, write it from PySCF:
`python -m helm_scale.dft.tables def2-qzvp H C N O`. No code changes, whatever its degrees.
"""

import json
from functools import cache
from pathlib import Path
from typing import TypedDict

FOLDER = Path(__file__).parent / "data"


class Element(TypedDict):
    """Entry of a table: degrees of an element's shells, sorted, and electrons of its ECP core."""

    shells: list[int]
    ecp_core_electrons: int


def names() -> tuple[str, ...]:
    """Names of the basis sets, as PySCF spells them, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def check_basis(basis: str) -> str:
    """Return the name of a known basis.

    Raises:
        ValueError: unknown basis.
    """
    if basis not in names():
        raise ValueError(f"basis: got '{basis}', wanted one of {', '.join(names())}")
    return basis


def table(basis: str) -> dict[str, Element]:
    """Return the table of a basis: {symbol: shells and ECP electrons}.

    Raises:
        ValueError: unknown basis.
    """
    return _read(FOLDER / f"{basis}.json")


# By path, not by name: a test or a recipe that points FOLDER elsewhere gets its own tables.
@cache
def _read(path: Path) -> dict[str, Element]:
    check_basis(path.stem)
    content: dict[str, Element] = json.loads(path.read_text())
    return content
