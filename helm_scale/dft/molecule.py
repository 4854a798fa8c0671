"""Molecules and Kohn-Sham solvers in PySCF, exactly as a method record says.

The ECP is always given: without `ecp=` PySCF keeps all electrons of a heavy atom in a valence
basis, in silence.
"""

import contextlib
import difflib
import io
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from pyscf import dft, gto
from pyscf.data import radii
from pyscf.dft import libxc
from pyscf.lib.exceptions import BasisNotFoundError
from pyscf.scf import dispersion

from helm_scale.basis import conventions, electrons, elements
from helm_scale.basis.shells import shells_of
from helm_scale.types import Method, Molecule
from helm_scale.units import BOHR_IN_ANGSTROM

DENSITIES = {"minao": "minao", "atoms": "atom"}  # H0 -> PySCF's name of the density behind it
# Ends the name of a functional whose VV10 term did not enter the Kohn-Sham matrix.
WITHOUT_VV10 = " without vv10"


def check_electrons(molecule: Molecule, basis: str, where: str) -> None:
    """Raise ValueError naming `where` if electrons, charge and multiplicity do not fit."""
    electrons.check_multiplicity(
        basis,
        molecule.atomic_numbers,
        charge=molecule.charge,
        multiplicity=molecule.spin_multiplicity,
        where=where,
    )


def check_closed_shell(molecule: Molecule, basis: str, where: str) -> None:
    """Raise ValueError naming `where` for an open shell, or what `check_electrons` refuses."""
    check_electrons(molecule, basis, where)
    if molecule.spin_multiplicity != 1:
        raise ValueError(f"{where}: {_open_shell(molecule.spin_multiplicity)}")


def _open_shell(multiplicity: int) -> str:
    return f"multiplicity {multiplicity}: only closed shells (multiplicity 1) have one Hamiltonian"


def check_auxiliary_basis(name: str | None, molecules: Iterable[Molecule]) -> None:
    """Raise ValueError for a density-fitting basis that PySCF lacks, or lacks for an element."""
    numbers = sorted({int(z) for molecule in molecules for z in molecule.atomic_numbers})
    missing = [] if name is None else [z for z in numbers if not _has_basis(name, z)]
    if name is None or not missing:
        return
    if not any(_has_basis(name, z) for z in elements.ELEMENTS):
        fitting = [alias for alias in gto.basis.ALIAS if "fit" in alias]
        close = difflib.get_close_matches(name.lower().replace("-", ""), fitting, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"auxbasis: got '{name}', not a basis of PySCF{hint}")
    symbols = " ".join(elements.symbol(z) for z in missing)
    raise ValueError(f"auxbasis: '{name}' lacks {symbols}; wanted one that covers all molecules")


def _has_basis(name: str, atomic_number: int) -> bool:
    with warnings.catch_warnings():  # PySCF recommends another package
        warnings.simplefilter("ignore")
        try:
            return bool(gto.basis.load(name, elements.symbol(atomic_number)))
        except (BasisNotFoundError, KeyError):
            return False


def build_mol(molecule: Molecule, basis: str) -> gto.Mole:
    """Build the PySCF molecule with its ECP.

    Raises:
        ValueError: element not covered, or charge and multiplicity do not fit.
    """
    check_electrons(molecule, basis, molecule.key)
    atoms = [
        (elements.symbol(z), xyz)
        for z, xyz in zip(molecule.atomic_numbers, molecule.positions, strict=True)
    ]
    # PySCF repeats a note on the ECP for every molecule on stderr.
    with contextlib.redirect_stderr(io.StringIO()):
        return gto.M(
            atom=atoms,
            unit="Angstrom",
            basis=basis,
            ecp=elements.pyscf_ecp(basis, molecule.atomic_numbers),
            charge=molecule.charge,
            spin=molecule.spin_multiplicity - 1,  # PySCF's spin is 2S
            verbose=0,
        )


def check_functional(xc: str) -> None:
    """Raise ValueError for a functional that PySCF lacks, or one with a dispersion correction.

    A dispersion correction is no part of the Hamiltonian.
    """
    name = xc.removesuffix(WITHOUT_VV10)
    remedy = "; wB97X-D without its correction is hyb_gga_xc_wb97x_d"
    try:
        correction = dispersion.parse_dft(name)[2]
        terms = libxc.parse_xc(name)
    except NotImplementedError as error:  # what PySCF says of wb97x-d
        raise ValueError(f"xc: got '{xc}': {error}{remedy}") from None
    except (KeyError, ValueError, IndexError) as error:
        close = difflib.get_close_matches(
            name.upper(), [code.strip(",") for code in (*libxc.XC_ALIAS, *libxc.XC_CODES)], n=1
        )
        hint = f"; did you mean '{close[0].lower()}'?" if close else ""
        raise ValueError(f"xc: got '{xc}', not a functional of PySCF: {error}{hint}") from None
    if correction:
        raise ValueError(f"xc: got '{xc}', wanted it without {correction}{remedy}")
    if terms == ((0, 0, 0), ()):
        raise ValueError(f"xc: got '{xc}', wanted the name of a functional")


