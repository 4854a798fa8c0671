"""Files: the SHA-256 of their content, and writing that a kill at any moment cannot tear.

A file is written beside its place, synced, and renamed: under its own name it is whole or absent.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Written(NamedTuple):
    """SHA-256 and size, in bytes, of a file as it was written."""

    sha256: str
    size: int


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file, which is read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ordinary_mode() -> int:
    """Permissions of a new file, as the umask of the process leaves them."""
    mask = os.umask(0o077)  # the only way to read it is to set it
    os.umask(mask)
    return 0o666 & ~mask


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, text: str) -> Written:
    """Write a file and flush it to the disk."""
    content = text.encode()
    path.write_bytes(content)
    sync(path)
    return Written(hashlib.sha256(content).hexdigest(), len(content))


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a path to write to; what lies there on leaving is synced and renamed to `path`.

    An error leaves `path` as it was. The folder's entry is not synced: after a power cut the old
    file may be back, whole.
    """
    # Several processes may write one file at the same time, so each has a name of its own.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file by this content: readers see the old or the new one, never a part."""
    with atomic_path(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
