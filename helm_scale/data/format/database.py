"""Frames of files of molecules, by their ending: ASE databases and trajectories, else XYZ."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
from ase.calculators.calculator import all_properties
from ase.io.trajectory import Trajectory

from helm_scale.extras import MissingExtraError, needs
from helm_scale.reading.frames import BadFrame, Frame, all_sound, read_frames
from helm_scale.reading.numbers import numbers
from helm_scale.units import BOHR_IN_ANGSTROM

DATABASES = (".db", ".json", ".aselmdb")
TRAJECTORY = ".traj"


def read_file(path: Path) -> tuple[list[Frame], dict[str, Any]]:
    """Read every molecule of a file.

    Returns:
        (frames, metadata of a database). Results, key-value pairs and data are in `info` or, per
        atom, in `columns`. Positions that the metadata say to be in bohr are converted.
    Raises:
        ValueError: no such file, none of its format, an empty one, or a name with two values.
        MissingExtraError: .aselmdb without the package that reads it.
    """
    frames, metadata = read_any(path)
    return all_sound(frames), metadata


def read_any(path: Path) -> tuple[list[Frame | BadFrame], dict[str, Any]]:
    """As `read_file`, but what cannot be read is among the frames with its error."""
    if not path.is_file():
        raise ValueError(
            f"{path}: file not found; wanted extended XYZ (.xyz, .extxyz, .xyz.gz), an ASE"
            f" database ({', '.join(DATABASES)}) or trajectory ({TRAJECTORY})"
        )
    if path.suffix == TRAJECTORY:
        return _read_trajectory(path), {}
    return _read_database(path) if path.suffix in DATABASES else (read_frames(path), {})


def _read_database(path: Path) -> tuple[list[Frame | BadFrame], dict[str, Any]]:
    try:
        with needs("aselmdb"), ase.db.connect(path) as database:
            metadata, rows = dict(database.metadata), list(database.select())
    except MissingExtraError:
        raise
    # the backends raise errors of many kinds for a file that is none of theirs
    except Exception as error:
        raise ValueError(f"{path}: not an ASE database: {type(error).__name__}: {error}") from None
    if not rows:
        raise ValueError(f"{path}: empty; wanted at least one molecule")
    scale = _angstrom(metadata, path)
    return _each(lambda row, where: _frame_of_row(row, scale, where), rows, path), metadata


def _read_trajectory(path: Path) -> list[Frame | BadFrame]:
    try:
        with Trajectory(path) as trajectory:
            images = list(trajectory)
    # of ASE's container, of numpy and of json: whatever a damaged file leads to
    except Exception as error:
        raise ValueError(
            f"{path}: not a sound ASE trajectory: {type(error).__name__}: {error}"
        ) from None
    if not images:
        raise ValueError(f"{path}: empty; wanted at least one molecule")
    return _each(_frame_of_atoms, images, path)


def _each(
    read: Callable[[Any, str], Frame], entries: Iterable[Any], path: Path
) -> list[Frame | BadFrame]:
    """Read every entry; read: (entry, file and frame for messages) -> frame."""
    frames: list[Frame | BadFrame] = []
    for number, entry in enumerate(entries):
        try:
            frames.append(read(entry, f"{path}, frame {number}"))
        except ValueError as error:
            frames.append(BadFrame(error))
    return frames


def _frame_of_atoms(atoms: Any, where: str) -> Frame:
    known = {"numbers", "positions"}
    return Frame(
        where=where,
        info=_united((dict(atoms.calc.results) if atoms.calc else {}, atoms.info), where),
        atomic_numbers=np.asarray(atoms.numbers, dtype=np.int64),
        positions=numbers(atoms.positions, (len(atoms), 3), f"{where}: positions"),
        columns={name: array for name, array in atoms.arrays.items() if name not in known},
        periodic=bool(np.any(atoms.pbc)),
    )


def _united(sources: Iterable[dict[str, Any]], where: str) -> dict[str, Any]:
    """Values of all sources.

    Raises:
        ValueError: two values of one name.
    """
    values: dict[str, Any] = {}
    for source in sources:
        for name, value in source.items():
            if name in values and not np.array_equal(values[name], value):
                raise ValueError(f"{where}: {name} has two values; keep one")
            values[name] = value
    return values


def _frame_of_row(row: Any, scale: float, where: str) -> Frame:
    # `row.charge` and others are properties that hide the stored pair of the same name
    pairs = {name: row.__dict__[name] for name in row._keys}
    results = {name: row.__dict__[name] for name in all_properties if name in row.__dict__}
    columns = {n: row.__dict__[n] for n in ("initial_charges", "initial_magmoms") if n in row}
    return Frame(
        where=where,
        info=_united((results, pairs, dict(row.data)), where),
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
