"""Labels of files are of one family and in known units, or refused with what would fit."""

import logging
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from helm_scale.data.format.labels import LabelOptions, read_labels
from helm_scale.data.format.xyz import read_xyz
from helm_scale.model.heads.dipole import DIPOLE
from helm_scale.model.heads.energy import ENERGY
from helm_scale.types import Molecule
from helm_scale.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

X = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
ROWS = "O 0 0 0.12{}\nH 0 0.76 -0.47{}\nH 0 -0.76 -0.47{}\n"
HARTREE = -76.365
FORCES = ":forces:R:3"
FACTORS = {"eV": HARTREE_IN_EV, "Hartree": 1.0, "kcal/mol": 627.509474, "kJ/mol": 2625.49964}


def frame(comment: str, columns: str = "", values: str = "") -> str:
    return f"3\nProperties=species:S:1:pos:R:3{columns} {comment}\n" + ROWS.format(*3 * [values])


def read(tmp_path: Path, text: str, **options: Any) -> list[Molecule]:
    (tmp_path / "in.xyz").write_text(text)
    return read_labels(tmp_path / "in.xyz", ENERGY.quantity, LabelOptions(**options))[0]


def database(tmp_path: Path, metadata: dict[str, Any] | None = None, **row: Any) -> Path:
    with ase.db.connect(tmp_path / "rows.db") as rows:
        rows.metadata = metadata or {}
        rows.write(Atoms("OHH", X), **row)
    return tmp_path / "rows.db"


@pytest.mark.parametrize("unit", FACTORS)
def test_totals_are_read_in_the_unit_that_is_set_and_refused_in_another(
    unit: str, tmp_path: Path
) -> None:
    text = frame(f"REF_energy={HARTREE * FACTORS[unit]:.8f}")
    (molecule,) = read(tmp_path, text, energy_unit=unit)
    assert molecule.energy == pytest.approx(HARTREE, abs=1e-6)
    for other in FACTORS:
        if other != unit:
            with pytest.raises(
                ValueError, match=f"frame 0, .*{other} is no total .*energy_unit: {unit}"
            ):
                read(tmp_path, text, energy_unit=other)


def test_the_unit_in_use_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read(tmp_path, frame("REF_energy=-2078"))
    assert "REF_energy in eV, forces in eV/Angstrom" in caplog.text


def test_relative_energies_are_refused_unless_they_are_meant(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"formation or atomisation .*energy_kind: relative"):
        read(tmp_path, frame("energy=-9.5"))
    (molecule,) = read(tmp_path, frame("energy=-9.5"), relative=True)
    assert molecule.energy == pytest.approx(-9.5 / HARTREE_IN_EV)


def test_one_frame_in_another_unit_is_named(tmp_path: Path) -> None:
    text = frame("REF_energy=-2078") * 4 + frame("REF_energy=-76.365")
    with pytest.raises(ValueError, match=r"frame 4, line 21 .*1 of 5 molecules.*fit Hartree"):
        read(tmp_path, text)


def test_forces_come_from_the_family_of_the_energy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = frame("REF_energy=-2078 energy=-138", FORCES, " 0 0 9")
    (molecule,) = read(tmp_path, text)
    assert molecule.energy == pytest.approx(-2078 / HARTREE_IN_EV) and molecule.forces is None
    assert "forces of 1 frames left out" in caplog.text
    with pytest.raises(ValueError, match="no REF_forces beside REF_energy; forces may be of anoth"):
        read(tmp_path, text, needs_forces=True)
    (molecule,) = read(tmp_path, text.replace("forces", "REF_forces"), force_unit="eV/bohr")
    assert molecule.forces is not None
    assert molecule.forces[0, 2] == pytest.approx(9 / HARTREE_IN_EV / BOHR_IN_ANGSTROM)


def test_forces_of_weight_zero_are_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = frame("energy=-2078 config_forces_weight=0", FORCES, " 0 0 9")
    assert read(tmp_path, text)[0].forces is None
    assert "weights of 1 frames are not heeded" in caplog.text


@pytest.mark.parametrize(
    ("comments", "message"),
    [
        (("REF_energy=-2078", "energy=-2078"), "frame 1, .*no REF_energy.*other frames have"),
        (("REF_energy=-2078 DFT_energy=-2077",), "REF_energy and DFT_energy: which is the label"),
        (("energy=-2078 MACE_energy=-2077",), "energy and MACE_energy: which is the label"),
        (("total_energy=-2078",), "frame 0, .*no energy; .*rename total_energy"),
        (('energy="-2078 eV"',), "energy, in eV: got '-2078 eV', wanted numbers"),
        (("energy=nan",), "energy, in eV: got NaN"),
        (("energy=T",), "energy, in eV: got True"),
        (("energy=-2078 config_weight=0",), "energy has weight 0 and is no label"),
        (("energy=-2078 config_energy_weight=0.0",), "energy has weight 0 and is no label"),
        (("energy=-2078 config_weight=low",), "config_weight: got 'low', wanted a number"),
        (("energy=-2078 config_type=IsolatedAtom",), "a free atom with 3 atoms"),
    ],
)
def test_labels_that_cannot_be_told_are_refused(
    comments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"in.xyz.*{message}"):
        read(tmp_path, "".join(frame(comment) for comment in comments))


