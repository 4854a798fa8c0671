"""Read labelled molecules from extended XYZ, ASE databases and trajectories.

Labels are a family: energy and forces come from names with the same prefix, so that the energy of
one method never meets the forces of another.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from helm_scale.data.format import xyz
from helm_scale.data.format.database import read_file
from helm_scale.reading import free_atoms, label_units
from helm_scale.reading.frames import Frame
from helm_scale.reading.numbers import number, numbers
from helm_scale.types import Molecule, Quantity

PREFIXES = ("REF_", "DFT_", "", "MACE_")
# Neither of a pair is known to be the label; REF_ and DFT_ stand above what calculators leave
AMBIGUOUS = (("REF_", "DFT_"), ("", "MACE_"))
WEIGHT = re.compile(r"config_(\w+_)?weight")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """How the labels of a file are to be understood.

    Attributes:
        energy_unit, force_unit: of reading/label_units.py; None: as the metadata say, else eV and
            the unit of energy per Angstrom.
        needs_forces: energies without forces are refused.
        relative: energies are not totals, and are not held against those of free atoms.
        ignore_cell: take molecules out of periodic cells, without their images.
    """

    energy_unit: str | None = None
    force_unit: str | None = None
    needs_forces: bool = False
    relative: bool = False
    ignore_cell: bool = False


@dataclass(frozen=True, kw_only=True)
class _Labels:
    """What the labels of one file are called, and one of ours in its units."""

    prefix: str
    quantity: Quantity
    scale: float
    force_scale: float


def read_labels(
    path: str | Path, wanted: Quantity, options: LabelOptions | None = None
) -> tuple[list[Molecule], list[str | None]]:
    """Read molecules with a label from a file that database.py knows.

    The label is `REF_<name>`, `DFT_<name>`, `<name>` or `MACE_<name>`, the same in every frame.
    With energies come forces of the same prefix where there are some. In a database these are
    results of the calculator, key-value pairs or data. `config_type=IsolatedAtom` marks a free
    atom, which only energies have a use for.

    Returns:
        (molecules with the label in `wanted.unit`; name of the split of each: None where none is
        given, "isolated" for free atoms).
    Raises:
        ValueError: as `read_xyz`; a label that is missing, not finite or of another shape; total
            energies that are none in this unit; names file, frame and line.
    """
    path, options = Path(path), options or LabelOptions()
    frames, metadata = read_file(path)
    molecules = xyz.molecules_of(frames, path, ignore_cell=options.ignore_cell)
    used = [i for i, f in enumerate(frames) if wanted.name == "energy" or not xyz.is_free_atom(f)]
    frames, molecules = [frames[i] for i in used], [molecules[i] for i in used]
    places = [f"{f.where} ({m.key})" for f, m in zip(frames, molecules, strict=True)]
    prefix = _prefix(frames, wanted, places)
    labels = _units(prefix, wanted, options, metadata=metadata, path=path)
    triples = zip(frames, molecules, places, strict=True)
    labelled = [_labelled(f, m, labels, where=p, options=options) for f, m, p in triples]
    _report_weights(frames, path)
    if wanted.name == "energy":
        _report_other_forces(frames, labelled, path)
        if not options.relative:
            free_atoms.check_totals(
                labelled, places, name=prefix + "energy", unit=labels.quantity.file_unit
            )
    return labelled, [_split(frame) for frame in frames]


def _split(frame: Frame) -> str | None:
    if xyz.is_free_atom(frame):
        return "isolated"
    return str(frame.info["split"]) if "split" in frame.info else None


def _value(frame: Frame, name: str) -> Any:
    """A label as the frame has it, or None."""
    value = frame.info.get(name)
    return frame.columns.get(name) if value is None else value


def _prefix(frames: Sequence[Frame], wanted: Quantity, places: Sequence[str]) -> str:
    """The prefix that the label has in every frame."""
    having = [[p for p in PREFIXES if _value(f, p + wanted.name) is not None] for f in frames]
    first = next((p for p in PREFIXES if any(p in prefixes for prefixes in having)), None)
    for pair in AMBIGUOUS:
        both = next((i for i, prefixes in enumerate(having) if set(pair) <= set(prefixes)), None)
        if first in pair and both is not None:
            names = " and ".join(p + wanted.name for p in pair)
            raise ValueError(f"{places[both]}: {names}: which is the label? Keep one")
    for prefixes, frame, place in zip(having, frames, places, strict=True):
        if first is None or first not in prefixes:
            hint = (
                _hint(frame, wanted)
                if first is None
                else f"; other frames have {first + wanted.name}"
            )
            raise ValueError(
                f"{place}: no {(first or '') + wanted.name}; wanted REF_{wanted.name} or"
                f" {wanted.name}, in {wanted.file_unit}{hint}"
            )
    return first or ""


def _hint(frame: Frame, wanted: Quantity) -> str:
    """Names of the frame that hold the name of the label."""
    near = [name for name in (*frame.info, *frame.columns) if wanted.name in str(name).lower()]
    return f"; rename {', '.join(near)}" if near else ""


def _units(
    prefix: str, wanted: Quantity, options: LabelOptions, *, metadata: dict[str, Any], path: Path
) -> _Labels:
    """The units of a file's labels: as the settings say, its metadata, or eV and e*Angstrom."""
    stated = metadata.get("_property_unit_dict") or {}
    of_value = stated.get(prefix + wanted.name, stated.get(wanted.name))
    of_forces = stated.get(prefix + "forces", stated.get("forces"))
    if wanted.unit != "Hartree":
        if of_value is not None and str(of_value).lower() not in ("e*angstrom", "e*ang", "e*a"):
            raise ValueError(
                f"{path}: metadata: {wanted.name} in {of_value}, wanted {wanted.file_unit}"
            )
        log.info("%s: %s in %s", path, prefix + wanted.name, wanted.file_unit)
        return _Labels(prefix=prefix, quantity=wanted, scale=wanted.in_file_unit, force_scale=1.0)
    where = f"{path}: metadata: {wanted.name}"
    unit = _agreed(
        "energy_unit",
        options.energy_unit,
        None if of_value is None else label_units.energy_unit(str(of_value), where),
        default="eV",
    )
    force_unit = _agreed(
        "force_unit",
        options.force_unit,
        None if of_forces is None else label_units.force_unit(str(of_forces), f"{path}: metadata"),
        default=f"{unit}/Angstrom",
    )
    log.info("%s: %s", path, f"{prefix}{wanted.name} in {unit}, forces in {force_unit}")
    return _Labels(
        prefix=prefix,
        quantity=replace(wanted, file_unit=unit),
        scale=label_units.hartree_in(unit),
        force_scale=label_units.hartree_per_angstrom_in(force_unit),
    )


