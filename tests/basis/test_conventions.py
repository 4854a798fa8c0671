"""AO order and sign of PySCF, ORCA and Psi4 against the canonical order."""

import numpy as np
import pytest
import torch
from pyscf import gto

from helm_scale.basis import conventions, elements
from helm_scale.basis.shells import shells_of
from tests.rotations import harmonics

CARBON_IN_ORCA = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 0, 2]  # its diffuse s and d come last
CARBON_SORTED = sorted(CARBON_IN_ORCA)


@pytest.mark.parametrize("degree", range(7))
def test_canonical_functions_are_the_real_harmonics_about_z(degree: int) -> None:
    points = np.random.default_rng(0).normal(size=(50, 3))
    mol = gto.M(atom="He", basis={"He": [[degree, [0.7, 1.0]]]}, verbose=0)
    index, sign = conventions.ao_order("pyscf", [[degree]])
    canonical = sign * mol.eval_gto("GTOval_sph", points)[:, index]
    radius = np.linalg.norm(points, axis=1, keepdims=True)
    angular = canonical / (radius**degree * np.exp(-0.7 * radius**2))
    ratio = angular / harmonics(torch.tensor(points), degree).numpy()
    assert (
        np.ptp(ratio) < 1e-8 * ratio.mean()
    )  # one positive constant; harmonics near their nodes lose digits
    assert ratio.min() > 0


@pytest.mark.parametrize(
    ("source", "p", "d", "f"),
    [
        ("pyscf", [1, 2, 0], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6]),
        ("orca", [2, 0, 1], [4, 2, 0, 1, 3], [6, 4, 2, 0, 1, 3, 5]),
        ("psi4", [2, 0, 1], [4, 2, 0, 1, 3], [6, 4, 2, 0, 1, 3, 5]),
        ("canonical", [0, 1, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_published_orders_inside_a_shell(
    source: str, p: list[int], d: list[int], f: list[int]
) -> None:
    for degree, places in enumerate(([0], p, d, f)):
        assert conventions.ao_order(source, [[degree]])[0].tolist() == places


def test_only_orca_flips_signs_and_only_of_orders_3_and_4() -> None:
    for source in conventions.SOURCES:
        for degree in range(5):
            sign = conventions.ao_order(source, [[degree]])[1]
            flipped = {
                abs(m) for m, s in zip(range(-degree, degree + 1), sign, strict=True) if s < 0
            }
            assert flipped == ({3, 4} & set(range(degree + 1)) if source == "orca" else set())


@pytest.mark.parametrize("source", conventions.SOURCES)
@pytest.mark.parametrize(
    "shells", [[CARBON_IN_ORCA, [0, 0, 0, 1, 1], [0, 1, 4]], [CARBON_SORTED, [0, 0, 1]]]
)
def test_reordering_there_and_back_changes_nothing(source: str, shells: list[list[int]]) -> None:
    size = sum(2 * degree + 1 for atom in shells for degree in atom)
    matrix = np.random.default_rng(1).normal(size=(2, size, size))
    there = conventions.to_canonical(matrix, source, shells)
    assert np.array_equal(conventions.from_canonical(there, source, shells), matrix)
    assert np.array_equal(
        conventions.to_canonical(
            conventions.from_canonical(matrix, source, shells), source, shells
        ),
        matrix,
    )


def _orca_labels(shells: list[int]) -> list[tuple[int, int, int]]:
    """(degree, number of the shell within its degree, m) of functions in the order of ORCA."""
    labels, seen = [], {degree: 0 for degree in shells}
    for degree in shells:
        orders = [0] + [sign * m for m in range(1, degree + 1) for sign in (1, -1)]
        labels += [(degree, seen[degree], m) for m in orders]
        seen[degree] += 1
    return labels


def test_diffuse_shells_that_orca_lists_last_go_home_to_their_degree() -> None:
    hydrogen = [0, 0, 0, 1, 1]
    printed = [
        (atom, *label)
        for atom, shells in enumerate((CARBON_IN_ORCA, hydrogen))
        for label in _orca_labels(shells)
    ]
    index, sign = conventions.ao_order("orca", [CARBON_IN_ORCA, hydrogen])
    canonical = [printed[i] for i in index]
    assert canonical == sorted(
        printed
    )  # atoms, degrees, shells in ORCA's order within a degree, m = -l..l
    assert [label[3] for label, s in zip(canonical, sign, strict=True) if s < 0] == [-3, 3]


def test_a_sorted_list_for_orca_s_carbon_scrambles_it() -> None:
    right, wrong = (
        conventions.ao_order("orca", [shells])[0] for shells in (CARBON_IN_ORCA, CARBON_SORTED)
    )
    assert not np.array_equal(right, wrong)


def test_orca_s_shells_are_those_of_the_basis_and_sorted_for_the_elements_known_to_be() -> None:
    listed = {
        elements.symbol(z): conventions.listed_shells("orca", "def2-tzvpd", z)
        for z in elements.ELEMENTS
    }
    assert all(
        tuple(sorted(shells)) == shells_of("def2-tzvpd", elements.atomic_number(symbol))
        for symbol, shells in listed.items()
    )
    unsorted = [symbol for symbol, shells in listed.items() if tuple(sorted(shells)) != shells]
    alike = [
        "H",
        "He",
        "Li",
        "K",
        "Ca",
        "Rb",
        "Sr",
        "Y",
        "Zr",
        "Nb",
        "Mo",
        "Tc",
        "Ru",
        "Rh",
        "Pd",
        "Ag",
        "Cd",
        "Cs",
        "Ba",
    ]
    assert sorted([*unsorted, *alike]) == sorted(listed)
    assert list(listed["C"]) == CARBON_IN_ORCA and listed["Te"] == (
        *[0] * 6,
        *[1] * 5,
        2,
        2,
        2,
        3,
        3,
        0,
        1,
        2,
    )
    assert listed["Hg"] == (*[0] * 6, *[1] * 5, 2, 2, 2, 3, 1) and listed["Mg"] == (
        *[0] * 5,
        *[1] * 4,
        2,
        2,
        2,
        1,
    )


def test_other_lists_are_sorted() -> None:
    for source, basis in (("orca", "def2-svp"), ("psi4", "def2-svp"), ("pyscf", "def2-tzvpd")):
        assert conventions.listed_shells(source, basis, 35) == shells_of(basis, 35)
    with pytest.raises(ValueError, match="Z = 30 is not among"):
        conventions.listed_shells("orca", "def2-tzvpd", 30)


def test_unknown_sources_and_degrees_are_refused() -> None:
    with pytest.raises(
        ValueError, match="got 'gaussian', wanted one of canonical, pyscf, orca, psi4"
    ):
        conventions.ao_order("gaussian", [[0]])
    with pytest.raises(ValueError, match="orca: degree 5 is not known, wanted 0 to 4"):
        conventions.ao_order("orca", [[0, 5]])
