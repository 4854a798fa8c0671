"""Electrons, charge and multiplicity: what cannot be is refused with the reason."""

import numpy as np
import pytest
from pyscf import dft, gto, scf
from pyscf.pbc import gto as pbc_gto

from helm_scale.config import GenerateConfig
from helm_scale.dft import generate
from helm_scale.dft.molecule import check_electrons, check_functional, from_pyscf
from helm_scale.types import Molecule


def atom(z: int, charge: int, multiplicity: int) -> Molecule:
    return Molecule(
        "one", np.array([z]), np.zeros((1, 3)), charge=charge, spin_multiplicity=multiplicity
    )


@pytest.mark.parametrize(
    ("z", "charge", "reason"),
    [(1, 1, "leaves no electrons"), (53, 25, "leaves no electrons outside the ECP cores")],
)
def test_charges_that_leave_no_electrons_are_refused(z: int, charge: int, reason: str) -> None:
    message = rf"^in\.xyz: charge \+{charge} {reason}; wanted a lower charge"
    with pytest.raises(ValueError, match=message):
        check_electrons(atom(z, charge, 1), "def2-tzvpd", "in.xyz")


@pytest.mark.parametrize(
    ("z", "charge", "multiplicity", "wanted"),
    [
        (8, 0, 2, "an odd multiplicity from 1 to 9"),
        (9, 0, 1, "an even multiplicity from 2 to 10"),
        (2, 0, 5, "an odd multiplicity from 1 to 3"),
        (8, 0, 0, "an odd multiplicity from 1 to 9"),
        (53, 24, 4, "an even multiplicity from 2 to 2"),
    ],
)
def test_multiplicities_that_cannot_be_are_refused_with_what_can(
    z: int, charge: int, multiplicity: int, wanted: str
) -> None:
    electrons = rf"^in\.xyz: {z - charge} electrons \(charge \+{charge}\)"
    message = f"{electrons} cannot have multiplicity {multiplicity}; wanted {wanted}"
    with pytest.raises(ValueError, match=message):
        check_electrons(atom(z, charge, multiplicity), "def2-tzvpd", "in.xyz")


@pytest.mark.parametrize(
    ("z", "charge", "multiplicity"), [(1, 0, 2), (1, -1, 1), (8, 0, 3), (53, 0, 2), (53, 24, 2)]
)
def test_electrons_that_can_be_pass(z: int, charge: int, multiplicity: int) -> None:
    check_electrons(atom(z, charge, multiplicity), "def2-tzvpd", "in.xyz")


@pytest.mark.parametrize(
    ("xc", "message"),
    [
        ("pbee", "xc: got 'pbee', not a functional of PySCF.*did you mean 'pbe'"),
        ("wb97x-d", "xc: got 'wb97x-d': .*hyb_gga_xc_wb97x_d"),
        ("b3lyp-d3bj", "wanted it without d3bj"),
        ("", "wanted the name of a functional"),
    ],
)
def test_a_misspelt_functional_is_refused_at_once(xc: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate.method_of(GenerateConfig(xc=xc))
    for sound in ("pbe", "b3lyp5", "wb97m-v", "wb97m-v without vv10", "0.5*hf+0.5*pbe,lyp"):
        check_functional(sound)


def test_what_is_no_built_molecule_gets_one_clear_line() -> None:
    built = gto.M(atom="He", basis="def2-svp", verbose=0)
    for wrong, message in (
        (gto.Mole(atom="He"), "no atoms; call mol.build"),
        (scf.RHF(built), "got RHF, wanted a PySCF Mole; give its .mol"),
        (dft.RKS(built), "got RKS, wanted a PySCF Mole; give its .mol"),
        ("He", "got str, wanted a PySCF Mole"),
        (pbc_gto.M(atom="He", a=5 * np.eye(3), basis="def2-svp", verbose=0), "a periodic Cell"),
        (gto.M(atom="He 0 0 0; ghost-H 0 0 1", basis="def2-svp", verbose=0), "atom 1 is a ghost"),
    ):
        with pytest.raises(ValueError, match=f"mol: .*{message}"):
            from_pyscf(wrong, "def2-svp")
