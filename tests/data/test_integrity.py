"""Damage that WebDataset passes in silence is caught by name.

It stops the run, or is skipped, counted and listed.
"""

import io
import json
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import webdataset

from helm_scale import commands, config
from helm_scale.config import ModelConfig
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader, sample_bytes, verify
from helm_scale.data.loading.quarantine import Quarantine, SkippedSample
from helm_scale.data.loading.stream import BatchMaker, Stream
from tests.data.labels import random_molecule, write_dataset
from tests.pretraining import launching

MODEL = ModelConfig(basis="def2-svp", parity="full")


def flip(dataset: Manifest, shard: Path, start: int, size: int) -> None:
    """One bit of the matrices."""
    content = bytearray(shard.read_bytes())
    content[start + size // 2] ^= 4
    shard.write_bytes(content)


def bad_header(dataset: Manifest, shard: Path, start: int, size: int) -> None:
    """The tar header of a sample in mid-file."""
    content = bytearray(shard.read_bytes())
    content[start : start + 512] = b"\xff" * 512
    shard.write_bytes(content)


def truncate(dataset: Manifest, shard: Path, start: int, size: int) -> None:
    """Everything from the middle of a sample on."""
    shard.write_bytes(shard.read_bytes()[: start + size // 2])


def remove(dataset: Manifest, shard: Path, start: int, size: int) -> None:
    """The whole file."""
    shard.unlink()


def rewritten(dataset: Manifest, shard: Path, start: int, *, molecule_bytes: bytes) -> None:
    """Another, shorter content for a sample, with its row of the manifest made to fit."""
    content = shard.read_bytes()
    shard.write_bytes(content[:start] + molecule_bytes + content[start + len(molecule_bytes) :])
    path = dataset.folder / "manifest.json"
    record = json.loads(path.read_text())
    for row in record["samples"]:
        if row[0] == "hof-1":
            row[4], row[5] = len(molecule_bytes), zlib.crc32(molecule_bytes)
    path.write_text(json.dumps(record))


def partial(dataset: Manifest, shard: Path, start: int, size: int) -> None:
    """The JSON member alone."""
    rewritten(dataset, shard, start, molecule_bytes=shard.read_bytes()[start : start + 1024])


def foreign(dataset: Manifest, shard: Path, start: int, size: int) -> None:
    """Another molecule in its place."""
    other = sample_bytes(random_molecule("hof-7", 1))
    rewritten(dataset, shard, start, molecule_bytes=other)


def other_method(dataset: Manifest, shard: Path, start: int, size: int) -> None:
    """The same molecule with labels of another functional."""
    molecule = random_molecule("hof-1", 1)
    assert molecule.method is not None
    other = sample_bytes(replace(molecule, method=replace(molecule.method, xc="pbx")))
    rewritten(dataset, shard, start, molecule_bytes=other)


DAMAGES: dict[Callable[..., None], str] = {
    flip: "bytes have changed",
    bad_header: "bytes have changed",
    truncate: "cut short",
    remove: "shard not found",
    partial: "got the members hof-1.json, wanted",
    foreign: r"got the members hof-7.json, hof-7.npz, wanted hof-1.json",
    other_method: "manifest and shard do not belong together",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_named_or_skipped_and_never_used(
    damage: Callable[..., None], tmp_path: Path
) -> None:
    dataset = write_dataset(tmp_path / "dataset", 6)
    shard = dataset.folder / "shard-000000.tar"
    damage(dataset, shard, int(dataset.offset[1]), int(dataset.size[1]))
    dataset = Manifest.load(dataset.folder)
    message = f"shard-000000.tar.*{DAMAGES[damage]}"
    with pytest.raises(ValueError, match=message):
        ShardReader(dataset).read(1)
    lost = ["hof-0", "hof-1"] if damage is remove else ["hof-1"]
    quarantine = Quarantine(0.5, tmp_path / "run" / "quarantine.jsonl")
    reader = ShardReader(dataset, missing=True)
    for _ in range(2):  # a second epoch skips the same, and lists nothing twice
        for workers in (0, 1):
            stream = Stream(
                BatchMaker(reader, MODEL, skip=True),
                workers=workers,
                quarantine=quarantine,
            )
            keys = [key for batch in stream.batches([[0, 1, 2], [3, 4, 5]]) for key in batch.keys]
            assert keys == [f"hof-{n}" for n in range(6) if f"hof-{n}" not in lost]
    listed = [
        json.loads(line)
        for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    ]
    assert [one["sample"] for one in listed] == list(range(2 - len(lost), 2))
    assert all("shard-000000.tar" in one["reason"] for one in listed)


def test_plain_webdataset_passes_some_of_it_in_silence(tmp_path: Path) -> None:
    """Why the checks are there: without the manifest these losses make no sound."""
    dataset = write_dataset(tmp_path / "dataset", 6, per_shard=6)
    shard = dataset.folder / "shard-000000.tar"
    bad_header(dataset, shard, int(dataset.offset[2]), int(dataset.size[2]))
    assert len(list(webdataset.WebDataset(str(shard), shardshuffle=False))) == 2
    assert [problem for problem in verify(dataset.folder) if "SHA-256" in problem]


@pytest.mark.parametrize(
    ("row", "key", "message"),
    [
        (1, "hof-0", "key 'hof-0' occurs 2 times"),
        (1, "hof.1", "key 'hof.1': wanted 1 to 90 of"),
        (0, "", "key '': wanted 1 to 90"),
    ],
)
def test_duplicate_and_dotted_keys_of_a_manifest_are_named(
    row: int, key: str, message: str, tmp_path: Path
) -> None:
    path = write_dataset(tmp_path / "dataset").folder / "manifest.json"
    record = json.loads(path.read_text())
    record["samples"][row][0] = key
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        Manifest.load(path.parent)


def test_a_duplicate_key_inside_a_shard_is_found_by_verify(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    path = dataset.folder / "shard-000002.tar"
    again = io.BytesIO()
    with tarfile.open(fileobj=again, mode="w") as tar, tarfile.open(path) as old:
        for member in [*old.getmembers(), *old.getmembers()]:
            tar.addfile(member, old.extractfile(member))
    path.write_bytes(again.getvalue())
    assert [problem for problem in verify(dataset.folder) if "shard-000002.tar: got" in problem]


def test_a_tolerated_share_is_a_limit(tmp_path: Path) -> None:
    quarantine = Quarantine(0.01, tmp_path / "list.jsonl")
    quarantine.note(500, [SkippedSample(n, f"sample {n}") for n in range(10)])
    with pytest.raises(
        ValueError,
        match=r"sample 10: 11 of 510 samples read were skipped, more than data\.quarantine",
    ):
        quarantine.note(10, [SkippedSample(10, "sample 10")])
    rare = Quarantine(0.01, tmp_path / "rare.jsonl")
    for step in range(5000):
        rare.note(1, [SkippedSample(step, "one")] if step % 120 == 0 else [])


def test_training_stops_at_damage_or_goes_on_without_it(tmp_path: Path) -> None:
    data = launching.write_dataset(tmp_path / "data")
    dataset = Manifest.load(data)
    lost = int(dataset.split("train")[4])
    flip(
        dataset,
        data / dataset.shards[dataset.shard[lost]].name,
        int(dataset.offset[lost]),
        int(dataset.size[lost]),
    )

    def run(out: Path, **changes: object) -> str:
        return commands.pretrain(
            config.load(
                config.PretrainConfig, launching.flags(data, out, training__steps=4, **changes)
            )
        )

    with pytest.raises(ValueError, match=f"key '{dataset.key[lost]}': bytes have changed"):
        run(tmp_path / "stopped")
    assert "finished, 4 steps" in run(
        tmp_path / "run", data__damaged="quarantine", execution__workers=1
    )
    (line,) = (tmp_path / "run" / "quarantine-0.jsonl").read_text().splitlines()
    assert json.loads(line)["sample"] == lost and dataset.key[lost] in json.loads(line)["reason"]


def test_a_dataset_edited_between_runs_is_refused_unless_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = launching.write_dataset(tmp_path / "data")

    def run(**changes: object) -> str:
        return commands.pretrain(
            config.load(
                config.PretrainConfig,
                launching.flags(data, tmp_path / "run", training__steps=1, **changes),
            )
        )

    run()
    path = data / "manifest.json"
    path.write_text(path.read_text().replace('"source": "made up"', '"source": "made up anew"'))
    with pytest.raises(
        ValueError, match=r"checkpoint of other settings or data: data\.manifest_sha256"
    ):
        run()
    run(allow_config_change=True)
    assert "accepted change: data.manifest_sha256" in caplog.text
