"""Published splits have their published sizes and members; files of other sizes are refused."""

import random
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from helm_scale.config import ImportConfig
from helm_scale.importers import md17, nabla_dft, omol_csh, published_splits, qh9
from tests.importers import layouts
from tests.importers.conftest import Labels

NONE = ImportConfig()


def sizes(splits: np.ndarray) -> list[int]:
    """Samples of train, validation and test."""
    return [int((splits == name).sum()) for name in published_splits.NAMES]


def rows(path: Path, columns: str, count: int, atoms: list[int] | None = None) -> Path:
    """An sqlite file of empty samples."""
    with sqlite3.connect(path) as database:
        database.execute(f"CREATE TABLE data ({columns})")
        width = columns.count(",") + 1
        fill = [None] * width
        values = ((number, atoms[number] if atoms else 0, *fill[2:]) for number in range(count))
        database.executemany(f"INSERT INTO data VALUES ({', '.join('?' * width)})", values)
    return path


def test_qh9_stable_by_permutation_and_by_size(tmp_path: Path) -> None:
    atoms = [20] * 104001 + [21] * 9000 + [22] * 8495 + [23] * 9335
    file = rows(tmp_path / "q.db", "id, N, Z, pos, Ham", 130831, atoms)
    source = qh9.Qh9Stable(file, NONE)
    by_permutation = source.splits("id")
    assert sizes(by_permutation) == [104664, 13083, 13084]
    order = np.random.RandomState(43).permutation(130831)
    assert (by_permutation[order[:104664]] == "train").all() and (
        by_permutation[order[-13084:]] == "test"
    ).all()
    by_size = source.splits("ood")
    assert (
        sizes(by_size) == [104001, 17495, 9335]
        and by_size[104001] == "validation"
        and by_size[-1] == "test"
    )
    with pytest.raises(ValueError, match="no published split 'geometry'; known: id, ood; or none"):
        source.splits("geometry")
    other = qh9.Qh9Stable(
        rows(tmp_path / "other.db", "id, N, Z, pos, Ham", 130831, [20] * 130831), NONE
    )
    with pytest.raises(
        ValueError,
        match=r"splits of \[130831, 0, 0\] samples, published are \[104001, 17495, 9335\]",
    ):
        other.splits("ood")


