"""The manifest of a dataset: which shards it has, and where every sample lies (format: data_shards/README.md).

It is written last and atomically: a folder without one is an unfinished dataset.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from helm_scale.batch import Method

NAME = "manifest.json"
FORMAT = "helm_scale shards"
VERSION = 1


@dataclass(frozen=True)
class ShardRecord:
    """One tar file: name, bytes, SHA-256 (hexadecimal)."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Rejected:
    """A molecule that could not be labelled, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class SampleRecord:
    """Place and size of one sample.

    Attributes:
        shard: number of the tar file. offset, size: its bytes there, tar headers included. crc32: of these bytes.
        atoms, pairs: N and N(N-1)/2. cost: estimate of the work that a training step has with it.
    """

    key: str
    split: str
    shard: int
    offset: int
    size: int
    crc32: int
    atoms: int
    pairs: int
    cost: float


COLUMNS = tuple(field.name for field in fields(SampleRecord))


@dataclass(frozen=True)
class Manifest:
    """A dataset's contents.

    Attributes:
        folder: where it lies. hash: SHA-256 of manifest.json; identifies the dataset. source: identifies its input.
        method, licence, labels: the same for all samples. elements: {symbol: number of atoms}.
        shards: tar files. rejected: molecules without labels.
        key, splits, shard, offset, size, crc32, atoms, pairs, cost: columns of SampleRecord, one entry per sample.
    """

    folder: Path
    hash: str
    method: Method
    licence: str
    source: str
    labels: tuple[str, ...]
    elements: dict[str, int]
    shards: tuple[ShardRecord, ...]
    rejected: tuple[Rejected, ...]
    key: np.ndarray
    splits: np.ndarray
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    crc32: np.ndarray
    atoms: np.ndarray
    pairs: np.ndarray
    cost: np.ndarray

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.key)

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """Read `folder/manifest.json`.

        Raises:
            ValueError: it is missing, damaged or of another version.
        """
        path = Path(folder) / NAME
        if not path.is_file():
            raise ValueError(f"{path}: not found; '{folder}' is no finished dataset: run launch/shards.py generate, or check the path")
        content = path.read_bytes()
        try:
            record = json.loads(content)
            if record.get("format") != FORMAT or record.get("version") != VERSION:
                raise ValueError(
                    f"got format '{record.get('format')}' version {record.get('version')}, wanted '{FORMAT}' version {VERSION}"
                )
            return cls(Path(folder), hashlib.sha256(content).hexdigest(), **_read(record))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: damaged or foreign manifest: {error}; get the dataset anew") from None

    def split_names(self) -> list[str]:
        """Names of the splits, in order of first appearance."""
        return list(dict.fromkeys(str(name) for name in self.splits))

    def split(self, name: str) -> np.ndarray:
        """Samples of a split, ascending: int64 [n].

        Raises:
            ValueError: no such split; names the known ones.
        """
        found = np.flatnonzero(self.splits == name)
        if not len(found):
            raise ValueError(f"{self.folder}: no split '{name}'; known: {', '.join(self.split_names())}")
        return found.astype(np.int64)

    def describe(self) -> str:
        """What the dataset holds, for people."""
        splits = ", ".join(f"{name} {int((self.splits == name).sum())}" for name in self.split_names())
        method = ", ".join(f"{name} {value}" for name, value in asdict(self.method).items())
        lines = [
            f"{self.folder}: {len(self)} molecules ({splits}) of {self.atoms.min()} to {self.atoms.max()} atoms",
            f"elements: {len(self.elements)} ({' '.join(self.elements)})",
            f"labels: {', '.join(self.labels)}",
            f"method: {method}",
            f"files: {len(self.shards)} shards, {sum(shard.size for shard in self.shards) / 1e6:.2f} MB, licence {self.licence}",
            f"rejected: {len(self.rejected)}",
        ]
        return "\n".join(lines + [f"  {one.key}: {one.reason}" for one in self.rejected])

    def where(self, index: int) -> str:
        """Shard and key of a sample, for messages."""
        return f"{self.folder}{os.sep}{self.shards[self.shard[index]].name}, key '{self.key[index]}'"


def write(
    folder: Path, head: dict[str, Any], shards: Sequence[ShardRecord], samples: Sequence[SampleRecord], rejected: Sequence[Rejected]
) -> Manifest:
    """Write `folder/manifest.json` atomically, one sample per line, and return it read back.

    Args:
        head: method, licence, source, labels, elements.
    """
    record = {"format": FORMAT, "version": VERSION, **head, "method": asdict(head["method"])}
    record |= {"shards": [asdict(shard) for shard in shards], "rejected": [asdict(one) for one in rejected], "columns": list(COLUMNS)}
    rows = ",\n  ".join(json.dumps([getattr(sample, column) for column in COLUMNS]) for sample in samples)
    text = json.dumps(record, indent=1)[:-2] + f',\n "samples": [\n  {rows}\n ]\n}}\n'
    partial = folder / f"{NAME}.partial"
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / NAME)
    return Manifest.load(folder)


def _read(record: dict[str, Any]) -> dict[str, Any]:
    """Fields of a Manifest from the JSON record."""
    if record["columns"] != list(COLUMNS):
        raise ValueError(f"columns: got {record['columns']}, wanted {list(COLUMNS)}")
    rows = [SampleRecord(*row) for row in record["samples"]]
    arrays = {field.name: np.array([getattr(row, field.name) for row in rows], dtype=field.type) for field in fields(SampleRecord)}
    return {
        "method": Method(**record["method"]),
        "labels": tuple(record["labels"]),
        "shards": tuple(ShardRecord(**shard) for shard in record["shards"]),
        "rejected": tuple(Rejected(**one) for one in record["rejected"]),
        **{name: record[name] for name in ("licence", "source", "elements")},
        "splits": arrays.pop("split"),
        **arrays,
    }
