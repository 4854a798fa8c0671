"""Labels that differ are refused by name, whatever differs and however much."""

from dataclasses import replace

import pytest

from helm_scale.data.format.compatibility import check_same_labels
from tests.data.labels import SVP

WANTED = {"method": SVP, "labels": ("hamiltonian", "energy")}


def test_the_same_labels_pass() -> None:
    check_same_labels("a", dict(WANTED), other="b", wanted=WANTED, remedy="none needed")


def test_both_places_and_every_difference_are_named() -> None:
    got = {"method": replace(SVP, xc="blyp", grid_level=5), "labels": ("hamiltonian",)}
    with pytest.raises(ValueError) as error:
        check_same_labels("data/a", got, other="data/b", wanted=WANTED, remedy="choose one")
    assert str(error.value) == (
        f"data/a and data/b differ: xc 'blyp' and '{SVP.xc}', grid_level 5 and {SVP.grid_level},"
        " labels ('hamiltonian',) and ('hamiltonian', 'energy'); choose one"
    )


def test_labels_without_a_method_differ_from_those_with_one() -> None:
    with pytest.raises(ValueError, match=r"method None and Method\(xc="):
        check_same_labels("a", {"method": None}, other="b", wanted={"method": SVP}, remedy="x")