@pytest.mark.parametrize(
    ("count", "per_molecule", "geometry", "molecule"),
    [
        (99900, 100, [79920, 9990, 9990], [79900, 9900, 10100]),
        (299800, 100, [239840, 29980, 29980], [239800, 29900, 30100]),
        (143940, 60, [119950, 11995, 11995], [115140, 14340, 14460]),
    ],
)
def test_qh9_dynamic_by_geometry_and_by_molecule(
    count: int, per_molecule: int, geometry: list[int], molecule: list[int]
) -> None:
    assert qh9.GEOMETRIES_PER_MOLECULE[count] == per_molecule
    by_geometry = qh9.divide_geometries(count // per_molecule, per_molecule)
    by_molecule = qh9.divide_molecules(count // per_molecule, per_molecule)
    assert sizes(by_geometry) == geometry and sizes(by_molecule) == molecule
    second = by_geometry[per_molecule : 2 * per_molecule]
    order = np.random.RandomState(2 * per_molecule - 1).permutation(per_molecule)
    assert (second[order[: geometry[0] * per_molecule // count]] == "train").all() and second[
        order[-1]
    ] == "test"
    random.seed(43)
    molecules = list(range(count // per_molecule))
    random.shuffle(molecules)
    assert all(
        len(set(by_molecule[start : start + per_molecule])) == 1
        for start in range(0, count, 10 * per_molecule)
    )
    assert (
        by_molecule[molecules[0] * per_molecule] == "train"
        and by_molecule[molecules[-1] * per_molecule] == "test"
    )


def test_a_dynamic_file_of_another_size_is_refused(tmp_path: Path) -> None:
    file = rows(tmp_path / "qd.db", "a, b, c, d, e, f, g, h, i, Ham", 300)
    with pytest.raises(
        ValueError, match="300 geometries, published editions have 99900, 143940, 269800, 299800"
    ):
        qh9.Qh9Dynamic(file, NONE).splits("geometry")
    with pytest.raises(
        ValueError, match="table 'data' has 5 columns, wanted 10 of QH9Dynamic; is it QH9Stable"
    ):
        qh9.Qh9Dynamic(rows(tmp_path / "q.db", "id, N, Z, pos, Ham", 1), NONE)


def test_md17_by_permutation(labels: Labels, tmp_path: Path) -> None:
    assert {formula: sum(counts) for formula, counts in md17.SIZES.items()} == {
        "H2O": 4900, "C2H6O": 30000, "C3H4O2": 26978, "C4H4N2O2": 30000,
    }  # fmt: skip
    file = layouts.write_md17(tmp_path / "m.db", [labels("water", "pbe", "def2-svp")])
    with pytest.raises(
        ValueError,
        match=r"m.db: 1 samples, published are 4900; get the file anew, or .* --split none",
    ):
        md17.Md17(file, NONE).splits("published")
    found = published_splits.divide(np.random.RandomState(42).permutation(4900), md17.SIZES["H2O"])
    assert (
        sizes(found) == [500, 500, 3900]
        and found[np.random.RandomState(42).permutation(4900)[0]] == "train"
    )


def test_files_that_are_a_split_as_a_whole(labels: Labels, tmp_path: Path) -> None:
    file = layouts.write_omol(tmp_path / "o.h5", [labels("hydride", "pbe", "def2-tzvpd")])
    with pytest.raises(ValueError, match="split test-1k: 1 samples, published are 1008"):
        omol_csh.OmolCsh(file, NONE).splits("test-1k")
    file = layouts.write_nabla_dft(tmp_path / "n.db", [labels("water", "pbe", "def2-svp")])
    source = nabla_dft.NablaDft(file, NONE)
    assert source.splits("test").tolist() == ["test"]
    with pytest.raises(ValueError, match="split train-2k: 1 samples, published are 5768"):
        source.splits("train-2k")


def test_files_that_are_something_else_are_named(labels: Labels, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be one " * 10)
    for kind in (md17.Md17, qh9.Qh9Stable, qh9.Qh9Dynamic, nabla_dft.NablaDft):
        with pytest.raises(ValueError, match="text: not a sound sqlite file"):
            kind(tmp_path / "text", NONE)
        with pytest.raises(ValueError, match="none: file not found"):
            kind(tmp_path / "none", NONE)
    with pytest.raises(ValueError, match="text: not a sound HDF5 file"):
        omol_csh.OmolCsh(tmp_path / "text", NONE)
    file = layouts.write_qh9_stable(tmp_path / "q.db", [labels("water", "b3lyp5", "def2-svp")])
    with pytest.raises(
        ValueError,
        match=r"table 'systems' has the columns none, wanted id, numbers, positions, data too",
    ):
        md17.Md17(file, NONE)


def test_a_name_that_contradicts_the_attributes_is_refused(labels: Labels, tmp_path: Path) -> None:
    import h5py

    file = layouts.write_omol(tmp_path / "o.h5", [labels("hydride", "pbe", "def2-tzvpd")])
    with h5py.File(file, "r+") as content:
        content["batch_0/hydride.sub/mol0_0_1"].attrs["charge"] = 1
    source = omol_csh.OmolCsh(file, NONE)
    with pytest.raises(
        ValueError, match="attributes say charge 1, spin 1, its name says charge 0, multiplicity 1"
    ):
        source.read(source.addresses()[0])


def test_keys_of_groups_are_plain_and_unique() -> None:
    long = "a/" * 60 + "mol_0_1"
    keys = [
        omol_csh.key_of(name) for name in ("plain_0_1", "a/b.c_0_1", "a_b_c_0_1", long, "b" + long)
    ]
    assert (
        keys[0] == "plain_0_1"
        and len(set(keys)) == 5
        and all(len(key) <= 90 and "." not in key and "/" not in key for key in keys)
    )