def kohn_sham(mol: gto.Mole, method: Method) -> dft.rks.RKS:
    """Build the restricted Kohn-Sham solver that a method record describes; it has not run yet.

    A functional's VV10 term is part of it, unless the record says "without vv10": some programs add
    it after the SCF.

    Raises:
        ValueError: open shell: two Hamiltonians, which the model does not describe.
    """
    if mol.spin != 0:
        raise ValueError(_open_shell(mol.spin + 1))
    solver = dft.RKS(mol, xc=method.xc.removesuffix(WITHOUT_VV10))
    if method.xc.endswith(WITHOUT_VV10):
        solver.nlc = 0
    solver.grids.level = method.grid_level
    solver.conv_tol = method.conv_tol
    # density_fit returns a new solver that copies these settings, so it comes last.
    return solver.density_fit(auxbasis=method.auxbasis) if method.auxbasis else solver


def baseline_hamiltonian(solver: dft.rks.RKS, kind: str) -> np.ndarray:
    """Build H0, the Fock matrix of the density "minao" or "atoms": [nao, nao] Hartree, PySCF order.

    The method is that of the labels, so that H - H0 is the change of density alone.
    """
    return np.asarray(solver.get_fock(dm=solver.get_init_guess(key=DENSITIES[kind])))


def centre_of_nuclear_charge(molecule: Molecule) -> np.ndarray:
    """Mean position of the atoms, weighted with their atomic numbers: [3], Angstrom.

    ECP or not: the origin of an ion's dipole does not depend on how its cores are treated.
    """
    return np.average(molecule.positions, axis=0, weights=molecule.atomic_numbers)


def bonded(molecule: Molecule) -> np.ndarray:
    """Whether two atoms are closer than 1.25 times the sum of their covalent radii: [N, N] bool."""
    # Radii of Cordero et al., which PySCF tabulates in bohr.
    radius = radii.COVALENT[molecule.atomic_numbers] * BOHR_IN_ANGSTROM
    apart = np.linalg.norm(molecule.positions[:, None] - molecule.positions[None], axis=-1)
    return (apart < 1.25 * (radius[:, None] + radius)) & ~np.eye(len(radius), dtype=bool)


def to_canonical(matrix: np.ndarray, basis: str, atomic_numbers: np.ndarray) -> np.ndarray:
    """PySCF order -> canonical order, [..., nao, nao]."""
    return conventions.to_canonical(
        matrix, "pyscf", [shells_of(basis, int(z)) for z in atomic_numbers]
    )


def from_canonical(matrix: np.ndarray, basis: str, atomic_numbers: np.ndarray) -> np.ndarray:
    """Canonical order -> PySCF order, [..., nao, nao]."""
    return conventions.from_canonical(
        matrix, "pyscf", [shells_of(basis, int(z)) for z in atomic_numbers]
    )


def from_pyscf(mol: gto.Mole, basis: str) -> Molecule:
    """Convert a PySCF Mole of anybody, provided that `build_mol` would build the same.

    Raises:
        ValueError: no built molecule, a periodic cell, element not covered, ghost atoms, another
            basis, Cartesian orbitals, or an ECP that is missing or differs.
    """
    _check_mole(mol)
    numbers = np.array([gto.charge(mol.atom_symbol(i)) for i in range(mol.natm)])
    molecule = Molecule(
        "mol",
        numbers,
        mol.atom_coords(unit="Angstrom"),
        charge=mol.charge,
        spin_multiplicity=mol.spin + 1,
    )
    reference = build_mol(molecule, basis)
    if mol.nelectron != reference.nelectron:
        raise ValueError(
            f"mol: got {mol.nelectron} electrons outside ECPs, wanted {reference.nelectron}; give"
            f" ecp={basis!r} for Z > 36, no ghosts"
        )
    # Integrals compare exponents, contractions and order at once; a basis may have any name.
    names = ("int1e_ovlp", "int1e_kin")
    if mol.nao != reference.nao or any(
        np.abs(mol.intor(name) - reference.intor(name)).max() > 1e-8 for name in names
    ):
        raise ValueError(
            f"mol: got another basis ({mol.nao} orbitals), wanted basis={basis!r}, spherical"
            f" ({reference.nao} orbitals)"
        )
    return molecule


def _check_mole(mol: Any) -> None:
    """Raise ValueError for what is no built molecule of real atoms."""
    if hasattr(mol, "lattice_vectors"):
        raise ValueError(
            "mol: got a periodic Cell, wanted a PySCF Mole; cell.to_mol() drops images"
        )
    if not isinstance(mol, gto.Mole):
        inner = "; give its .mol" if isinstance(getattr(mol, "mol", None), gto.Mole) else ""
        raise ValueError(f"mol: got {type(mol).__name__}, wanted a PySCF Mole{inner}")
    if not mol.natm:
        raise ValueError("mol: no atoms; call mol.build() first")
    ghosts = [i for i in range(mol.natm) if gto.charge(mol.atom_symbol(i)) == 0]
    if ghosts:
        raise ValueError(
            f"mol: atom {ghosts[0]} is a ghost ({mol.atom_symbol(ghosts[0])}); wanted real atoms"
        )
