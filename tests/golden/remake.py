"""Remake the golden numbers and say what changed: python -m tests.golden.remake

A file is rewritten only where a number changed by more than the tolerance of its dtype. A changed
golden file means that training gives other numbers than before: the commit message says which and
why.
"""

import tempfile
from pathlib import Path

import torch

from tests.golden import runs, tables
from tests.golden.dataset import write_dataset


def main() -> None:
    """Run everything anew; one line per file."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_dataset(data)
        for name, dtype in runs.CASES:
            rows = runs.run(name, dtype, data, Path(folder) / f"{name}-{dtype}")
            path = tables.path_of(name, dtype)
            print(f"{path.name}: {remade(path, rows, dtype)}")


def remade(path: Path, rows: runs.Rows, dtype: str) -> str:
    """Write the table if it is new or has changed; what was done."""
    text = tables.text_of(rows, dtype)
    if not path.is_file():
        path.write_text(text)
        return "new"
    change, where = tables.largest_change(tables.rows_of(path.read_text()), tables.rows_of(text))
    if change <= tables.TOLERANCE[dtype]:
        return f"unchanged (largest relative change {change:.1e}, {where})"
    path.write_text(text)
    return f"CHANGED: largest relative change {change:.1e}, {where}"


if __name__ == "__main__":
    main()
