"""Merged and repacked datasets hold the same samples; what does not match is not merged."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helm_scale import cli
from helm_scale.data.format.manifest import Manifest, RejectedMolecule
from helm_scale.data.format.shards import ShardReader, ShardWriter, verify
from helm_scale.data.tools import histograms
from helm_scale.data.tools.merge import concat, repack
from tests.data.labels import SVP, random_molecule, same, write_dataset
from tests.tolerances import SHARD_MAX

ROOT = Path(__file__).parents[2]


def write_other(
    folder: Path, key: str = "hof-9", xc: str = "pbe", licence: str = "MIT"
) -> Manifest:
    """A dataset of one molecule and one rejected."""
    method = replace(SVP, xc=xc)
    writer = ShardWriter(
        folder, method, licence=licence, source="more random numbers", molecules_per_shard=2
    )
    writer.write(replace(random_molecule(key, 9), method=method), "test")
    return writer.close([RejectedMolecule("hof-x", "made up")])


def test_joined_datasets_hold_all_samples_in_order(tmp_path: Path) -> None:
    first, second = write_dataset(tmp_path / "a"), write_other(tmp_path / "b")
    joined = concat([first.folder, second.folder], tmp_path / "new" / "joined")
    assert verify(joined.folder) == [] and joined.key.tolist() == [*first.key.tolist(), "hof-9"]
    assert (
        joined.splits.tolist() == ["train"] * 4 + ["test"] * 2
        and joined.licence == "CC0-1.0 AND MIT"
    )
    assert joined.source == "random numbers; more random numbers" and joined.elements == {
        "H": 6,
        "O": 6,
        "F": 6,
    }
    assert joined.rejected == (RejectedMolecule("hof-x", "made up"),) and len(joined.shards) == 4
    reader = ShardReader(joined)
    assert all(
        same(reader.read(place), random_molecule(f"hof-{seed}", seed), SHARD_MAX)
        for place, seed in enumerate((0, 1, 2, 3, 4, 9))
    )
    assert verify(first.folder) == [] and verify(second.folder) == []


def test_what_does_not_belong_together_is_not_joined(tmp_path: Path) -> None:
    first = write_dataset(tmp_path / "a")
    other, twice = write_other(tmp_path / "b", xc="blyp"), write_other(tmp_path / "c", key="hof-2")
    with pytest.raises(
        ValueError,
        match=r"b and .*a differ: xc 'blyp' and 'pbe'; one dataset holds one method",
    ):
        concat([first.folder, other.folder], tmp_path / "new")
    with pytest.raises(ValueError, match=r"c: key 'hof-2' occurs in .*a too"):
        concat([first.folder, twice.folder], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="holds a finished dataset already"):
        concat([twice.folder], first.folder)


@pytest.mark.parametrize("per_shard", [1, 3, 100])
def test_repacked_samples_keep_their_bytes(per_shard: int, tmp_path: Path) -> None:
    before = write_dataset(tmp_path / "a")
    after = repack(before.folder, tmp_path / "b", per_shard)
    assert len(after.shards) == -(-5 // per_shard) and verify(after.folder) == []
    for name in ("key", "splits", "size", "crc32", "atoms", "cost"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
    assert (after.method, after.licence, after.source, after.labels) == (
        before.method,
        before.licence,
        before.source,
        before.labels,
    )


def test_a_damaged_sample_is_not_repacked(tmp_path: Path) -> None:
    before = write_dataset(tmp_path / "a")
    path = before.folder / "shard-000000.tar"
    content = bytearray(path.read_bytes())
    content[int(before.offset[1]) + 2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"key 'hof-1': bytes have changed"):
        repack(before.folder, tmp_path / "b", 3)
    assert not (tmp_path / "b" / "manifest.json").exists()


def test_histograms_count_every_molecule_once(tmp_path: Path) -> None:
    dataset = Manifest.load(ROOT / "data_shards" / "quickstart")
    text = histograms.text(dataset)
    assert (
        text.startswith("atoms of each element: H 148  He 1  Li 1 ")
        and "atoms per molecule: min 2, median 3, mean 3.7, max 9" in text
    )
    blocks = text.split("per molecule: ")[1:]
    for block in blocks:
        counts = [int(line.split()[-1]) for line in block.splitlines() if line.startswith("  ")]
        assert sum(counts) == len(dataset) == 97
    assert (
        "  2  #" in blocks[0]
        and blocks[0].splitlines()[1].endswith(" 24")
        and int((dataset.atoms == 2).sum()) == 24
    )
    histograms.draw(dataset, tmp_path / "new" / "sizes.png")
    assert (tmp_path / "new" / "sizes.png").read_bytes().startswith(b"\x89PNG")


def test_a_dataset_of_one_size_has_histograms_too(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "a")
    bar = "#" * histograms.WIDTH
    wanted = f"atoms per molecule: min 3, median 3, mean 3.0, max 3\n  3  {bar}  5"
    assert wanted in histograms.text(dataset)
    histograms.draw(dataset, tmp_path / "a.png")


def test_the_command_divides_checks_repacks_joins_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: str) -> str:
        cli.main(["shards", *shlex.split(command)])
        return capsys.readouterr().out

    first, second = write_dataset(tmp_path / "a").folder, write_other(tmp_path / "b").folder
    with pytest.raises(
        SystemExit,
        match=r"leak within 0.01 Angstrom\n1 of 1 samples of test have a near-duplicate in train",
    ):
        run(f"leaks --folder {first} --tolerance 0.01")
    assert run(f"split --folder {first} --fractions '[0.4, 0.2, 0.4]'").startswith(
        "5 samples in 3 groups by composition\n"
    )
    assert run(f"leaks --folder {first}").startswith(
        f"{first}: no near-duplicates within 0.05 Angstrom"
    )
    repacked, joined, picture = tmp_path / "c", tmp_path / "d", tmp_path / "d.png"
    assert "2 shards" in run(f"repack --folder {first} --out {repacked} --molecules_per_shard 3")
    assert "6 molecules" in run(f"concat {joined} {repacked} {second}")
    said = run(f"info {joined} --png {picture}")
    assert "licence CC0-1.0 AND MIT" in said and "cost per molecule: min " in said
    assert picture.stat().st_size > 1000
    with pytest.raises(SystemExit, match="got nothing, wanted helm-scale shards concat OUT"):
        run("concat")
