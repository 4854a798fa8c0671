"""Frames of XYZ files, plain or extended, read line by line, so that every error has a place.

Not left to ASE: its reader stops at the first blank line, reads 1e-1 as the integer 0 and the key
000123 as 123, and names no line.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import data

from helm_scale.reading import comment_line
from helm_scale.units import BOHR_IN_ANGSTROM

COUNT = re.compile(r"\s*(\d{1,9})\s*", re.ASCII)
DEFAULT_COLUMNS = "species:S:1:pos:R:3"
ISOTOPES = {"D": 1, "T": 1}  # they have the electrons of hydrogen
LENGTH_UNIT = re.compile(r"((length|position|coordinate|coord|distance|pos)s?_?)?units?", re.I)
BOHR = ("bohr", "bohrs", "a0", "au", "a.u.", "atomic")
GZIP = b"\x1f\x8b"
# A word that only other formats contain -> what the file is
FOREIGN = {
    "V2000": "an SDF or mol file",
    "V3000": "an SDF or mol file",
    "M  END": "an SDF or mol file",
    "@<TRIPOS>": "a mol2 file",
    "_cell_length_a": "a CIF file",
    "HETATM": "a PDB file",
    "<html": "an HTML page, perhaps of a failed download",
    "<!DOCTYPE": "an HTML page, perhaps of a failed download",
    "version https://git-lfs": "a pointer of Git LFS; run git lfs pull",
    "* O   R   C   A *": "an output of ORCA",
    "* xyz": "an input of ORCA",
    "Entering Gaussian System": "an output of Gaussian",
    "%chk=": "an input of Gaussian",
    "Number of basis functions": "a formatted checkpoint file of Gaussian",
    "[Molden Format]": "a Molden file",
    "$coord": "a file of Turbomole",
    "ITEM: TIMESTEP": "a dump of LAMMPS",
    "PK\x03\x04": "a zip or npz file",
    '"Molecule"': "JSON of ORCA",
    '"schema_name"': "JSON of QCSchema",
}
# First bytes of files that are no text -> what the file is
BINARY = {
    b"SQLite format 3": "an SQLite database; if ASE wrote it, name it .db",
    b"- of Ulm": "a trajectory of ASE; name it .traj",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "an array of numpy",
    b"PK\x03\x04": "a zip or npz file",
    b"BZh": "compressed with bzip2; unpack it",
    b"\xfd7zXZ": "compressed with xz; unpack it",
    b"(\xb5/\xfd": "compressed with zstd; unpack it",
}
KNOWN_MISTAKES = {
    "*^": "; QM9 writes *^ for e: replace it",
    "d": "; Fortran writes D for e: replace it",
}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One molecule as a file has it.

    Attributes:
        where: file, frame and line. info: values of the comment line by name, numbers as numbers.
        atomic_numbers: [N] int64. positions: [N, 3] float64, Angstrom.
        columns: further columns by name, [N] or [N, columns].
        periodic: has a cell that repeats.
    """

    where: str
    info: dict[str, Any]
    atomic_numbers: np.ndarray
    positions: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    periodic: bool = False


@dataclass(frozen=True)
class BadFrame:
    """A frame that cannot be read, and the error that says why with file, frame and line."""

    error: ValueError


def read_frames(path: Path) -> list[Frame | BadFrame]:
    """Read every frame of an XYZ file, which may be compressed with gzip.

    Between frames there may be blank lines and lines that start with #. D and T are read as
    hydrogen, and numbers in the place of symbols as atomic numbers.

    Raises:
        ValueError: no such file, none of this format, or lines that cannot be counted into frames.
    """
    text = _text(path)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    frames: list[Frame | BadFrame] = []
    try:
        for number, start in enumerate(_starts(lines, path)):
            try:
                frames.append(_frame(lines, start, f"{path}, frame {number}"))
            except ValueError as error:
                frames.append(BadFrame(_hinted(error, text)))
    except ValueError as error:
        all_sound(frames)  # a wrong number of atoms is seen there first
        raise _hinted(error, text) from None
    if not frames:
        raise ValueError(f"{path}: empty; wanted at least one molecule in extended XYZ")
    return frames


def all_sound(frames: list[Frame | BadFrame]) -> list[Frame]:
    """The frames, if all could be read.

    Raises:
        ValueError: that of the first frame that could not.
    """
    for frame in frames:
        if isinstance(frame, BadFrame):
            raise frame.error
    return [frame for frame in frames if isinstance(frame, Frame)]


