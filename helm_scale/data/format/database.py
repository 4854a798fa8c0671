"""Rows of ASE databases as frames."""

from pathlib import Path
from typing import Any

import ase.db
import numpy as np
from ase.calculators.calculator import all_properties

from helm_scale.reading.frames import Frame
from helm_scale.reading.numbers import numbers
from helm_scale.units import BOHR_IN_ANGSTROM

OTHER_KINDS = {
    ".traj": "convert it: ase.io.write('new.xyz', ase.io.read('old.traj', ':'))",
    ".aselmdb": "convert it with the package ase-db-backends: db.write(row) into a .db",
}


def read_rows(path: Path) -> tuple[list[Frame], dict[str, Any]]:
    """Read every row: results, key-value pairs and data in `info` or, per atom, in `columns`.

    Returns:
        (frames, metadata of the database). Positions that the metadata say to be in bohr are
        converted.
    Raises:
        ValueError: no such file, none of this format, an empty one, or a name with two values.
    """
    if not path.is_file():
        raise ValueError(
            f"{path}: file not found; wanted extended XYZ (.xyz, .extxyz, .xyz.gz) or an ASE"
            " database (.db, .json)"
        )
    if path.suffix in OTHER_KINDS:
        raise ValueError(f"{path}: {path.suffix} is not read; {OTHER_KINDS[path.suffix]}")
    try:
        with ase.db.connect(path) as database:
            metadata, rows = dict(database.metadata), list(database.select())
    # the backends raise errors of many kinds for a file that is none of theirs
    except Exception as error:
        raise ValueError(f"{path}: not an ASE database: {type(error).__name__}: {error}") from None
    if not rows:
        raise ValueError(f"{path}: empty; wanted at least one molecule")
    scale = _angstrom(metadata, path)
    return [_frame(row, scale, f"{path}, frame {i}") for i, row in enumerate(rows)], metadata


def _frame(row: Any, scale: float, where: str) -> Frame:
    # `row.charge` and others are properties that hide the stored pair of the same name
    pairs = {name: row.__dict__[name] for name in row._keys}
    results = {name: row.__dict__[name] for name in all_properties if name in row.__dict__}
    values: dict[str, Any] = {}
    for source in (results, pairs, dict(row.data)):
        for name, value in source.items():
            if name in values and not np.array_equal(values[name], value):
                raise ValueError(f"{where}: {name} has two values; keep one")
            values[name] = value
    columns = {n: row.__dict__[n] for n in ("initial_charges", "initial_magmoms") if n in row}
    return Frame(
        where=where,
        info=values,
        atomic_numbers=np.asarray(row.numbers, dtype=np.int64),
        positions=scale * numbers(row.positions, (len(row.numbers), 3), f"{where}: positions"),
        columns=columns,
        periodic=bool(np.any(row.pbc)),
    )


def _angstrom(metadata: dict[str, Any], path: Path) -> float:
    """One unit of length of the database, as SchNetPack's metadata name it, in Angstrom."""
    unit = str(metadata.get("_distance_unit", "Angstrom")).lower()
    if unit in ("ang", "angstrom", "a"):
        return 1.0
    if unit in ("bohr", "a0", "au", "a.u."):
        return BOHR_IN_ANGSTROM
    raise ValueError(f"{path}: metadata: _distance_unit {unit}, wanted Ang or Bohr")
