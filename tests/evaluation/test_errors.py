"""Parts of an error of one kind add up to the whole, and each error is booked where it is."""

import numpy as np
import pytest

from helm_scale.evaluation.error_sums import ErrorSums, add_sums, mean_errors
from helm_scale.evaluation.errors import hamiltonian_errors
from helm_scale.types import Molecule
from tests.evaluation.labels import noise_like
from tests.rotations import ao_rotation, random_rotation

BASIS = "def2-tzvpd"
MOLECULE = Molecule(
    "mixed",
    np.array([53, 1, 8, 1, 16]),
    np.array([[0.0, 0, 0], [1.6, 0.2, 0], [-1.0, 1.8, 0.3], [-1.9, 1.7, 0.2], [9.0, 0.5, 0.1]]),
)
NAO = 59 + 9 + 40 + 9 + 46


@pytest.fixture(scope="module")
def errors() -> tuple[np.ndarray, ErrorSums]:
    """Symmetric noise, and its parts."""
    difference = noise_like(np.zeros((NAO, NAO)), 1e-3, 5)
    return difference, hamiltonian_errors(difference, 100 * difference, MOLECULE, BASIS)


def _sum(found: ErrorSums, kind: str) -> tuple[float, float]:
    parts = [value for name, value in found.items() if name.startswith(kind + "/")]
    assert parts
    return sum(value for value, _ in parts), sum(count for _, count in parts)


def test_parts_add_up_to_the_whole(errors: tuple[np.ndarray, ErrorSums]) -> None:
    difference, found = errors
    assert found["all"] == (pytest.approx(np.abs(difference).sum()), NAO**2)
    whole = tuple(a + b for a, b in zip(found["onsite"], found["offsite"], strict=True))
    assert whole == pytest.approx(found["all"])
    assert _sum(found, "element") == pytest.approx(found["onsite"])
    for kind in ("pair", "distance"):
        assert _sum(found, kind) == pytest.approx(found["offsite"])
    squares, entries = _sum(found, "degree_square")
    assert squares == pytest.approx(np.square(difference).sum())
    assert entries == NAO**2
    assert _sum(found, "magnitude")[0] == pytest.approx(100 * found["offsite"][0])


def test_an_error_is_booked_where_it_is() -> None:
    difference = np.zeros((NAO, NAO))
    difference[0, 59] = difference[59, 0] = (
        2e-3  # first s of iodine with first s of the first hydrogen, 1.61 Angstrom
    )
    parts = hamiltonian_errors(difference, difference, MOLECULE, BASIS)
    total, count = parts["apart/9.00"]
    assert total / count == pytest.approx(9.0, abs=0.05)  # from iodine to sulphur
    found = {name: value for name, (value, _) in parts.items() if value}
    assert {name for name in found if "apart" not in name} == {
        "all", "offsite", "pair/H-I", "distance/1.50", "magnitude/1.50", "degree/0",
        "degree_square/0",
    }  # fmt: skip
    assert found["pair/H-I"] == pytest.approx(4e-3)


def test_squares_by_degree_do_not_change_when_the_molecule_turns(
    errors: tuple[np.ndarray, ErrorSums],
) -> None:
    difference, found = errors
    turn = ao_rotation(random_rotation(11), BASIS, MOLECULE.atomic_numbers)
    turned = hamiltonian_errors(turn @ difference @ turn.T, difference, MOLECULE, BASIS)
    for degree in range(7):
        assert turned[f"degree_square/{degree}"] == pytest.approx(
            found[f"degree_square/{degree}"], rel=1e-10
        )
    assert turned["all"][0] != pytest.approx(found["all"][0], rel=1e-6)  # matrix elements do change


def test_counts_and_not_means_are_averaged() -> None:
    assert mean_errors(
        add_sums([{"x": (1.0, 1.0), "y": (3.0, 1.0)}, {"x": (3.0, 7.0)}, {"z": (0.0, 0.0)}])
    ) == {"x": 0.5, "y": 3.0}
