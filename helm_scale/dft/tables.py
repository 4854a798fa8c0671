"""Reads basis tables from PySCF and writes those of helm_scale/basis/data.

`python -m helm_scale.dft.tables` writes the committed tables anew;
`python -m helm_scale.dft.tables def2-qzvp H C N O` adds a basis, which is known from then on.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from pyscf import gto

from helm_scale.basis import elements, registry


def basis_table(basis: str, atomic_numbers: Iterable[int]) -> dict[str, registry.Element]:
    """Read the shells (PySCF's order: sorted by l) and ECP core electrons of elements."""
    table: dict[str, registry.Element] = {}
    for number in atomic_numbers:
        ecp = elements.pyscf_ecp(basis, [number])
        # spin=None lets PySCF choose the multiplicity: shells do not depend on it.
        mol = gto.M(atom=elements.symbol(number), basis=basis, ecp=ecp, spin=None, verbose=0)
        # a contracted shell of PySCF holds several shells of one degree
        shells = [int(mol.bas_angular(i)) for i in range(mol.nbas) for _ in range(mol.bas_nctr(i))]
        table[elements.symbol(number)] = {
            "shells": shells,
            "ecp_core_electrons": int(mol.atom_nelec_core(0)),
        }
    return table


def write_table(basis: str, atomic_numbers: Iterable[int], folder: Path) -> None:
    """Write a table, one line per element, as `folder/<basis>.json`."""
    text = json.dumps(basis_table(basis, atomic_numbers)).replace("}, ", "},\n ")
    (folder / f"{basis}.json").write_text(text + "\n")


def main(arguments: list[str]) -> None:
    """Write one new table (basis and element symbols), or all that there are."""
    if arguments:
        basis, *symbols = arguments
        write_table(basis, [elements.atomic_number(name) for name in symbols], registry.FOLDER)
        return
    for basis in registry.names():
        write_table(basis, elements.supported(basis), registry.FOLDER)


if __name__ == "__main__":
    main(sys.argv[1:])
