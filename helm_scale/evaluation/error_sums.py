"""Sums and counts of errors; `mean_errors` is the one place of the evaluation that divides.

Means of means would weigh a small molecule's matrix elements more than a large one's.
"""

from collections.abc import Iterable

import numpy as np

ErrorSums = dict[str, tuple[float, float]]


def sum_errors(values: np.ndarray | float) -> tuple[float, float]:
    """Sum of absolute values, and their number."""
    # Sums over all matrix elements of a data set need float64, whatever the prediction's dtype.
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    return float(np.abs(array).sum()), float(array.size)


def add_sums(tallies: Iterable[ErrorSums]) -> ErrorSums:
    """Add sums and counts name by name; a molecule without a name adds nothing to it."""
    total: ErrorSums = {}
    for sums in tallies:
        for name, (value, count) in sums.items():
            before = total.get(name, (0.0, 0.0))
            total[name] = (before[0] + value, before[1] + count)
    return total


def mean_errors(sums: ErrorSums) -> dict[str, float]:
    """Sum / count by name, sorted; names that counted nothing are left out."""
    return {name: value / count for name, (value, count) in sorted(sums.items()) if count}
