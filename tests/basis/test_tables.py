"""The committed tables are PySCF's."""

import json

import pytest
from pyscf.data.elements import ELEMENTS as SYMBOLS

from helm_scale.basis import elements, registry, shells
from helm_scale.dft.tables import basis_table

AOS = {
    "H He": 9, "Li": 17, "Be": 22, "B C N": 37, "O F Ne": 40, "Na Mg": 35, "Al Si P": 43,
    "S Cl Ar": 46, "K Ca": 36, "Ga Ge As": 54, "Se Br Kr": 57, "Rb Sr": 33,
    "Y Zr Nb Mo Tc Ru Rh Pd Ag Cd Ba": 40, "In Sn Sb": 56, "Te I Xe": 59, "Cs": 32,
    "Hf Ta W Re Os Ir Pt Au": 43, "Hg": 46, "Tl Pb Bi": 56,
}  # fmt: skip


@pytest.mark.parametrize("basis", registry.names())
def test_committed_tables_are_pyscf_s(basis: str) -> None:
    committed = json.loads((registry.FOLDER / f"{basis}.json").read_text())
    assert committed == basis_table(basis, elements.supported(basis))


def test_the_58_elements_skip_the_first_transition_row_and_the_lanthanides() -> None:
    skipped = {*range(21, 31), *range(57, 72)}
    assert set(elements.ELEMENTS) == set(range(1, 84)) - skipped
    assert len(elements.ELEMENTS) == 58
    assert [elements.symbol(z) for z in elements.ELEMENTS] == [
        SYMBOLS[z] for z in elements.ELEMENTS
    ]
    assert all(elements.atomic_number(elements.symbol(z)) == z for z in elements.ELEMENTS)


def test_published_numbers_of_orbitals() -> None:
    published = {symbol: count for symbols, count in AOS.items() for symbol in symbols.split()}
    assert published == {elements.symbol(z): shells.nao("def2-tzvpd", z) for z in elements.ELEMENTS}


def test_common_slots_are_7s_6p_5d_2f() -> None:
    assert shells.slot_counts("def2-tzvpd") == (7, 6, 5, 2)


def test_effective_core_potentials_replace_28_46_or_60_electrons() -> None:
    for z in elements.ELEMENTS:
        wanted = 0 if z <= 36 else 28 if z <= 54 else 46 if z <= 56 else 60
        assert shells.ecp_core_electrons("def2-tzvpd", z) == wanted
        assert bool(elements.pyscf_ecp("def2-tzvpd", [z])) == (wanted > 0)


@pytest.mark.parametrize(
    ("basis", "z", "name"),
    [("def2-tzvpd", 26, "Z = 26"), ("def2-tzvpd", 57, "Z = 57"), ("def2-svp", 53, "I")],
)
def test_an_element_outside_the_basis_is_refused_by_name(basis: str, z: int, name: str) -> None:
    with pytest.raises(
        ValueError, match=f"^a.xyz: element {name} is not among the .* elements of {basis}"
    ):
        elements.check_supported(basis, [1, z], "a.xyz")


def test_an_unknown_basis_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'sto-3g', wanted one of def2-svp, def2-tzvpd"):
        shells.nao("sto-3g", 1)
