"""Sums and counts of errors. `means` is the one place of the evaluation that divides."""

from collections.abc import Iterable

import numpy as np

ErrorSums = dict[str, tuple[float, float]]


def sum_errors(values: np.ndarray | float) -> tuple[float, float]:
    """Sum of absolute values, and their number."""
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    return float(np.abs(array).sum()), float(array.size)


def add_sums(tallies: Iterable[ErrorSums]) -> ErrorSums:
    """Add sums and counts name by name; a name that one tally lacks counts nothing there."""
    total: ErrorSums = {}
    for one in tallies:
        for name, (value, count) in one.items():
            before = total.get(name, (0.0, 0.0))
            total[name] = (before[0] + value, before[1] + count)
    return total


def mean_errors(one: ErrorSums) -> dict[str, float]:
    """Sum / count by name, sorted; names that counted nothing are left out."""
    return {name: value / count for name, (value, count) in sorted(one.items()) if count}
