"""Fetches remote shards into a folder of bounded size that any number of processes share.

A shard is written to `<name>.partial`, hashed as it arrives, and renamed when size and SHA-256 are
those of the manifest: a file under its own name is whole, whoever is killed when. Locks (flock) are
on the files themselves and end with their holder: exclusive while a shard is fetched or removed,
shared while it is read. To make room the shards that have not been read for longest go, never one
that is locked.
"""

import contextlib
import fcntl
import functools
import hashlib
import io
import os
import re
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from webdataset.gopen import gopen

from helm_scale.data.format import columns, manifest
from helm_scale.data.format.manifest import Manifest, ShardRecord
from helm_scale.data.format.retries import patiently
from helm_scale.files import atomic_path, write_atomically

# What webdataset opens; anything else is a folder.
SCHEMES = re.compile(r"(pipe|file|https?|s3|gs|hf):")
BLOCK = 1 << 20  # bytes fetched at a time
WAIT = 60.0  # seconds that a full cache may keep one waiting
RETRY = 0.02  # seconds between two looks


def is_remote(path: str) -> bool:
    """Whether a dataset's address is not a local folder."""
    return SCHEMES.match(path) is not None


class RemoteFolder:
    """A dataset elsewhere: URL of its folder, or `pipe:COMMAND` with {name} for a file's name.

    Addresses are opened by webdataset (http through curl, gs through gsutil); s3 goes through the
    command `aws s3 cp`.
    """

    def __init__(self, address: str) -> None:
        if address.startswith("pipe:") and "{name}" not in address:
            raise ValueError(
                f"data.path: got '{address}', wanted {{name}} in it,"
                " where the name of a file goes: pipe:cat /data/{name}"
            )
        self._address = address

    def url(self, name: str) -> str:
        """Address of one file."""
        if self._address.startswith("pipe:"):
            return self._address.replace("{name}", name)
        url = f"{self._address.rstrip('/')}/{name}"
        if url.startswith("s3:"):
            return f"pipe:aws s3 cp --only-show-errors '{url}' -"
        return url

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of a file.

        Raises:
            ConnectionError: it cannot be fetched.
        """
        try:
            with gopen(self.url(name), "rb", bufsize=BLOCK) as stream:
                while block := stream.read(BLOCK):
                    yield block
        except OSError as error:
            raise ConnectionError(
                f"{self.url(name)}: cannot be fetched ({error}); check address, network and access"
            ) from None


def fetch_manifest(remote: RemoteFolder, cache: Path) -> Manifest:
    """Copy manifest and columns into the cache, in a folder named after the manifest's hash.

    Raises:
        ConnectionError: they cannot be fetched. ValueError: they are damaged.
    """
    content = patiently(lambda: b"".join(remote.blocks(manifest.NAME)))
    folder = cache / hashlib.sha256(content).hexdigest()[:16]
    (folder / columns.FOLDER).mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".manifest"):
        # The manifest comes last: where it is, its columns are.
        if not (folder / manifest.NAME).is_file():
            for path in manifest.column_files(content):
                patiently(functools.partial(_copy, remote, path, folder / path))
            write_atomically(folder / manifest.NAME, content)
    return Manifest.load(folder)


def _copy(remote: RemoteFolder, name: str, path: Path) -> None:
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.writelines(remote.blocks(name))


class CachedShards:
    """The shards of one remote dataset.

    Args:
        remote: where they come from. folder: where they go, a folder of the cache.
        limit: bytes of tar files in the cache, all datasets together.
    """

    def __init__(self, remote: RemoteFolder, folder: Path, limit: int) -> None:
        self._remote, self._folder, self._limit = remote, folder, limit

    def read_into(self, record: ShardRecord, offset: int, memory: memoryview) -> int:
        """Read bytes of a shard, which is fetched if it is not there; returns their number.

        Raises:
            ConnectionError: the shard cannot be fetched, however often it is tried.
            ValueError: it is not the one that the manifest lists, or does not fit.
        """
        # preadv has its own offset: threads and forks that share the file do not move each other.
        with self._held(record) as file:
            return os.preadv(file.fileno(), [memory], offset)

    def expect(self, record: ShardRecord, offset: int, size: int) -> None:
        """Have the system read these bytes ahead, without waiting, if the shard has arrived."""
        with contextlib.suppress(FileNotFoundError), io.FileIO(self._folder / record.name) as file:
            _read_ahead(file, offset, size)

    @contextlib.contextmanager
    def _held(self, record: ShardRecord) -> Iterator[io.FileIO]:
        """The whole file, open and locked against removal."""
        path = self._folder / record.name
        while True:
            try:
                file = io.FileIO(path)
            except FileNotFoundError:
                self._fetch(record)
                continue
            with file:
                fcntl.flock(file, fcntl.LOCK_SH)
                if _is_at(file, path):  # else it was removed before we had the lock: fetch it again
                    os.utime(path)  # what was read last goes last
                    yield file
                    return

    def _fetch(self, record: ShardRecord) -> None:
        """Bring a shard, unless another process has just done so."""
        path = self._folder / record.name
        partial = path.with_name(f"{path.name}.partial")
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # While we waited for the lock another process may have brought the shard, or given up.
            if path.exists() or not _is_at(file, partial):
                if _is_at(file, partial):
                    partial.unlink()
                return
            try:
                self._make_room(record, file)
                patiently(lambda: self._receive(record, file))
            except BaseException:  # Ctrl-C too: a file left there would keep its room reserved
                partial.unlink()
                raise
            partial.rename(path)

    def _receive(self, record: ShardRecord, file: Any) -> None:
        """Write the shard over the file, which has its size already, and check it."""
        digest, size = hashlib.sha256(), 0
        for block in self._remote.blocks(record.name):
            digest.update(block)
            if size + len(block) <= record.size:  # never beyond the room that was reserved
                os.pwrite(file.fileno(), block, size)
            size += len(block)
        if size != record.size or digest.hexdigest() != record.sha256:
            raise ValueError(
                f"{self._remote.url(record.name)}: got {size} bytes with SHA-256"
                f" {digest.hexdigest()}, wanted {record.size} with {record.sha256};"
                " manifest and shard do not belong together, or the source is damaged"
            )
        os.fsync(file.fileno())

    def _make_room(self, record: ShardRecord, file: Any) -> None:
        """Remove shards until the new one fits; its file gets its size, which reserves the room."""
        if record.size > self._limit:
            raise ValueError(
                f"{record.name}: {record.size} bytes do not fit into"
                f" data.cache_gb = {self._limit / 1e9:g}; raise it"
            )
        patience = time.monotonic() + WAIT
        while time.monotonic() < patience:
            with _locked(self._folder.parent / ".room"):
                os.ftruncate(file.fileno(), 0)  # not counted while it waits for room
                excess = sum(size for _, size, _ in self._files()) + record.size - self._limit
                for _, size, path in sorted(self._files()):  # longest unused first
                    if excess > 0 and _removed(path):
                        excess -= size
                if excess <= 0:
                    os.ftruncate(file.fileno(), record.size)
                    return
            time.sleep(RETRY)
        raise ValueError(
            f"{self._folder.parent}: no room for {record.name} within {WAIT:.0f} s:"
            f" all {self._limit / 1e9:g} GB are in use;"
            " raise data.cache_gb to a shard per process at least"
        )

    def _files(self) -> list[tuple[float, int, Path]]:
        """Last use, size and path of every shard in the cache, finished or not."""
        cache, files = self._folder.parent, []
        for path in [*cache.glob("*/*.tar"), *cache.glob("*/*.tar.partial")]:
            with contextlib.suppress(FileNotFoundError):  # another process has just removed it
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
        return files


class LocalShards:
    """The shards of a dataset in a local folder; the latest ones stay open."""

    OPEN = 64

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, io.FileIO] = {}
        weakref.finalize(self, _close, self._files)  # readers come and go without a word

    def read_into(self, record: ShardRecord, offset: int, memory: memoryview) -> int:
        """Read bytes of a shard from offset on; returns their number.

        Raises:
            ValueError: the shard is not there.
        """
        try:
            return os.preadv(self._open(record).fileno(), [memory], offset)
        except FileNotFoundError:
            raise ValueError(
                f"{self._folder / record.name}: shard not found; the manifest lists it: get it anew"
            ) from None

    def expect(self, record: ShardRecord, offset: int, size: int) -> None:
        """Have the system read these bytes ahead, without waiting, if the shard is there."""
        with contextlib.suppress(FileNotFoundError):
            _read_ahead(self._open(record), offset, size)

    def _open(self, record: ShardRecord) -> io.FileIO:
        if record.name not in self._files:
            # A process may hold some 1,000 open files, and a large dataset has more shards.
            while len(self._files) >= self.OPEN:
                self._files.pop(next(iter(self._files))).close()
            self._files[record.name] = io.FileIO(self._folder / record.name)
        return self._files[record.name]


def _close(files: Mapping[str, io.FileIO]) -> None:
    for file in files.values():
        file.close()


def _read_ahead(file: io.FileIO, offset: int, size: int) -> None:
    if hasattr(os, "posix_fadvise"):  # not on every system
        os.posix_fadvise(file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that all processes share."""
    with path.open("ab") as file:  # "ab" makes the file and truncates none
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_at(file: Any, path: Path) -> bool:
    """Whether an open file still is the one at path.

    Between opening and locking another process may have removed or renamed it.
    """
    try:
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _removed(path: Path) -> bool:
    """Remove a file unless someone holds it."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if _is_at(file, path):
            path.unlink()
    return True