def _agreed(name: str, setting: str | None, metadata: str | None, *, default: str) -> str:
    if setting is not None and metadata is not None and setting != metadata:
        raise ValueError(
            f"{name}: got {setting}, but the metadata of the file say {metadata}; leave it out"
        )
    return setting or metadata or default


def _labelled(
    frame: Frame, molecule: Molecule, labels: _Labels, *, where: str, options: LabelOptions
) -> Molecule:
    """The molecule with the label of the frame, and with forces beside an energy."""
    wanted = labels.quantity
    name, forces_name = labels.prefix + wanted.name, labels.prefix + "forces"
    if not _weight(frame, "weight", where) or not _weight(frame, f"{wanted.name}_weight", where):
        raise ValueError(f"{where}: {name} has weight 0 and is no label; remove the frame")
    value = numbers(_value(frame, name), wanted.shape, f"{where}: {name}, in {wanted.file_unit}")
    if wanted.name != "energy":
        return replace(molecule, properties={wanted.name: value / labels.scale})
    forces = _value(frame, forces_name) if _weight(frame, "forces_weight", where) else None
    if forces is None and options.needs_forces and not xyz.is_free_atom(frame):
        others = [p + "forces" for p in PREFIXES if _value(frame, p + "forces") is not None]
        other = (
            f"; {', '.join(others)} may be of another method: rename it if not" if others else ""
        )
        raise ValueError(f"{where}: no {forces_name} beside {name}{other}")
    if forces is not None:
        shape = (len(molecule.positions), 3)
        forces = numbers(forces, shape, f"{where}: {forces_name}") / labels.force_scale
    return replace(molecule, energy=float(value) / labels.scale, forces=forces)


def _weight(frame: Frame, name: str, where: str) -> float:
    """What a frame says that one of its labels counts, as in MACE's files; 0: it is none."""
    return number(frame.info.get(f"config_{name}", 1.0), f"{where}: config_{name}")


def _report_weights(frames: Sequence[Frame], path: Path) -> None:
    """Say how many frames have weights, which are not heeded but where they are 0."""
    weighted = sum(
        any(
            WEIGHT.fullmatch(str(name)) and not np.array_equal(value, 1)
            for name, value in frame.info.items()
        )
        for frame in frames
    )
    if weighted:
        log.warning("%s: weights of %d frames are not heeded, but where they are 0", path, weighted)


def _report_other_forces(
    frames: Sequence[Frame], molecules: Sequence[Molecule], path: Path
) -> None:
    """Say how many frames have forces whose prefix is not that of the energy."""
    left_out = sum(
        molecule.forces is None and any(_value(frame, p + "forces") is not None for p in PREFIXES)
        for frame, molecule in zip(frames, molecules, strict=True)
    )
    if left_out:
        log.warning(
            "%s: forces of %d frames left out: their prefix is not that of the energy",
            path,
            left_out,
        )
