"""Shards from elsewhere are whole or absent, whoever is killed.

The cache is bounded, and takes no shard from under a reader.
"""

import contextlib
import functools
import hashlib
import http.server
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helm_scale.config import DataConfig, ModelConfig
from helm_scale.data.format import cache, retries
from helm_scale.data.format.manifest import Manifest, ShardRecord
from helm_scale.data.loading.dataset import Dataset
from helm_scale.data.loading.quarantine import Quarantine
from helm_scale.data.loading.stream import BatchMaker, Stream
from tests.data.labels import random_molecule, same, write_dataset
from tests.tolerances import SHARD_MAX

SIZE = 1 << 20


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries in quick succession."""
    monkeypatch.setattr(retries, "PAUSES", (0.01,) * 6)


@pytest.fixture
def dataset(tmp_path: Path) -> Manifest:
    """Five molecules in three shards."""
    return write_dataset(tmp_path / "dataset")


@pytest.fixture
def server(dataset: Manifest) -> Iterator[str]:
    """The dataset on a local HTTP server."""
    handler = functools.partial(QuietHandler, directory=str(dataset.folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Says nothing about requests; the first `cut` of them are answered with half of the file."""

    cut = 0

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send the file, or half of it and no more."""
        content = source.read()
        half = QuietHandler.cut > 0
        QuietHandler.cut -= half
        outputfile.write(content[: len(content) // 2] if half else content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def opened(address: str, folder: Path, gigabytes: float = 1.0) -> Dataset:
    """A remote dataset with a cache."""
    return Dataset.open(DataConfig(path=address, cache=str(folder), cache_gb=gigabytes))


@pytest.fixture
def bucket(dataset: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The dataset as a bucket, which a command named `aws` reads as that of AWS would."""
    command = tmp_path / "bin" / "aws"
    command.parent.mkdir()
    asked_as_expected = '[ "$1 $2 $3 $5" = "s3 cp --only-show-errors -" ]'
    command.write_text(f'#!/bin/sh\n{asked_as_expected} && cat "{tmp_path}/${{4#s3://}}"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return f"s3://{dataset.folder.relative_to(tmp_path)}"


@pytest.mark.parametrize("scheme", ["file", "pipe", "http", "s3"])
def test_remote_samples_are_those_of_the_dataset(
    scheme: str, dataset: Manifest, server: str, bucket: str, tmp_path: Path
) -> None:
    address = {
        "file": f"file:{dataset.folder}",
        "pipe": f"pipe:cat {dataset.folder}/{{name}}",
        "http": server,
        "s3": bucket,
    }[scheme]
    remote = opened(address, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.tar")), "shards come when they are needed"
    for number in (3, 0, 4, 1, 2):
        assert same(remote.read(number), random_molecule(f"hof-{number}", number), SHARD_MAX)
    assert remote.hash == dataset.hash
    shutil.rmtree(dataset.folder)
    assert remote.read(0).key == "hof-0", "a second reading needs no source"


def test_a_pipe_needs_a_place_for_the_name() -> None:
    with pytest.raises(ValueError, match=r"data\.path: got 'pipe:cat x', wanted \{name\}"):
        cache.RemoteFolder("pipe:cat x")
    assert not cache.is_remote("data_shards/quickstart") and cache.is_remote("https://a/b")


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing"])
def test_what_arrives_damaged_is_named_and_not_kept(
    damage: str, dataset: Manifest, tmp_path: Path
) -> None:
    path = dataset.folder / "shard-000001.tar"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-600])
    remote = opened(f"pipe:cat {dataset.folder}/{{name}}", tmp_path / "cache")
    assert remote.read(0).key == "hof-0"
    message = (
        "cannot be fetched" if damage == "missing" else r"got \d+ bytes with SHA-256 .* wanted"
    )
    error = ConnectionError if damage == "missing" else ValueError
    with pytest.raises(error, match=f"shard-000001.tar: {message}"):
        remote.read(2)
    assert [found.name for found in (tmp_path / "cache").rglob("shard-*")] == ["shard-000000.tar"]


