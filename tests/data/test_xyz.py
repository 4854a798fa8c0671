"""Extended XYZ: the comment line is kept, and every mistake is named with file and frame."""

from pathlib import Path

import numpy as np
import pytest

from helm_scale.data.format.xyz import read_xyz

WATER = "3\n{}\nO 0.0 0.0 0.1\nH 0.76 0.0 0.68\nH -0.74 0.0 0.58\n"
HEADER = "Properties=species:S:1:pos:R:3 "


def written(tmp_path: Path, *comments: str) -> Path:
    """XYZ file of one water per comment line."""
    path = tmp_path / "in.xyz"
    path.write_text("".join(WATER.format(HEADER + comment) for comment in comments))
    return path


def test_the_comment_line_gives_key_charge_multiplicity_and_split(tmp_path: Path) -> None:
    molecules, splits = read_xyz(
        written(tmp_path, "key=a charge=-1 multiplicity=2 split=test", "charge=1 spin=2", "")
    )
    assert [m.key for m in molecules] == ["a", "frame-000001", "frame-000002"] and splits == [
        "test",
        "train",
        "train",
    ]
    assert [(m.charge, m.spin_multiplicity) for m in molecules] == [(-1, 2), (1, 2), (0, 1)]
    assert (
        molecules[0].atomic_numbers.tolist() == [8, 1, 1]
        and molecules[0].atomic_numbers.dtype == np.int64
    )
    assert np.array_equal(
        molecules[0].positions, [[0.0, 0.0, 0.1], [0.76, 0.0, 0.68], [-0.74, 0.0, 0.58]]
    )


def test_plain_xyz_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "plain.xyz"
    path.write_text(WATER.format("two words"))
    assert read_xyz(path)[0][0].charge == 0


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        (
            "charge=0.5",
            r"in.xyz, frame 1, line 6 \(frame-000001\): charge: got 0.5, wanted an integer",
        ),
        ("charge=minus", "charge: got 'minus', wanted an integer"),
        ("charge=nan", "charge: got nan, wanted an integer"),
        ('spin="1 3"', r"spin: got \[1, 3\], wanted an integer"),
        ("multiplicity=2 spin=3", r"frame 1, .*multiplicity=2, spin=3 contradict each other"),
        ("key=first", "in.xyz: key 'first' in frames 0 and 1"),
    ],
)
def test_a_wrong_comment_line_is_named(comment: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_xyz(written(tmp_path, "key=first", comment))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "in.xyz: empty; wanted at least one molecule"),
        ("\n \n", "in.xyz: empty"),
        ("not xyz\n", "in.xyz, frame 0, line 1: not extended XYZ"),
        (
            WATER.format("") + "3\n\nO 0 0 0\nH 0 0 1\n",
            "in.xyz, frame 1, line 10: not extended XYZ: got '', wanted 4 columns",
        ),
        (
            "2\n\nO 0 0 0\nO 0 0 0.01\n",
            "in.xyz, frame 0, line 1 .*atoms 0 and 1 coincide .distance 1.00e-02 Angstrom",
        ),
        ("2\n\nO 0 0 0\nO 0 0 nan\n", "in.xyz, frame 0, line 4: .*NaN"),
        ("1\n\nX 0 0 0\n", "in.xyz, frame 0, line 3: unknown chemical symbol"),
        ("0\n\n", "in.xyz"),
    ],
)
def test_a_file_without_molecules_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "in.xyz"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_xyz(path)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.xyz").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"in.xyz, line 2: not extended XYZ"):
        read_xyz(tmp_path / "in.xyz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.xyz: file not found; wanted extended XYZ"):
        read_xyz(tmp_path / "none.xyz")
