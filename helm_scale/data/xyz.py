"""Extended XYZ -> molecules without labels; charge, multiplicity, key and split come from the comment line."""

from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np

from helm_scale.batch import Molecule
from helm_scale.data import graph

MULTIPLICITY_NAMES = ("multiplicity", "spin_multiplicity", "spin")  # the field writes all three


def read_xyz(path: str | Path) -> tuple[list[Molecule], list[str]]:
    """Read every frame of an extended XYZ file (positions in Angstrom).

    `key` (default frame-000000), `charge` (0), `multiplicity` (1; also read as `spin_multiplicity` or `spin`, always 2S+1)
    and `split` (train) come from a frame's comment line.

    Returns:
        (molecules, name of the split of each).
    Raises:
        ValueError: no such file, not XYZ, no frames, a key twice, no atoms, coincident atoms, or a charge that is no integer;
            names file and frame.
    """
    frames = _frames(Path(path))
    molecules, splits = [], []
    seen: dict[str, int] = {}
    for number, atoms in enumerate(frames):
        molecule = _molecule(atoms, number, f"{path}, frame {number}")
        if molecule.key in seen:
            raise ValueError(f"{path}: key '{molecule.key}' in frames {seen[molecule.key]} and {number}; give every frame its own key")
        seen[molecule.key] = number
        molecules.append(molecule)
        splits.append(str(atoms.info.get("split", "train")))
    return molecules, splits


def _frames(path: Path) -> list[ase.Atoms]:
    if not path.is_file():
        raise ValueError(f"{path}: XYZ file not found")
    if not path.read_bytes().strip():
        raise ValueError(f"{path}: empty; wanted at least one molecule in extended XYZ")
    try:
        return list(ase.io.iread(path, index=":", format="extxyz"))
    except (ase.io.ParseError, OSError, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{path}: not extended XYZ: {error}") from None


def _molecule(atoms: ase.Atoms, number: int, where: str) -> Molecule:
    if len(atoms) == 0:
        raise ValueError(f"{where}: no atoms; remove the frame")
    if not atoms.get_atomic_numbers().all():
        raise ValueError(f"{where}: unknown chemical symbol 'X'; wanted a real element")
    key = str(atoms.info.get("key", f"frame-{number:06d}"))
    given = {name: _integer(atoms.info[name], f"{where} ({key}): {name}") for name in MULTIPLICITY_NAMES if name in atoms.info}
    if len(set(given.values())) > 1:
        listed = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(f"{where} ({key}): {listed} contradict each other; give one multiplicity (2S+1)")
    positions = atoms.get_positions().astype(np.float64)
    try:
        graph.check_geometry(key, graph.distances(positions))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return Molecule(
        key=key,
        atomic_numbers=atoms.get_atomic_numbers().astype(np.int64),
        positions=positions,
        charge=_integer(atoms.info.get("charge", 0), f"{where} ({key}): charge"),
        spin_multiplicity=next(iter(given.values()), 1),
    )


def _integer(value: Any, where: str) -> int:
    """Turn a value of the comment line into an integer."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer) or not float(value).is_integer():
        raise ValueError(f"{where}: got {value}, wanted an integer")
    return int(value)