@pytest.mark.parametrize("scheme", ["pipe", "s3", "gs", "http"])
@pytest.mark.parametrize("how", ["nothing", "half", "half, and all seems well"])
def test_a_network_that_hiccups_costs_time_and_no_sample(
    scheme: str,
    how: str,
    dataset: Manifest,
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every file fails twice before it comes."""
    code = 0 if "well" in how else 1
    half = 'head -c 700 "$FILE"; ' if "half" in how else ""
    calls = f'echo >> "{tmp_path}/calls-$(basename "$FILE")"'
    wrong = f'[ $(wc -l < "{tmp_path}/calls-$(basename "$FILE")") -lt 3 ]'
    script = f'{calls}; if {wrong}; then {half}exit {code}; fi; cat "$FILE"'
    (tmp_path / "bin").mkdir()
    for command, place in (("aws", "${4#s3:/}"), ("gsutil", "${2#gs:/}"), ("fetch", "$1")):
        (tmp_path / "bin" / command).write_text(f'#!/bin/sh\nFILE="{place}"\n{script}\n')
        (tmp_path / "bin" / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(QuietHandler, "cut", 2 if scheme == "http" else 0)
    address = {
        "pipe": f"pipe:fetch {dataset.folder}/{{name}}",
        "s3": f"s3:/{dataset.folder}",
        "gs": f"gs:/{dataset.folder}",
        "http": server,
    }[scheme]
    if "well" in how and scheme != "http":  # a manifest has no sum that would tell
        for path in [dataset.folder / "manifest.json", *(dataset.folder / "columns").glob("*")]:
            (tmp_path / f"calls-{path.name}").write_text("\n" * 2)
    remote = opened(address, tmp_path / "cache")
    monkeypatch.setattr(QuietHandler, "cut", 2 if scheme == "http" else 0)
    assert same(remote.read(2), random_molecule("hof-2", 2), SHARD_MAX)
    assert caplog.text.count("once more in 0 s") >= 2


def test_what_cannot_be_reached_stops_a_run_that_skips_damage(
    dataset: Manifest, tmp_path: Path
) -> None:
    """To skip it would train on what the network happened to give."""
    remote = Dataset.open(
        DataConfig(
            path=f"pipe:cat {dataset.folder}/{{name}}",
            cache=str(tmp_path / "cache"),
            damaged="quarantine",
        )
    )
    (dataset.folder / "shard-000001.tar").unlink()
    for workers in (0, 1):
        quarantine = Quarantine(0.9, tmp_path / "quarantine.jsonl")
        make = BatchMaker(remote, ModelConfig(basis="def2-svp", parity="full"), skip=True)
        batches = Stream(make, workers=workers, quarantine=quarantine).batches([[0], [2]])
        assert next(batches).keys == ("hof-0",)
        with pytest.raises(ConnectionError, match=r"shard-000001.tar: cannot be fetched"):
            next(batches)
    assert not (tmp_path / "quarantine.jsonl").exists()


def test_what_a_bucket_lacks_is_named(dataset: Manifest, bucket: str, tmp_path: Path) -> None:
    (dataset.folder / "shard-000001.tar").unlink()
    with pytest.raises(
        ConnectionError, match=r"aws s3 cp .*shard-000001.tar' -: cannot be fetched"
    ):
        opened(bucket, tmp_path / "cache").read(2)


def test_a_manifest_cannot_send_the_cache_elsewhere(dataset: Manifest) -> None:
    path = dataset.folder / "manifest.json"
    path.write_text(path.read_text().replace("shard-000001.tar", "../x;rm.tar"))
    with pytest.raises(ValueError, match=r"shard '\.\./x;rm\.tar': wanted a plain file name"):
        Manifest.load(dataset.folder)


def shards(folder: Path, count: int) -> list[ShardRecord]:
    """Files of random bytes."""
    folder.mkdir()
    found = []
    for number in range(count):
        content = np.random.default_rng(number).bytes(SIZE)
        (folder / f"s{number}.tar").write_bytes(content)
        found.append(ShardRecord(f"s{number}.tar", SIZE, hashlib.sha256(content).hexdigest()))
    return found


def cached(tmp_path: Path, limit: float, slow: str = "") -> cache.CachedShards:
    """A cache of so many shards; `slow` goes before the copying."""
    (tmp_path / "cache" / "set").mkdir(parents=True, exist_ok=True)
    return cache.CachedShards(
        cache.RemoteFolder(f"pipe:{slow}cat {tmp_path}/source/{{name}}"),
        tmp_path / "cache" / "set",
        int(limit * SIZE),
    )


def whole(found: cache.CachedShards, record: ShardRecord) -> bool:
    """Whether the cache gives the right bytes."""
    memory = bytearray(SIZE)
    return (
        found.read_into(record, 0, memoryview(memory)) == SIZE
        and hashlib.sha256(memory).hexdigest() == record.sha256
    )


def held(folder: Path) -> list[str]:
    """Finished shards in the cache."""
    return sorted(path.name for path in folder.rglob("*.tar"))


def test_the_cache_stays_within_its_limit_and_drops_what_was_read_longest_ago(
    tmp_path: Path,
) -> None:
    records, found = shards(tmp_path / "source", 5), cached(tmp_path, 3.5)
    for number in (0, 1, 2):
        assert whole(found, records[number])
        time.sleep(0.02)
    assert whole(found, records[0]) and held(tmp_path / "cache") == ["s0.tar", "s1.tar", "s2.tar"]
    time.sleep(0.02)
    assert whole(found, records[3]) and held(tmp_path / "cache") == ["s0.tar", "s2.tar", "s3.tar"]
    assert whole(found, records[4]) and held(tmp_path / "cache") == ["s0.tar", "s3.tar", "s4.tar"]
    with pytest.raises(ValueError, match=r"s0.tar: 1048576 bytes do not fit into data\.cache_gb"):
        whole(cached(tmp_path / "small", 0.5), records[0])


def test_a_shard_that_is_read_is_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, found = shards(tmp_path / "source", 3), cached(tmp_path, 2)
    with found._held(records[0]), found._held(records[1]):
        monkeypatch.setattr(cache, "WAIT", 0.2)
        with pytest.raises(
            ValueError, match=r"no room for s2.tar within 0 s: all .* GB are in use"
        ):
            found._fetch(records[2])
        assert held(tmp_path / "cache") == ["s0.tar", "s1.tar"]
    assert whole(found, records[2]) and len(held(tmp_path / "cache")) == 2


def read_for_ever(
    tmp_path: Path,
    records: list[ShardRecord],
    seed: int,
    good: "multiprocessing.sharedctypes.Synchronized[int]",
) -> None:
    """Read shards at random, counting the right ones; exit code 3 at the first wrong one."""
    found, rng = cached(tmp_path, 3.2, "sleep 0.004; "), np.random.default_rng(seed)
    while True:
        if not whole(found, records[int(rng.integers(len(records)))]):
            os._exit(3)
        with good.get_lock():
            good.value += 1


def test_killed_processes_leave_no_corrupt_file_to_the_others(tmp_path: Path) -> None:
    """One process reads throughout; another is killed again and again at any moment.

    The cache is so small that it has to drop shards all the time.
    """
    records, fork = shards(tmp_path / "source", 8), multiprocessing.get_context("fork")
    good = [fork.Value("i", 0) for _ in range(13)]
    steady = fork.Process(target=read_for_ever, args=(tmp_path, records, 0, good[0]))
    steady.start()
    rng = np.random.default_rng(1)
    for number in range(1, 13):
        victim = fork.Process(target=read_for_ever, args=(tmp_path, records, number, good[number]))
        victim.start()
        time.sleep(float(rng.uniform(0.05, 0.2)))
        assert victim.is_alive() and victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
    before, patience = good[0].value, time.monotonic() + 30
    while good[0].value < before + 5 and time.monotonic() < patience:
        time.sleep(0.02)
    assert steady.is_alive() and good[0].value >= before + 5, (
        "the survivor goes on, and reads right bytes only"
    )
    with contextlib.suppress(ProcessLookupError):
        steady.kill()
    steady.join()
    for record in records:
        path = tmp_path / "cache" / "set" / record.name
        assert not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() == record.sha256
    found = cached(tmp_path, 3.2)
    assert all(whole(found, record) for record in records)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.tar*")) <= 3.2 * SIZE
