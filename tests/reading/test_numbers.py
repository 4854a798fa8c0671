"""Arrays and lists of one are numbers; everything else that is no number is refused by place."""

from typing import Any

import numpy as np
import pytest

from helm_scale.reading.numbers import integer, number, numbers


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.array(2), np.array([2]), [2], (2.0,), np.array([[2.0]])]
)
def test_one_number_is_a_number_however_it_is_wrapped(value: Any) -> None:
    assert number(value, "here") == integer(value, "here") == 2
    assert type(number(value, "here")) is float and type(integer(value, "here")) is int


@pytest.mark.parametrize(
    "value",
    [
        None,
        "2",
        True,
        np.array([True]),
        [1, 2],
        [],
        float("nan"),
        float("inf"),
        2j,
        {},
        [[1], [1, 2]],
    ],
    ids=str,
)
def test_what_is_no_number_is_refused(value: Any) -> None:
    for read in (number, integer):
        with pytest.raises(ValueError, match=r"a.db, frame 3: energy: got"):
            read(value, "a.db, frame 3: energy")


def test_arrays_have_their_shape_but_for_axes_of_one() -> None:
    assert numbers([[1, 2, 3]], (3,), "here").tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match=r"here: got shape \(3, 2\), wanted \(2, 3\)"):
        numbers(np.zeros((3, 2)), (2, 3), "here")
    with pytest.raises(ValueError, match="here: got NaN or infinity"):
        numbers([1.0, float("nan")], (2,), "here")
    with pytest.raises(ValueError, match=r"here: got \['a', 'b'\]"):
        numbers(["a", "b"], (2,), "here")
