"""Molecules from the frames of extended XYZ files and of ASE databases."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from helm_scale.data.format.database import read_any, read_file
from helm_scale.data.format.manifest import RejectedMolecule
from helm_scale.data.graphs import neighbors
from helm_scale.reading import free_atoms, identity
from helm_scale.reading.frames import BadFrame, Frame
from helm_scale.reading.numbers import numbers
from helm_scale.types import Molecule

log = logging.getLogger(__name__)


def read_xyz(path: str | Path, *, ignore_cell: bool = False) -> tuple[list[Molecule], list[str]]:
    """Read every molecule of an extended XYZ file (Angstrom) or another that database.py knows.

    `key` (default frame-000000), charge and multiplicity (reading/identity.py has their names) and
    `split` (train) come from a frame's comment line, or the pairs and data of a database.

    Args:
        ignore_cell: take molecules out of periodic cells, without their images.
    Returns:
        (molecules, name of the split of each).
    Raises:
        ValueError: no such file, not XYZ, no frames, a key twice, no atoms, coincident atoms, a
            periodic cell, or a charge or multiplicity that cannot be; names file, frame and line.
    """
    frames, _ = read_file(Path(path))
    molecules = molecules_of(frames, path, ignore_cell=ignore_cell)
    return molecules, [str(frame.info.get("split", "train")) for frame in frames]


def read_usable(
    path: str | Path, check: Callable[[Molecule, str], None], *, ignore_cell: bool = False
) -> tuple[list[Molecule], list[str], list[RejectedMolecule]]:
    """Read a file as `read_xyz` does, but leave out frames that are wrong by themselves.

    Args:
        check: raises ValueError for a molecule that has no use; gets it and its place in the file.
    Returns:
        (molecules, name of the split of each, what was left out by name with the reason).
    Raises:
        ValueError: as `read_xyz` for what concerns the whole file, or no usable frame.
    """
    usable: list[Frame] = []
    rejected, first_error = [], None
    for number, frame in enumerate(read_any(Path(path))[0]):
        try:
            if isinstance(frame, BadFrame):
                raise frame.error
            frame.info.setdefault("key", default_key(number))
            check(_molecule(frame, number, ignore_cell=ignore_cell), frame.where)
            usable.append(frame)
        except ValueError as error:
            first_error = first_error or error
            named = frame.info["key"] if isinstance(frame, Frame) else default_key(number)
            rejected.append(RejectedMolecule(str(named), str(error).removeprefix(f"{path}, ")))
            log.warning("rejected %s: %s", named, error)
    if not usable and first_error:
        raise first_error
    molecules = molecules_of(usable, path, ignore_cell=ignore_cell)
    return molecules, [str(frame.info.get("split", "train")) for frame in usable], rejected


def molecules_of(
    frames: Iterable[Frame], path: str | Path, *, ignore_cell: bool = False
) -> list[Molecule]:
    """Molecules without labels, each with a key of its own; a free atom once per element.

    Raises:
        ValueError: as `read_xyz`.
    """
    seen: dict[str, int] = {}
    elements: set[int] = set()
    molecules, cells = [], 0
    for number, frame in enumerate(frames):
        molecule = _molecule(frame, number, ignore_cell=ignore_cell)
        if molecule.key in seen:
            raise ValueError(
                f"{path}: key '{molecule.key}' in frames {seen[molecule.key]} and {number};"
                " give every frame its own key"
            )
        seen[molecule.key] = number
        if is_free_atom(frame):
            if int(frame.atomic_numbers[0]) in elements:
                raise ValueError(
                    f"{frame.where} ({molecule.key}): a second free atom of its element"
                )
            elements.add(int(frame.atomic_numbers[0]))
        cells += frame.periodic
        molecules.append(molecule)
    if cells:
        log.warning("%s: %d periodic cells, taken without their images", path, cells)
    return molecules


def default_key(number: int) -> str:
    """Name of a frame that has none."""
    return f"frame-{number:06d}"


def key_of(frame: Frame, number: int) -> str:
    """Name of a frame's molecule.

    Raises:
        ValueError: neither text nor an integer, or empty.
    """
    key = frame.info.get("key", default_key(number))
    if isinstance(key, bool) or not isinstance(key, str | int | np.integer) or key == "":
        raise ValueError(f"{frame.where}: key: got {key!r}, wanted text")
    return str(key)


def is_free_atom(frame: Frame) -> bool:
    """Whether a frame is marked as a free atom, as MACE's files do."""
    return str(frame.info.get("config_type", "")).replace("_", "").lower() == "isolatedatom"


def _molecule(frame: Frame, number: int, *, ignore_cell: bool) -> Molecule:
    key = key_of(frame, number)
    where = f"{frame.where} ({key})"
    if not len(frame.atomic_numbers):
        raise ValueError(f"{where}: no atoms; remove the frame")
    if not frame.atomic_numbers.all():
        raise ValueError(f"{where}: unknown chemical symbol 'X'; wanted a real element")
    identity.check_no_cell(frame.periodic, where, ignore=ignore_cell)
    try:
        neighbors.atom_pairs([key], [len(frame.positions)], frame.positions)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    charge, multiplicity = identity.read_identity(
        _ground_state(frame, where) if is_free_atom(frame) else frame.info,
        frame.atomic_numbers,
        where,
        initial_charges=_total(frame, "initial_charges", where) or _result(frame, "charges"),
        magnetic_moments=_total(frame, "initial_magmoms", where) or _result(frame, "magmoms"),
    )
    return Molecule(
        key=key,
        atomic_numbers=frame.atomic_numbers,
        positions=frame.positions,
        charge=charge,
        spin_multiplicity=multiplicity,
    )


def _ground_state(frame: Frame, where: str) -> dict[str, Any]:
    """What a frame says of a free atom, with the multiplicity of the ground state if it says none.

    Raises:
        ValueError: not one atom, or one that is charged or excited.
    """
    if len(frame.atomic_numbers) != 1:
        raise ValueError(f"{where}: config_type: a free atom with {len(frame.positions)} atoms")
    ground = free_atoms.ground_state(int(frame.atomic_numbers[0]))
    info = frame.info
    if ground and not identity.states_multiplicity(info):
        info = {**info, "multiplicity": ground}
    charge, multiplicity = identity.read_identity(info, frame.atomic_numbers, where)
    if charge or (ground and multiplicity != ground):
        raise ValueError(
            f"{where}: config_type: a free atom with charge {charge:+d} and multiplicity"
            f" {multiplicity}, wanted the neutral ground state, multiplicity {ground}"
        )
    return info


def _total(frame: Frame, name: str, where: str) -> float:
    """Sum over atoms of a column, 0 where there is none."""
    if name not in frame.columns:
        return 0.0
    return float(numbers(frame.columns[name], (len(frame.positions),), f"{where}: {name}").sum())


def _result(frame: Frame, name: str) -> float:
    """Sum over atoms of what another program found, 0 where that is not one number per atom."""
    values = frame.columns.get(name)
    if (
        values is None
        or values.shape != frame.atomic_numbers.shape
        or values.dtype.kind not in "iuf"
    ):
        return 0.0
    return float(values.sum())
