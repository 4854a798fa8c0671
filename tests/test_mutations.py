"""The table of faults fits the code, so that `python -m tests.mutations` tries what it says."""

from collections import Counter

from tests import mutations


def test_every_fault_changes_one_place_and_names_tests_that_exist() -> None:
    assert not mutations.mistakes()


def test_every_fault_has_a_name_of_its_own_and_changes_something() -> None:
    every = list(mutations.faults())
    assert max(Counter(fault.name for fault in every).values()) == 1
    assert all(fault.old != fault.new for fault in every)
