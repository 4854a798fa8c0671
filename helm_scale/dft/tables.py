"""Basis tables read from PySCF: what helm_scale/basis/data holds and a test compares it with.

`python -m helm_scale.dft.tables` writes the committed files anew.
"""

import json
from pathlib import Path

from pyscf import gto
from pyscf.data.elements import ELEMENTS as SYMBOLS

from helm_scale.basis import elements


def basis_table(basis: str) -> dict[str, dict[str, object]]:
    """Read shells and ECP core electrons of every supported element.

    Returns:
        {symbol: {"shells": degrees in PySCF's order (sorted by l), "ecp_core_electrons": electrons
        an ECP replaces}}.
    """
    table: dict[str, dict[str, object]] = {}
    for number in elements.supported(basis):
        symbol = SYMBOLS[number]
        mol = gto.M(
            atom=symbol, basis=basis, ecp=elements.pyscf_ecp(basis, [number]), spin=None, verbose=0
        )
        shells = [int(mol.bas_angular(i)) for i in range(mol.nbas) for _ in range(mol.bas_nctr(i))]
        table[symbol] = {"shells": shells, "ecp_core_electrons": int(mol.atom_nelec_core(0))}
    return table


def main() -> None:
    """Write one JSON file per basis."""
    for basis in elements.BASES:
        text = json.dumps(basis_table(basis)).replace("}, ", "},\n ")
        (Path(elements.__file__).parent / "data" / f"{basis}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
