"""The basis sets that the package knows: one table each in basis/data.

A table registers its basis by lying there. To add one, write it from PySCF:
`python -m helm_scale.dft.tables def2-qzvp H C N O`. No code changes, whatever its degrees.
"""

import json
from functools import cache
from pathlib import Path
from typing import TypedDict

FOLDER = Path(__file__).parent / "data"


class Element(TypedDict):
    """What a table holds of one element: degrees of its shells, sorted, and ECP electrons."""

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
    """{symbol: what the basis has for that element}.

    Raises:
        ValueError: unknown basis.
    """
    return _read(FOLDER / f"{basis}.json")


@cache
def _read(path: Path) -> dict[str, Element]:
    check_basis(path.stem)
    content: dict[str, Element] = json.loads(path.read_text())
    return content
