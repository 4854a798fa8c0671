"""Every frame of a file is read, or the line that does not fit is named."""

import gzip
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from helm_scale.data.format.xyz import read_xyz
from helm_scale.reading.frames import read_frames

ATOMS = "O 0 0 0.12\nH 0 0.76 -0.47\nH 0 -0.76 -0.47\n"
WATER = "3\nProperties=species:S:1:pos:R:3 key={}\n" + ATOMS
SDF = """
     made by hand

  3  2  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.1200 O   0  0
    0.0000    0.7600   -0.4700 H   0  0
    0.0000   -0.7600   -0.4700 H   0  0
  1  2  1  0
  1  3  1  0
M  END
$$$$
"""


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "in.xyz"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: "\n\n" + text,
        lambda text: text.replace("3\nP", "\n \n# a remark\n3\nP"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text + "\n\n",
        lambda text: gzip.compress(text.encode()),
    ],
    ids=["plain", "blank line first", "blank lines", "no newline", "Windows", "mark", "gzip"],
)
def test_three_waters_are_three(change, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    text = "".join(WATER.format(key) for key in ("w0", "000123", "1e-3"))
    molecules, _ = read_xyz(written(tmp_path, change(text)))
    assert [m.key for m in molecules] == ["w0", "000123", "1e-3"]  # text stays text
    for molecule in molecules:
        assert molecule.atomic_numbers.tolist() == [8, 1, 1]
        assert molecule.positions.tolist() == [[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]]


@pytest.mark.parametrize(
    ("comment", "identity"),
    [
        ("Properties=species:S:1:pos:R:3 key=a total_charge=-2", (-2, 1)),
        ("Properties=species:S:1:pos:R:3 key=b Charge=-2", (-2, 1)),
        ("CSD_code = X | q = -2 | S = 0", (-2, 1)),
        ("-2 1", (-2, 1)),
        ("1 2", (1, 2)),
        ("charge=1e0 spin=2", (1, 2)),
        ("water, charge unknown", (0, 1)),
    ],
)
def test_the_comment_line_gives_the_charge(
    comment: str, identity: tuple[int, int], tmp_path: Path
) -> None:
    ((molecule,), _) = read_xyz(written(tmp_path, f"3\n{comment}\n{ATOMS}"))
    assert (molecule.charge, molecule.spin_multiplicity) == identity


@pytest.mark.parametrize("first", ["D", "T", "1", "h"])
def test_isotopes_and_atomic_numbers_are_read(first: str, tmp_path: Path) -> None:
    ((molecule,), _) = read_xyz(written(tmp_path, f"2\n\n{first} 0 0 0\n17 0 0 1.3\n"))
    assert molecule.atomic_numbers.tolist() == [1, 17]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SDF, "frame 0, line 2: .*wanted the number of atoms; this looks like an SDF"),
        ("\n   * O   R   C   A *\n", "frame 0, line 2: .*this looks like an output of ORCA"),
        ("<!DOCTYPE html>\n<html></html>\n", "frame 0, line 1: .*HTML page"),
        ("data_x\n_cell_length_a 4\n", "frame 0, line 1: .*CIF"),
        ("x\nSP RPBE def2SVP\nNumber of basis functions I 24\n", "checkpoint file of Gaussian"),
        ("[Molden Format]\n[Atoms] AU\n", "line 1: .*this looks like a Molden file"),
        ('{"Molecule": {"Atoms": []}}', "line 1: .*this looks like JSON of ORCA"),
        ("@<TRIPOS>MOLECULE\n", "line 1: .*this looks like a mol2 file"),
        (b"PK\x03\x04abc", "line 1: .*this looks like a zip or npz file"),
        (" \n\n", ": empty; wanted at least one"),
        (WATER.format("a") + "H 0 0 1\n", "frame 1, line 6: .*got 'H 0 0 1', wanted the number"),
        (WATER.format("a") + WATER.format("b")[:-20], "frame 1, line 6: .*the file ends"),
        (WATER.format("a").replace("3\n", "4\n", 1), "frame 0, line 6: .*got ''"),
        ("4\n\n" + ATOMS + WATER.format("b"), "frame 0, line 6: .*got '3', wanted 4 columns"),
        ("1\n\nO 0 0 -4.7*^-6\n", r"frame 0, line 3: got '-4.7\*\^-6'.*QM9"),
        ("1\n\nO 0 0 -4.7D-01\n", "frame 0, line 3: got '-4.7D-01'.*Fortran"),
        ("1\n\nO 0 0 1_0\n", "frame 0, line 3: got '1_0'"),
        ("1\n\nO1 0 0 0\n", "frame 0, line 3: unknown chemical symbol 'O1'"),
        ("1\n\n119 0 0 0\n", "frame 0, line 3: unknown chemical symbol '119'"),
        ("0\n\n", "frame 0, line 1: no atoms"),
        ("1\n\nHe 0 0 1e300\n", r"frame 0, line 1 .*a position is 1.0e\+300 Angstrom"),
        ('1\na="b c\nO 0 0 0\n', "frame 0, line 2: a: a quote or bracket is not closed"),
        ("1\ncharge=0 charge=-2\nO 0 0 0\n", "frame 0, line 2: charge stands there twice"),
        ("1\nProperties=species:S:1\nO 0 0 0\n", "frame 0, line 2: Properties="),
        ("1\nProperties=species:S:1:pos:R:3\nO 0 0 0 1\n", "line 3: .*wanted 4 columns"),
        (b"\x1f\x8bnothing", "not a sound gzip file"),
    ],
)
def test_the_line_that_does_not_fit_is_named(
    text: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"in.xyz.*{message}"):
        read_xyz(written(tmp_path, text))


