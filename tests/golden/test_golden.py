"""Twelve steps of training give the numbers that they gave before.

Wrong constants, a gate too few or another activation keep every identity; they change these
numbers. Where a change is meant, remake the files (remake.py), and say in the commit message what
changed and why.
"""

from pathlib import Path

import pytest

from tests.golden import runs, tables
from tests.golden.dataset import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The molecules of all golden runs."""
    folder = tmp_path_factory.mktemp("golden") / "data"
    write_dataset(folder)
    return folder


@pytest.mark.parametrize(("name", "dtype"), runs.CASES)
def test_twelve_steps_give_the_golden_numbers(
    name: str, dtype: str, data: Path, tmp_path: Path
) -> None:
    golden = tables.rows_of(tables.path_of(name, dtype).read_text())
    change, where = tables.largest_change(golden, runs.run(name, dtype, data, tmp_path / "run"))
    assert change <= tables.TOLERANCE[dtype], (
        f"{where} differs by {change:.1e}; is it meant? python -m tests.golden.remake"
    )


def test_the_gradient_is_clipped_in_some_steps_and_not_in_others() -> None:
    for name, limit in (("helm", 0.01), ("minao", 0.001), ("flow", 0.001)):
        rows = tables.rows_of(tables.path_of(name, "float64").read_text())
        clipped = [row["grad_norm"] > limit for step, row in rows.items() if step != "end"]
        assert len(clipped) == 12 and any(clipped) and not all(clipped), name
