"""Read molecules from extended XYZ and ASE databases.

`read_xyz` leaves labels alone; `read_labels` wants one, in ASE's units.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase
import ase.db
import ase.io
import numpy as np

from helm_scale.data.graphs import neighbors
from helm_scale.types import Molecule, Quantity
from helm_scale.units import HARTREE_IN_EV

MULTIPLICITY_NAMES = ("multiplicity", "spin_multiplicity", "spin")  # the field writes all three


def read_xyz(path: str | Path) -> tuple[list[Molecule], list[str]]:
    """Read every frame of an extended XYZ file (positions in Angstrom).

    `key` (default frame-000000), `charge` (0), `multiplicity` (1; also read as `spin_multiplicity`
    or `spin`, always 2S+1) and `split` (train) come from a frame's comment line.

    Returns:
        (molecules, name of the split of each).
    Raises:
        ValueError: no such file, not XYZ, no frames, a key twice, no atoms, coincident atoms, or a
            charge that is no integer; names file and frame.
    """
    frames = _frames(Path(path))
    molecules = list(_molecules(frames, Path(path)))
    return molecules, [str(atoms.info.get("split", "train")) for atoms in frames]


def read_labels(path: str | Path, wanted: Quantity) -> tuple[list[Molecule], list[str | None]]:
    """Read molecules with a label from extended XYZ or an ASE database (.db, .json).

    The label is `REF_<name>`, or `<name>` as ASE reads it, in `wanted.file_unit`: total energies in
    eV, dipoles in e*Angstrom. With energies come forces where there are some, `REF_forces` or
    `forces`, eV/Angstrom. In a database these are results of the calculator, key-value pairs or
    data. `config_type=IsolatedAtom` marks a free atom, which only energies have a use for.

    Returns:
        (molecules with the label in `wanted.unit`; name of the split of each: None where none is
        given, "isolated" for free atoms).
    Raises:
        ValueError: as `read_xyz`, and a label that is missing, not finite or of another shape;
            names file and frame.
    """
    frames = _frames(Path(path)) if Path(path).suffix in (".xyz", ".extxyz") else _rows(Path(path))
    molecules, splits = [], []
    for number, (atoms, molecule) in enumerate(
        zip(frames, _molecules(frames, Path(path)), strict=True)
    ):
        isolated = atoms.info.get("config_type") == "IsolatedAtom"
        if isolated and wanted.name != "energy":
            continue
        where = f"{path}, frame {number} ({molecule.key})"
        molecules.append(_labelled(atoms, molecule, wanted, where))
        split = str(atoms.info["split"]) if "split" in atoms.info else None
        splits.append("isolated" if isolated else split)
    return molecules, splits


def _molecules(frames: list[ase.Atoms], path: Path) -> Iterator[Molecule]:
    """Molecules without labels, each with a key of its own."""
    seen: dict[str, int] = {}
    for number, atoms in enumerate(frames):
        molecule = _molecule(atoms, number, f"{path}, frame {number}")
        if molecule.key in seen:
            raise ValueError(
                f"{path}: key '{molecule.key}' in frames {seen[molecule.key]} and {number};"
                " give every frame its own key"
            )
        seen[molecule.key] = number
        yield molecule


def _labelled(atoms: ase.Atoms, molecule: Molecule, wanted: Quantity, where: str) -> Molecule:
    """The molecule with the label of the frame, and with forces beside an energy."""
    value = _label(atoms, wanted.name)
    if value is None:
        raise ValueError(
            f"{where}: no {wanted.name}; wanted REF_{wanted.name} or {wanted.name},"
            f" in {wanted.file_unit}"
        )
    if value.shape != wanted.shape or not np.isfinite(value).all():
        size = f"{wanted.shape} finite numbers" if wanted.shape else "a finite number"
        raise ValueError(f"{where}: {wanted.name} is {value}, wanted {size}, in {wanted.file_unit}")
    if wanted.name != "energy":
        return replace(molecule, properties={wanted.name: value / wanted.in_file_unit})
    forces = _label(atoms, "forces")
    if forces is not None and (forces.shape != (len(atoms), 3) or not np.isfinite(forces).all()):
        raise ValueError(
            f"{where}: forces of shape {forces.shape}, wanted {len(atoms)} x 3 finite numbers,"
            " in eV/Angstrom"
        )
    return replace(
        molecule,
        energy=float(value) / HARTREE_IN_EV,
        forces=None if forces is None else forces / HARTREE_IN_EV,
    )


def _label(atoms: ase.Atoms, name: str) -> np.ndarray | None:
    """A label as the frame has it, if it has one: what is called REF_ comes first."""
    results = atoms.calc.results if atoms.calc is not None else {}
    places = [
        (atoms.info, f"REF_{name}"), (atoms.arrays, f"REF_{name}"),
        (results, name), (atoms.info, name), (atoms.arrays, name),
    ]  # fmt: skip
    value = next((place[key] for place, key in places if place.get(key) is not None), None)
    return None if value is None else np.asarray(value, dtype=np.float64)


def _rows(path: Path) -> list[ase.Atoms]:
    """Rows of an ASE database, key-value pairs and data in `info`."""
    if not path.is_file():
        raise ValueError(
            f"{path}: file not found;"
            " wanted extended XYZ (.xyz, .extxyz) or an ASE database (.db, .json)"
        )
    try:
        with ase.db.connect(path) as rows:
            frames = [row.toatoms(add_additional_information=True) for row in rows.select()]
    except (
        Exception
    ) as error:  # the backends raise errors of many kinds for a file that is none of theirs
        raise ValueError(f"{path}: not an ASE database: {type(error).__name__}: {error}") from None
    if not frames:
        raise ValueError(f"{path}: empty; wanted at least one molecule")
    for atoms in frames:
        atoms.info |= {**atoms.info.pop("data", {}), **atoms.info.pop("key_value_pairs", {})}
    return frames


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
    given = {
        name: _integer(atoms.info[name], f"{where} ({key}): {name}")
        for name in MULTIPLICITY_NAMES
        if name in atoms.info
    }
    if len(set(given.values())) > 1:
        listed = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(
            f"{where} ({key}): {listed} contradict each other; give one multiplicity (2S+1)"
        )
    positions = atoms.get_positions().astype(np.float64)
    try:
        neighbors.atom_pairs([key], [len(positions)], positions)
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
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.integer)
        or not float(value).is_integer()
    ):
        raise ValueError(f"{where}: got {value}, wanted an integer")
    return int(value)