@pytest.mark.parametrize(
    "cell",
    ['Lattice="4 0 0 0 4 0 0 0 4"', 'pbc="T F F"', 'Lattice="4 0 0 0 4 0 0 0 4" pbc="T T T"'],
)
def test_a_periodic_cell_is_refused_or_taken_without_images(
    cell: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, f"3\n{cell}\n{ATOMS}" * 2)
    with pytest.raises(ValueError, match=r"frame 0, line 1 .*periodic cell"):
        read_xyz(path)
    assert len(read_xyz(path, ignore_cell=True)[0]) == 2
    assert [r.getMessage() for r in caplog.records] == [
        f"{path}: 2 periodic cells, taken without their images"
    ]
    path = written(tmp_path, f'3\nLattice="4 0 0 0 4 0 0 0 4" pbc="F F F"\n{ATOMS}')
    assert len(read_xyz(path)[0]) == 1


def test_what_ase_writes_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    atoms = Atoms("OHH", rng.normal(size=(3, 3)), info={"a": 1.5, "b": [1, 2], "words": "x y"})
    atoms.info |= {"tensor": np.eye(3), "table": {"q": [1]}, "yes": True, "small": 1e-1}
    atoms.arrays["vectors"] = rng.normal(size=(3, 3))
    ase.io.write(tmp_path / "in.xyz", atoms, format="extxyz")
    (frame,) = read_frames(tmp_path / "in.xyz")
    assert np.allclose(frame.positions, atoms.positions, atol=1e-8)
    assert np.allclose(frame.columns["vectors"], atoms.arrays["vectors"], atol=1e-8)
    assert frame.info["a"] == 1.5 and frame.info["b"] == [1, 2]
    assert frame.info["words"] == "x y" and frame.info["yes"] is True
    assert frame.info["table"] == {"q": [1]} and frame.info["small"] == 0.1
    assert np.array_equal(np.ravel(frame.info["tensor"]), np.eye(3).ravel())


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ('lattice="9 0 0 0 9 0 0 0 9"', "got a periodic cell"),
        ("PBC=T,T,T", "got a periodic cell"),
        (
            "units=bohr",
            r"line 2: units=bohr: wanted positions in Angstrom; multiply them by 0\.529",
        ),
        ("length_unit=Bohr", "wanted positions in Angstrom"),
        ("twoS=2", "did you mean multiplicity=3"),
    ],
)
def test_a_comment_line_that_would_be_overlooked_is_refused(
    comment: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read_xyz(written(tmp_path, f"3\n{comment}\n{ATOMS}"))
    read_xyz(written(tmp_path, f'3\nunits=Angstrom pbc="F F F"\n{ATOMS}'))


@pytest.mark.parametrize(
    ("column", "oxygen", "message"),
    [
        ("charges", "-1.0", r"charges of the atoms sum to -1\.00"),
        ("magmoms", "2.0", r"magnetic moments of the atoms sum to 2\.00"),
    ],
)
def test_charges_and_moments_that_a_program_found_must_not_contradict(
    column: str, oxygen: str, message: str, tmp_path: Path
) -> None:
    first, *others = ATOMS.splitlines()
    rows = "\n".join([f"{first} {oxygen}", *(f"{line} 0.0" for line in others)])
    text = f"3\nProperties=species:S:1:pos:R:3:{column}:R:1\n{rows}\n"
    with pytest.raises(ValueError, match=message):
        read_xyz(written(tmp_path, text))
    assert len(read_xyz(written(tmp_path, text.replace(f" {oxygen}\n", " 0.0\n")))[0]) == 1