def _hinted(error: ValueError, text: str) -> ValueError:
    """The error, with what the file looks like if that is another format."""
    kind = next((kind for word, kind in FOREIGN.items() if word in text), None)
    return ValueError(f"{error}; this looks like {kind}") if kind else error


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path}: XYZ file not found")
    content = path.read_bytes()
    if content.startswith(GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: not a sound gzip file: {error}") from None
    try:
        return content.decode("utf-8-sig")  # Windows editors put a mark before the text
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        kind = next((kind for first, kind in BINARY.items() if content.startswith(first)), None)
        hint = f"; this looks like {kind}" if kind else ""
        raise ValueError(f"{path}, line {line}: not extended XYZ: no UTF-8 text{hint}") from None


def _starts(lines: list[str], path: Path) -> Iterator[int]:
    """Index of the line with the number of atoms of every frame; what lies between is empty."""
    start = number = 0
    while start < len(lines):
        line = lines[start]
        if not line.strip() or line.lstrip().startswith("#"):
            start += 1
            continue
        where = f"{path}, frame {number}, line {start + 1}"
        count = COUNT.fullmatch(line)
        if count is None:
            raise ValueError(
                f"{where}: not extended XYZ: got {line.strip()[:60]!r}, wanted the number of atoms"
            )
        atoms = int(count[1])
        if not atoms:
            raise ValueError(f"{where}: no atoms; remove the frame")
        left = len(lines) - start - 2
        if left < atoms:
            raise ValueError(
                f"{where}: not extended XYZ: wanted {atoms} atoms, but the file ends"
                f" after {max(left, 0)} more lines"
            )
        yield start
        start, number = start + 2 + atoms, number + 1


def _frame(lines: list[str], start: int, where: str) -> Frame:
    count, place = int(lines[start]), f"{where}, line {start + 2}"
    info = comment_line.read(lines[start + 1], place)
    stated = info.pop("Properties", None)
    _check_length_unit(info, place)
    columns = _columns(stated, place)
    width = sum(size for _, _, size in columns)
    rows = []  # plain XYZ may have more columns than are read
    for index in range(start + 2, start + 2 + count):
        row = lines[index].split()
        if len(row) < width or (stated and len(row) > width):
            raise ValueError(
                f"{where}, line {index + 1}: not extended XYZ: got"
                f" {lines[index].strip()[:60]!r}, wanted {width} columns"
            )
        rows.append(row)
    arrays, first = {}, 0
    for name, kind, size in columns:
        cells = [row[first : first + size] for row in rows]
        arrays[name] = _column(cells, name, kind, place=(where, start + 3))
        first += size
    numbers = arrays.pop("species" if "species" in arrays else "Z")[:, 0]
    if "Z" in arrays and not np.array_equal(arrays.pop("Z")[:, 0], numbers):
        raise ValueError(f"{place}: the columns species and Z contradict each other; keep one")
    return Frame(
        where=f"{where}, line {start + 1}",
        info=info,
        atomic_numbers=numbers.astype(np.int64),
        positions=arrays.pop("pos"),
        columns={name: a[:, 0] if a.shape[1] == 1 else a for name, a in arrays.items()},
        periodic=_periodic(info, place),
    )


def _periodic(info: dict[str, Any], where: str) -> bool:
    """Whether the cell repeats; without a word on it a cell does, by the rules of extended XYZ."""
    names = {name.lower(): name for name in info if name.lower() in ("lattice", "pbc")}
    lattice, stated = (info.pop(names.get(name, ""), None) for name in ("lattice", "pbc"))
    if stated is None:
        return lattice is not None
    repeats = np.asarray(stated)
    if repeats.dtype != bool:
        raise ValueError(f"{where}: pbc: got {stated}, wanted three of T and F")
    return bool(repeats.any())


def _check_length_unit(info: dict[str, Any], where: str) -> None:
    """Refuse positions that are said to be in bohr."""
    for name, value in info.items():
        if LENGTH_UNIT.fullmatch(name) and str(value).lower() in BOHR:
            raise ValueError(
                f"{where}: {name}={value}: wanted positions in Angstrom; multiply them by"
                f" {BOHR_IN_ANGSTROM:.6f} and remove {name}"
            )


def _columns(stated: Any, where: str) -> list[tuple[str, str, int]]:
    """(name, kind, size) of the columns that Properties states."""
    parts = str(DEFAULT_COLUMNS if stated is None else stated).split(":")
    names, kinds, sizes = parts[::3], parts[1::3], parts[2::3]
    sound = len(names) == len(kinds) == len(sizes) == len(set(names)) and all(
        kind in ("S", "I", "R", "L") and re.fullmatch(r"[1-9]\d{0,3}", size)
        for kind, size in zip(kinds, sizes, strict=True)
    )
    columns = [(n, k, int(s)) for n, k, s in zip(names, kinds, sizes, strict=True)] if sound else []
    atoms = {("species", "S", 1), ("Z", "I", 1)} & set(columns)
    if not atoms or ("pos", "R", 3) not in columns:
        raise ValueError(
            f"{where}: Properties={stated}: wanted NAME:KIND:COLUMNS of each, with"
            " species:S:1 (or Z:I:1) and pos:R:3"
        )
    return columns


def _column(cells: list[list[str]], name: str, kind: str, *, place: tuple[str, int]) -> np.ndarray:
    """Values [N, size] of one column; the first line of atoms is place[1]."""
    read = _atomic_number if name in ("species", "Z") else _READERS[kind]
    values = []
    for line, row in enumerate(cells, place[1]):
        try:
            values.append([read(cell) for cell in row])
        except ValueError as error:
            raise ValueError(f"{place[0]}, line {line}: {error}") from None
    return np.array(values, dtype=object if kind == "S" and name != "species" else None)


def _atomic_number(word: str) -> int:
    if word in ISOTOPES:
        return ISOTOPES[word]
    if word.isdecimal() and word.isascii() and 0 < int(word) < len(data.chemical_symbols):
        return int(word)
    number = data.atomic_numbers.get(word.capitalize(), 0)
    if not number:
        raise ValueError(f"unknown chemical symbol {word!r}; wanted a symbol or an atomic number")
    return int(number)


def _finite(word: str) -> float:
    value = comment_line.value_of(word)
    if isinstance(value, bool | str) or not np.isfinite(value):
        hint = next((hint for sign, hint in KNOWN_MISTAKES.items() if sign in word.lower()), "")
        raise ValueError(f"got {word!r}, wanted a finite number, no NaN{hint}")
    return float(value)


def _integer(word: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,18}", word, re.ASCII):
        raise ValueError(f"got {word!r}, wanted an integer")
    return int(word)


def _truth(word: str) -> bool:
    if word not in ("T", "F", "True", "False"):
        raise ValueError(f"got {word!r}, wanted T or F")
    return word.startswith("T")


_READERS: dict[str, Callable[[str], Any]] = {"S": str, "I": _integer, "R": _finite, "L": _truth}