def test_free_atoms_are_neutral_ground_states_once_per_element(tmp_path: Path) -> None:
    atom = "1\nconfig_type=IsolatedAtom {}\nO 0 0 0\n"
    path = tmp_path / "in.xyz"
    path.write_text(frame("energy=-2078") + atom.format("energy=-2041"))
    molecules, splits = read_labels(path, ENERGY.quantity)
    assert splits == [None, "isolated"] and molecules[1].spin_multiplicity == 3
    for changed, message in (
        (
            "energy=-2041 charge=-1 multiplicity=2",
            "charge -1 and multiplicity 2, wanted the neutral",
        ),
        ("energy=-2041 spin=1", "charge .0 and multiplicity 1, wanted the neutral"),
    ):
        path.write_text(atom.format(changed))
        with pytest.raises(ValueError, match=message):
            read_labels(path, ENERGY.quantity)
    path.write_text(2 * atom.format("energy=-2041"))
    with pytest.raises(ValueError, match=r"frame 1, .*a second free atom"):
        read_labels(path, ENERGY.quantity)


def test_a_database_keeps_the_charge_that_its_rows_hide(tmp_path: Path) -> None:
    with ase.db.connect(tmp_path / "oh.db") as rows:
        atoms = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
        atoms.calc = SinglePointCalculator(atoms, energy=-2055.0)
        rows.write(atoms, charge=-1)
    ((molecule,), _) = read_labels(tmp_path / "oh.db", ENERGY.quantity)
    assert (molecule.charge, molecule.spin_multiplicity) == (-1, 1)


@pytest.mark.parametrize("value", [np.array([HARTREE]), [HARTREE], HARTREE])
def test_arrays_of_one_and_units_of_metadata_are_read(value: Any, tmp_path: Path) -> None:
    units = {"_property_unit_dict": {"energy": "Hartree", "forces": "Hartree/Bohr"}}
    path = database(tmp_path, units, data={"energy": value, "forces": np.ones((3, 3))})
    ((molecule,), _) = read_labels(path, ENERGY.quantity)
    assert molecule.energy == HARTREE and molecule.forces is not None
    assert molecule.forces == pytest.approx(1 / BOHR_IN_ANGSTROM)
    with pytest.raises(ValueError, match=r"energy_unit: got eV, but the metadata .* say Hartree"):
        read_labels(path, ENERGY.quantity, LabelOptions(energy_unit="eV"))


def test_units_of_metadata_that_are_unknown_are_refused(tmp_path: Path) -> None:
    path = database(tmp_path, {"_property_unit_dict": {"energy": "Ry"}}, data={"energy": -152.0})
    with pytest.raises(ValueError, match="metadata: energy: unit 'Ry', wanted one of eV"):
        read_labels(path, ENERGY.quantity)
    (tmp_path / "rows.db").unlink()
    units = {"_property_unit_dict": {"dipole": "Debye"}, "_distance_unit": "Bohr"}
    path = database(tmp_path, units, data={"dipole": [[0, 0, 1]]})
    with pytest.raises(ValueError, match=r"metadata: dipole in Debye, wanted e\*Angstrom"):
        read_labels(path, DIPOLE.quantity)


def test_lengths_of_metadata_are_converted(tmp_path: Path) -> None:
    path = database(tmp_path, {"_distance_unit": "Bohr"}, data={"dipole": [[0, 0, 1]]})
    ((molecule,), _) = read_labels(path, DIPOLE.quantity)
    assert molecule.positions == pytest.approx(X * BOHR_IN_ANGSTROM)
    assert molecule.properties["dipole"].tolist() == [0, 0, 1]


def hydroxide() -> Atoms:
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"charge": -1, "key": "000123"})
    atoms.calc = SinglePointCalculator(atoms, energy=-2055.0, forces=np.eye(2, 3))
    return atoms


@pytest.mark.parametrize("name", ["a.traj", "a.json", "a.aselmdb"])
def test_files_of_ase_are_read_with_charges_and_labels(name: str, tmp_path: Path) -> None:
    atoms, path = hydroxide(), tmp_path / name
    if name == "a.traj":
        ase.io.write(path, [atoms])
    else:
        if name == "a.aselmdb":
            pytest.importorskip("ase_db_backends")
        with ase.db.connect(path) as rows:
            rows.write(atoms, data=atoms.info)
    ((molecule,), _) = read_labels(path, ENERGY.quantity)
    assert (molecule.key, molecule.charge, molecule.energy) == (
        "000123",
        -1,
        pytest.approx(-2055.0 / HARTREE_IN_EV),
    )
    assert molecule.forces is not None
    assert molecule.forces == pytest.approx(np.eye(2, 3) / HARTREE_IN_EV)
    assert read_xyz(path)[0][0].charge == -1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("old.traj", b"x", "not a sound ASE trajectory: InvalidULMFileError"),
        ("old.traj", b"", "not a sound ASE trajectory"),
        ("rows.json", b'{"Molecule": {}}', "not an ASE database"),
        ("rows.db", b"SQLite format 3\0", "not an ASE database"),
        ("rows.sqlite", b"SQLite format 3\0\xff", "SQLite database; if ASE wrote it, name it .db"),
        ("rows.h5", b"\x89HDF\r\n", "line 1: not extended XYZ: no UTF-8 text; .* an HDF5 file"),
    ],
)
def test_files_of_ase_that_are_none_are_refused(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    for read_it in (read_xyz, lambda path: read_labels(path, ENERGY.quantity)):
        with pytest.raises(ValueError, match=f"{name}.*{message}"):
            read_it(tmp_path / name)


def test_a_trajectory_may_be_cut_anywhere(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "whole.traj", [hydroxide(), Atoms("OHH", X)])
    content, path = (tmp_path / "whole.traj").read_bytes(), tmp_path / "cut.traj"
    for length in range(0, len(content), 40):
        path.write_bytes(content[:length])
        try:
            molecules, _ = read_xyz(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert [len(m.positions) for m in molecules] == [2, 3]
