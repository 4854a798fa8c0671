"""Keeps the rows of a large manifest as columns, `columns/*.npy` beside it, mapped into memory."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, overload

import numpy as np

from helm_scale.files import sha256, sync

FOLDER = "columns"
# Little-endian whatever the machine; 45 bytes a sample beside its key.
DTYPES = {
    "split": "<u1",
    "shard": "<i4",
    "offset": "<i8",
    "size": "<i8",
    "crc32": "<u4",
    "atoms": "<i4",
    "pairs": "<i8",
    "cost": "<f8",
}
NAMES = ("key", *DTYPES)
KEY_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+=-"
AT_ONCE = 1 << 20  # keys that are checked together, which bounds the memory


class SampleKeys:
    """Names of samples; stored as bytes of one width, which may lie in a file."""

    def __init__(self, stored: np.ndarray) -> None:
        self.stored = stored

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.stored)

    @overload
    def __getitem__(self, index: int | np.integer) -> str: ...
    @overload
    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray: ...
    def __getitem__(self, index: Any) -> Any:
        """One name, or an array of several."""
        names = self.stored[index]
        return names.decode() if isinstance(names, bytes) else np.asarray(names).astype(str)

    def __iter__(self) -> Iterator[str]:
        """Name after name."""
        return (key.decode() for key in self.stored)

    def tolist(self) -> list[str]:
        """All names."""
        return list(self)


def write(folder: Path, columns: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Write every column to `folder/columns`.

    Returns:
        SHA-256 of every file, by column; the file's name begins with it.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    sums = {}
    for name in NAMES:
        partial = folder / FOLDER / f"{name}.partial"
        with partial.open("wb") as file:
            np.save(
                file,
                columns[name].astype(DTYPES.get(name, columns[name].dtype)),
                allow_pickle=False,
            )
        # The name holds the hash, so that it is known only once the file is written.
        sums[name] = sha256(partial)
        sync(partial)
        partial.replace(folder / path_of(name, sums[name]))
    return sums


def path_of(name: str, digest: str) -> str:
    """Name a column's file below the dataset's folder; other content has another name."""
    return f"{FOLDER}/{name}-{digest[:12]}.npy"


def load(folder: Path, sums: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Map the columns into memory; what is not used takes none.

    Raises:
        ValueError: a file is missing or not the one that was written.
    """
    rows = {}
    for name in NAMES:
        path = folder / path_of(name, sums[name])
        if not path.is_file() or sha256(path) != sums[name]:
            raise ValueError(f"{path} is missing or not the file that the manifest lists")
        rows[name] = np.load(path, mmap_mode="r", allow_pickle=False)
    return rows


def check_keys(stored: np.ndarray) -> None:
    """Raise ValueError naming a key that cannot name a sample (dots, empty) or occurs twice.

    Ten million keys take a second: they are compared as 64-bit hashes, and as text only where two
    hashes are equal.
    """
    allowed = np.zeros(256, dtype=bool)
    allowed[[0, *KEY_BYTES]] = True  # zero fills up shorter keys
    width = -(-stored.dtype.itemsize // 8) * 8  # whole 64-bit words, padded with zeros
    hashes = np.empty(len(stored), dtype=np.uint64)
    for start in range(0, len(stored), AT_ONCE):
        part = stored[start : start + AT_ONCE].astype(f"S{width}")
        letters = part.view(np.uint8).reshape(len(part), width)
        if not allowed[letters].all() or not letters[:, 0].all():
            wrong = np.flatnonzero(~allowed[letters].all(axis=1) | (letters[:, 0] == 0))
            raise ValueError(
                f"key '{part[wrong[0]].decode(errors='replace')}':"
                " wanted 1 to 90 of A-Z a-z 0-9 _ + = - (no dot)"
            )
        # Multiply by 2^64 over the golden ratio and fold, word after word (Fibonacci hashing).
        mixed = np.zeros(len(part), dtype=np.uint64)
        for word in letters.view(np.uint64).T:
            mixed = (mixed ^ word) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        hashes[start : start + len(part)] = mixed
    ordered = np.sort(hashes)
    # Equal hashes are rare and mostly of equal keys: only these are compared as text.
    for repeated in np.unique(ordered[1:][ordered[1:] == ordered[:-1]]):
        keys, counts = np.unique(stored[hashes == repeated], return_counts=True)
        if counts.max() > 1:
            raise ValueError(
                f"key '{keys[counts.argmax()].decode()}' occurs {counts.max()} times;"
                " keys are unique within a dataset"
            )
