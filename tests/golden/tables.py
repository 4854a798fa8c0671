"""Golden numbers as text: a line per step, a column per quantity, `-` where there is no number."""

from pathlib import Path

from tests.golden.runs import FOLDER, Rows

TOLERANCE = {
    # other instruction sets and numbers of threads change 2e-10 at most: energies are fitted to
    # 1e-13 Hartree
    "float64": 1e-9,
    "float32": 1e-5,  # the same change 2e-6 at most over twelve steps
}
DIGITS = {"float64": 11, "float32": 7}  # after the point: rounding is far below the tolerances


def path_of(name: str, dtype: str) -> Path:
    """File of a golden run."""
    return FOLDER / f"{name}_{dtype}.txt"


def text_of(rows: Rows, dtype: str) -> str:
    """The table of a run."""
    columns = list(dict.fromkeys(quantity for row in rows.values() for quantity in row))
    width = DIGITS[dtype] + 8
    lines = ["step" + "".join(f"{column:>{max(width, len(column) + 2)}}" for column in columns)]
    for step, row in rows.items():
        numbers = [
            f"{row[column]:.{DIGITS[dtype]}e}" if column in row else "-" for column in columns
        ]
        cells = zip(columns, numbers, strict=True)
        lines.append(
            f"{step:<4}"
            + "".join(f"{text:>{max(width, len(column) + 2)}}" for column, text in cells)
        )
    return "\n".join(lines) + "\n"


def rows_of(text: str) -> Rows:
    """The numbers of a table."""
    (_, *columns), *lines = [line.split() for line in text.splitlines()]
    return {
        step: {c: float(x) for c, x in zip(columns, cells, strict=True) if x != "-"}
        for step, *cells in lines
    }


def largest_change(before: Rows, after: Rows) -> tuple[float, str]:
    """The largest relative change of any number, and where it is; infinite for other cells."""
    cells = [
        {(step, quantity) for step, row in rows.items() for quantity in row}
        for rows in (before, after)
    ]
    if cells[0] != cells[1]:
        return float("inf"), f"{len(cells[0] ^ cells[1])} numbers are in one of the tables only"
    return max(
        (abs(after[step][quantity] - old) / max(abs(old), 1e-300), f"{quantity} of step {step}")
        for step, row in before.items()
        for quantity, old in row.items()
    )
