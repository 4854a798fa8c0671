"""What is written to disk is read, by us and by plain webdataset; no damage passes in silence."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset

from helm_scale.data.format import codec, columns, manifest, shards
from helm_scale.data.format.manifest import Manifest, RejectedMolecule
from helm_scale.data.format.shards import ShardReader, ShardWriter, verify
from helm_scale.types import Molecule
from tests.data.labels import SVP, random_molecule, same, write_dataset
from tests.tolerances import SHARD_MAX

README = Path(__file__).parents[2] / "data_shards" / "README.md"


@pytest.fixture
def dataset(tmp_path: Path) -> Manifest:
    """Five molecules in three shards."""
    return write_dataset(tmp_path / "dataset")


def flip(path: Path, place: int, bit: int = 1) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


def test_a_block_of_two_oxygen_atoms_costs_as_much_as_the_work_on_their_pair() -> None:
    """Oxygen has 40 atomic orbitals in def2-TZVPD, of which hydrogen has 9."""
    numbers, places = np.full(5, 8), np.eye(5, 3)
    pairs = 5 * 6 / 2  # an atom is a pair with itself
    assert shards.cost_of(Molecule("o5", numbers, places), "def2-tzvpd") == 2 * pairs
    light = shards.cost_of(Molecule("h5", numbers // 8, places), "def2-tzvpd")
    assert light == pytest.approx(pairs * (1 + (9 / 40) ** 2), abs=1e-3)


def test_every_sample_is_read_at_random_and_is_what_was_written(dataset: Manifest) -> None:
    reader = ShardReader(dataset)
    for number in (3, 0, 4, 1, 2):
        assert same(reader.read(number), random_molecule(f"hof-{number}", number), SHARD_MAX)
    assert len(reader) == 5 and verify(dataset.folder) == []


def test_the_manifest_lists_what_the_dataset_holds(dataset: Manifest) -> None:
    assert [shard.name for shard in dataset.shards] == [
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.tar",
    ]
    assert dataset.split("test").tolist() == [4] and dataset.split("train").tolist() == [0, 1, 2, 3]
    assert dataset.labels == ("hamiltonian", "baseline_hamiltonian", "energy", "forces")
    assert dataset.method == SVP and dataset.elements == {"H": 5, "O": 5, "F": 5}
    assert (
        dataset.atoms.tolist() == [3] * 5
        and dataset.pairs.tolist() == [3] * 5
        and (dataset.cost > 6).all()
    )
    assert (
        dataset.hash == hashlib.sha256((dataset.folder / "manifest.json").read_bytes()).hexdigest()
    )
    with pytest.raises(ValueError, match="no split 'validation'; known: train, test"):
        dataset.split("validation")


def test_properties_of_molecules_are_kept_and_named() -> None:
    dataset_labels = codec.labels_of(random_molecule("hof", 0))
    value = np.array([0.1, -0.2, 1 / 3])
    molecule = replace(random_molecule("hof", 0), properties={"dipole": value})
    sample = codec.parse(codec.encode(molecule), "here")
    assert np.array_equal(sample.dense().properties["dipole"], value)
    assert sample.labels == codec.labels_of(molecule) == (*dataset_labels, "dipole")
    with pytest.raises(ValueError, match="molecule 'hof': dipole holds NaN or infinity"):
        codec.encode(replace(molecule, properties={"dipole": value * np.nan}))
    assert "properties" not in json.loads(codec.encode(random_molecule("hof", 0))["json"])


def test_plain_webdataset_reads_the_same_molecules(dataset: Manifest) -> None:
    urls = [str(dataset.folder / shard.name) for shard in dataset.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == dataset.key.tolist()
    for number, sample in enumerate(samples):
        molecule = random_molecule(f"hof-{number}", number)
        assert (
            sample["json"]["energy"] == molecule.energy
            and sample["json"]["charge"] == molecule.charge
        )
        assert np.array_equal(sample["npz"]["positions"], molecule.positions)


def test_the_reader_printed_in_the_readme_rebuilds_the_matrix(
    dataset: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[0]
    monkeypatch.chdir(dataset.folder.parent)
    names: dict = {}
    exec(code.replace("data_shards/quickstart", dataset.folder.name), names)
    assert np.array_equal(names["hamiltonian"], ShardReader(dataset).read(0).hamiltonian)


def test_the_same_labels_give_the_same_bytes(dataset: Manifest, tmp_path: Path) -> None:
    again = write_dataset(tmp_path / "again")
    files = sorted(path.name for path in dataset.folder.iterdir())
    assert files == sorted(path.name for path in again.folder.iterdir())
    assert all(
        (dataset.folder / name).read_bytes() == (again.folder / name).read_bytes() for name in files
    )


def test_a_truncated_shard_is_named(dataset: Manifest) -> None:
    path = dataset.folder / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[: int(dataset.offset[3]) + 700])
    reader = ShardReader(dataset)
    assert reader.read(2).key == "hof-2"
    with pytest.raises(
        ValueError, match=r"shard-000001.tar, key 'hof-3': shard is cut short: got 700 of \d+ bytes"
    ):
        reader.read(3)
    problems = verify(dataset.folder)
    assert len(problems) == 2 and all("shard-000001.tar" in problem for problem in problems)


def test_every_flipped_bit_of_a_sample_is_noticed(dataset: Manifest) -> None:
    path = dataset.folder / "shard-000000.tar"
    start, size = int(dataset.offset[1]), int(dataset.size[1])
    whole, reader = path.read_bytes(), ShardReader(dataset)
    places = np.random.default_rng(0).integers(start, start + size, size=40)
    for place in [start, start + 600, *places.tolist()]:
        flip(path, place)
        with pytest.raises(
            ValueError, match=r"shard-000000.tar, key 'hof-1': bytes have changed \(CRC-32"
        ):
            reader.read(1)
        assert reader.read(0).key == "hof-0"
        path.write_bytes(whole)
    flip(path, len(whole) - 1)
    assert [problem.split(": ")[1][:7] for problem in verify(dataset.folder)] == ["SHA-256"]


def test_a_damaged_single_sample_is_refused_or_unharmed(tmp_path: Path) -> None:
    path, molecule = tmp_path / "hof.tar", random_molecule("hof", 0)
    shards.write_sample(path, molecule)
    whole = path.read_bytes()
    for place in (
        np.random.default_rng(1).integers(1536, len(whole) - 1024, size=60).tolist()
    ):  # after the JSON, which has no checksum of its own
        flip(path, place, 1 << place % 8)
        try:
            assert same(shards.read_sample(path), molecule, SHARD_MAX)
        except ValueError as error:
            assert str(path) in str(error)
        path.write_bytes(whole)


def test_a_missing_manifest_or_shard_is_named(dataset: Manifest, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"nowhere/manifest.json: not found; .* helm-scale shards generate"
    ):
        Manifest.load(tmp_path / "nowhere")
    (dataset.folder / "shard-000002.tar").unlink()
    with pytest.raises(ValueError, match=r"shard-000002.tar: shard not found"):
        ShardReader(dataset)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"version": 1,\n "method"',
            '"version": 9,\n "method"',
            "version 9, wanted 'helm_scale shards' version 1",
        ),
        ('"licence"', '"license"', "manifest.json: damaged or foreign manifest: 'licence'"),
        ("]\n}", "", "damaged or foreign manifest"),
        ('"hof-3", "train"', '"hof-3", "train", 7', "damaged or foreign manifest"),
    ],
)
def test_a_damaged_manifest_is_named(dataset: Manifest, old: str, new: str, message: str) -> None:
    path = dataset.folder / "manifest.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        Manifest.load(dataset.folder)


def test_a_manifest_of_another_dataset_does_not_fit(dataset: Manifest) -> None:
    path = dataset.folder / "manifest.json"
    record = json.loads(path.read_text())
    record["samples"][0][0] = "water"
    path.write_text(json.dumps(record))
    with pytest.raises(
        ValueError, match=r"key 'water': got the members hof-0.json, hof-0.npz, wanted water.json"
    ):
        ShardReader(Manifest.load(dataset.folder)).read(0)
    record["samples"][0][0] = "hof-0"
    path.write_text(json.dumps(record | {"method": record["method"] | {"xc": "b3lyp"}}))
    with pytest.raises(
        ValueError, match=r"key 'hof-0' and the manifest differ: xc 'pbe' and 'b3lyp'"
    ):
        ShardReader(Manifest.load(dataset.folder)).read(0)


def test_a_large_manifest_keeps_its_rows_in_mapped_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = write_dataset(tmp_path / "small")
    monkeypatch.setattr(manifest, "LARGE", 3)
    large = write_dataset(tmp_path / "large")
    assert "hof-3" not in (large.folder / "manifest.json").read_text()
    for name in ("key", "splits", "shard", "offset", "size", "crc32", "atoms", "pairs", "cost"):
        assert getattr(large, name).tolist() == getattr(small, name).tolist()
    assert (
        isinstance(large.cost, np.memmap)
        and large.key[2] == "hof-2"
        and large.key[np.array([4, 1])].tolist() == ["hof-4", "hof-1"]
    )
    assert (
        same(ShardReader(large).read(3), random_molecule("hof-3", 3), SHARD_MAX)
        and verify(large.folder) == []
    )
    (column,) = (large.folder / "columns").glob("cost-*.npy")
    flip(column, column.stat().st_size - 1)
    with pytest.raises(
        ValueError, match=r"columns/cost-.*npy is missing or not the file that the manifest lists"
    ):
        Manifest.load(large.folder)
    column.unlink()
    with pytest.raises(ValueError, match=r"columns/cost-.*npy is missing"):
        Manifest.load(large.folder)


def test_keys_are_looked_at_whatever_their_number() -> None:
    good = np.array([f"molecule_{number}+x" for number in range(3000)], dtype="S")
    columns.check_keys(good)
    for place, key, message in (
        (7, b"a.b", "key 'a.b': wanted"),
        (2999, b"", "key '': wanted"),
        (5, good[2000], "'molecule_2000.x' occurs 2"),
    ):
        bad = good.copy()
        bad[place] = key
        with pytest.raises(ValueError, match=message):
            columns.check_keys(bad)


def test_a_shard_that_no_manifest_lists_is_reported(dataset: Manifest) -> None:
    (dataset.folder / "shard-000007.tar").write_bytes(
        (dataset.folder / "shard-000000.tar").read_bytes()
    )
    assert verify(dataset.folder) == [f"{dataset.folder / 'shard-000007.tar'}: not in the manifest"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (random_molecule("hof-0", 1), "key 'hof-0' occurs twice"),
        (random_molecule("hof.1", 1), "key 'hof.1': wanted 1 to 90 of .*no dot"),
        (random_molecule("a/b", 1), "key 'a/b'"),
        (random_molecule("", 1), "key ''"),
        (
            replace(random_molecule("hof-1", 1), method=replace(SVP, xc="b3lyp")),
            "key 'hof-1' and .* differ: xc 'b3lyp' and 'pbe'; one dataset holds one method",
        ),
        (
            replace(random_molecule("hof-1", 1), method=replace(SVP, program="PySCF 2.3.0")),
            "one dataset holds one method",
        ),
        (
            replace(random_molecule("hof-1", 1), forces=None),
            "key 'hof-1' and .* differ: labels .*'energy'.* and .*'energy', 'forces'",
        ),
        (
            replace(random_molecule("hof-1", 1), hamiltonian=np.full((33, 33), np.nan)),
            "molecule 'hof-1': hamiltonian holds NaN",
        ),
    ],
)
def test_a_dataset_takes_only_molecules_of_its_kind(
    second: Molecule, message: str, tmp_path: Path
) -> None:
    writer = ShardWriter(tmp_path, SVP, licence="CC0-1.0", source="test", molecules_per_shard=8)
    writer.write(random_molecule("hof-0", 0), "train")
    with pytest.raises(ValueError, match=message):
        writer.write(second, "train")
    finished = writer.close([RejectedMolecule("hof-1", "not written")])  # what was good is kept
    assert (
        finished.key.tolist() == ["hof-0"]
        and finished.rejected == (RejectedMolecule("hof-1", "not written"),)
        and verify(tmp_path) == []
    )


def test_a_finished_dataset_is_not_overwritten_and_an_empty_one_not_written(
    dataset: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="holds a finished dataset already"):
        ShardWriter(dataset.folder, SVP, licence="CC0-1.0", source="test", molecules_per_shard=8)
    with pytest.raises(ValueError, match="no molecule to write"):
        ShardWriter(
            tmp_path / "empty", SVP, licence="CC0-1.0", source="test", molecules_per_shard=8
        ).close()
    assert not (tmp_path / "empty" / "manifest.json").exists()
