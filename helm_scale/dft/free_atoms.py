"""Writes the table of free atoms that total energies are held against.

    python -m helm_scale.dft.free_atoms

Ground states by Hund's rules from the configurations that PySCF tabulates. Up to krypton, and with
the pseudopotentials GTH-PBE: PBE in a double-zeta basis. Heavier atoms: with the def2 ECP
Hartree-Fock of the spherical atom; with all electrons the statistical atom,

    E = -0.768745 Z^(7/3) + Z^2 / 2 - 0.269900 Z^(5/3)    (J. Schwinger, Phys. Rev. A 24, 2353)

The table tells units apart, not methods: a per cent is enough.
"""

import json
import sys
from pathlib import Path

from pyscf import dft, gto
from pyscf.data.elements import CONFIGURATION
from pyscf.scf import atom_hf

from helm_scale.basis.elements import ELEMENTS, FIRST_ECP_ELEMENT, symbol

OUT = Path(__file__).parents[1] / "reading" / "free_atoms.json"
GTH_LAST = 18


def multiplicity(z: int) -> int:
    """2S+1 of the ground state: as many unpaired electrons as the open shells allow."""
    shells = zip(CONFIGURATION[z], (2, 6, 10, 14), strict=True)
    return 1 + sum(min(count % size, size - count % size) for count, size in shells)


def all_electron(z: int) -> float:
    """Energy with all electrons, Hartree, without relativity."""
    if z >= FIRST_ECP_ELEMENT:
        return -0.768745 * z ** (7 / 3) + z**2 / 2 - 0.269900 * z ** (5 / 3)
    return _pbe(gto.M(atom=symbol(z), basis="def2-svp", spin=multiplicity(z) - 1, verbose=0))


def effective_core(z: int) -> float:
    """Energy with the def2 ECP, Hartree."""
    if z < FIRST_ECP_ELEMENT:
        return all_electron(z)
    mol = gto.M(atom=symbol(z), basis="def2-svp", ecp="def2-svp", spin=None, verbose=0)
    return float(atom_hf.get_atm_nrhf(mol)[symbol(z)][0])


def gth(z: int) -> float:
    """Energy with the pseudopotential GTH-PBE, Hartree."""
    spin = multiplicity(z) - 1
    return _pbe(gto.M(atom=symbol(z), basis="gth-dzvp", pseudo="gth-pbe", spin=spin, verbose=0))


def _pbe(mol: gto.Mole) -> float:
    solver = dft.UKS(mol, xc="pbe")
    solver.max_cycle, solver.conv_tol = 100, 1e-6
    return float(solver.kernel())


def main() -> None:
    """Write the table."""
    families = {"all electrons": all_electron, "def2 ECP": effective_core, "GTH": gth}
    table: dict[str, dict[str, float]] = {
        "multiplicity": {symbol(z): multiplicity(z) for z in ELEMENTS}
    }
    for name, energy in families.items():
        covered = ELEMENTS if name != "GTH" else [z for z in ELEMENTS if z <= GTH_LAST]
        sys.stdout.write(f"{name}\n")
        table[name] = {symbol(z): round(energy(z), 3) for z in covered}
    OUT.write_text(json.dumps(table).replace("}, ", "},\n ") + "\n")
    sys.stdout.write(f"{OUT}: {len(ELEMENTS)} elements\n")


if __name__ == "__main__":
    main()
