"""Read rows of an sqlite file, one at a time, by any number of processes."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class SqliteTable:
    """One table of an sqlite file.

    Args:
        columns: what the table must have.
    Raises:
        ValueError: no such file, no sqlite file, no such table, or a column is missing.
    """

    def __init__(self, path: Path, table: str, columns: Sequence[str]) -> None:
        if not path.is_file():
            raise ValueError(f"{path}: file not found")
        self._path, self._table = path, table
        # Read-only: sqlite would otherwise make a file that is not there, and lock one that is.
        self._connection = sqlite3.connect(f"file:{path.resolve()}?mode=ro", uri=True)
        present = [str(row[1]) for row in self.query(f"PRAGMA table_info({table})")]
        missing = [name for name in columns if name not in present]
        if missing:
            raise ValueError(
                f"{path}: table '{table}' has the columns {', '.join(present) or 'none'},"
                f" wanted {', '.join(missing)} too"
            )
        self._columns = ", ".join(columns)

    def numbers(self) -> list[int]:
        """Row numbers in the order of the table."""
        # rowid: sqlite finds it without an index, whatever the columns of the table.
        return [row[0] for row in self.query(f"SELECT rowid FROM {self._table} ORDER BY rowid")]

    def row(self, number: int) -> tuple[Any, ...]:
        """The asked-for columns of one row.

        Raises:
            ValueError: no such row.
        """
        rows = self.query(f"SELECT {self._columns} FROM {self._table} WHERE rowid = {int(number)}")
        if not rows:
            raise ValueError(f"{self._path}: no row {number} in table '{self._table}'")
        return rows[0]

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Rows of a query.

        Raises:
            ValueError: the file is damaged or no sqlite file.
        """
        try:
            return self._connection.execute(text).fetchall()
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{self._path}: not a sound sqlite file ({error}); get it anew"
            ) from None


def table_columns(path: Path, table: str) -> list[str]:
    """Names of a table's columns, in order; none if there is no such table.

    Raises:
        ValueError: no such file, or no sqlite file.
    """
    return [
        str(row[1]) for row in SqliteTable(path, table, ()).query(f"PRAGMA table_info({table})")
    ]


def array(blob: bytes | None, dtype: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Numbers of a blob, little endian.

    Raises:
        ValueError: it is empty or has another size than the shape says.
    """
    wanted = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if blob is None or len(blob) != wanted:
        got = "nothing" if blob is None else f"{len(blob)} bytes"
        raise ValueError(f"{where}: got {got}, wanted {wanted} ({dtype}, {shape})")
    # astype copies, too: what frombuffer gives is read-only.
    return np.frombuffer(blob, dtype=np.dtype(dtype).newbyteorder("<")).reshape(shape).astype(dtype)
