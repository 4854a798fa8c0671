"""Reads and writes the manifest of a dataset: its shards, and where every sample lies.

It is written last and atomically: a folder without one is an unfinished dataset. The format is
described in data_shards/README.md.
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helm_scale.data.format import columns
from helm_scale.data.format.columns import SampleKeys
from helm_scale.files import write_atomically
from helm_scale.types import Method

NAME = "manifest.json"
FORMAT = "helm_scale shards"
VERSION = 1
LARGE = 100_000  # samples from which on their rows do not lie in the JSON


@dataclass(frozen=True)
class ShardRecord:
    """One tar file: name, bytes, SHA-256 (hexadecimal)."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class RejectedMolecule:
    """A molecule that could not be labelled, and why."""

    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """Place and size of one sample.

    Attributes:
        shard: number of the tar file. offset, size: its bytes there, tar headers included.
        crc32: of these bytes. atoms, pairs: N and N(N-1)/2.
        cost: estimate of the work that a training step has with it (shards.cost_of).
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


# No slash and no leading dot: a foreign manifest cannot name files outside its folder.
SHARD = re.compile(r"[A-Za-z0-9_+=-][A-Za-z0-9_.+=-]*\.tar")
COLUMNS = columns.NAMES


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A dataset's contents.

    Attributes:
        folder: where it lies. hash: SHA-256 of manifest.json; identifies the dataset.
        source: text that identifies the input that the dataset was made from.
        method, licence, labels: the same for all samples. elements: {symbol: number of atoms}.
        shards: tar files. rejected: molecules without labels.
        names_of_splits: split names; `split_code` holds the place of each sample's in it.
        key, shard, offset, size, crc32, atoms, pairs, cost: columns of SampleRecord, one entry per
            sample.
    """

    folder: Path
    hash: str
    method: Method
    licence: str
    source: str
    labels: tuple[str, ...]
    elements: dict[str, int]
    shards: tuple[ShardRecord, ...]
    rejected: tuple[RejectedMolecule, ...]
    names_of_splits: tuple[str, ...]
    split_code: np.ndarray
    key: SampleKeys
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
        # Relative paths are the usual mistake, so the message says from where they were looked for.
        if not path.is_file():
            raise ValueError(
                f"{path}: not found{_from_here(path)}; '{folder}' is no finished dataset:"
                " name one that is there, or make one with helm-scale shards generate"
            )
        content = path.read_bytes()
        try:
            record = json.loads(content)
            if record.get("format") != FORMAT or record.get("version") != VERSION:
                raise ValueError(
                    f"got format '{record.get('format')}' version {record.get('version')},"
                    f" wanted '{FORMAT}' version {VERSION}"
                )
            digest = hashlib.sha256(content).hexdigest()
            return cls(folder=Path(folder), hash=digest, **_read(Path(folder), record))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}: damaged or foreign manifest: {error}; get the dataset anew"
            ) from None

    @functools.cached_property
    def splits(self) -> np.ndarray:
        """Split of every sample, by name."""
        return np.array(self.names_of_splits)[self.split_code]

    @property
    def label_kind(self) -> dict[str, Any]:
        """What labels have in common that may be mixed (compatibility.check_same_labels)."""
        return {"method": self.method, "labels": self.labels}

    def split_names(self) -> list[str]:
        """Names of the splits, in order of first appearance."""
        return list(self.names_of_splits)

    def split(self, name: str) -> np.ndarray:
        """Samples of a split, ascending: int64 [n].

        Raises:
            ValueError: no such split; names the known ones.
        """
        if name not in self.names_of_splits:
            raise ValueError(
                f"{self.folder}: no split '{name}'; known: {', '.join(self.split_names())}"
            )
        return np.flatnonzero(self.split_code == self.names_of_splits.index(name)).astype(np.int64)

    def rows(self, splits: Iterable[str], first_shard: int = 0) -> list[SampleRecord]:
        """List the samples with other splits, their shards numbered from `first_shard`."""
        names = [name for name in COLUMNS if name not in ("split", "shard")]
        columns = [getattr(self, name).tolist() for name in names]
        return [
            SampleRecord(
                split=str(split), shard=shard + first_shard, **dict(zip(names, values, strict=True))
            )
            for split, shard, *values in zip(splits, self.shard.tolist(), *columns, strict=True)
        ]

    def describe(self) -> str:
        """Say what the dataset holds, for people."""
        splits = ", ".join(f"{name} {len(self.split(name))}" for name in self.split_names())
        method = ", ".join(f"{name} {value}" for name, value in asdict(self.method).items())
        megabytes = sum(shard.size for shard in self.shards) / 1e6
        lines = [
            f"{self.folder}: {len(self)} molecules ({splits})"
            f" of {self.atoms.min()} to {self.atoms.max()} atoms",
            f"elements: {len(self.elements)} ({' '.join(self.elements)})",
            f"labels: {', '.join(self.labels)}",
            f"method: {method}",
            f"files: {len(self.shards)} shards, {megabytes:.2f} MB, licence {self.licence}",
            f"rejected: {len(self.rejected)}",
        ]
        rejected = [f"  {molecule.key}: {molecule.reason}" for molecule in self.rejected]
        return "\n".join(lines + rejected)

    def where(self, index: int) -> str:
        """Name shard and key of a sample, for messages."""
        shard = self.shards[self.shard[index]]
        return f"{self.folder}{os.sep}{shard.name}, key '{self.key[index]}'"


def write(
    folder: Path,
    head: dict[str, Any],
    *,
    shards: Sequence[ShardRecord],
    samples: Sequence[SampleRecord],
    rejected: Sequence[RejectedMolecule],
) -> Manifest:
    """Write `folder/manifest.json` atomically and return it read back.

    Up to 100,000 samples are listed in it, one per line; more go into `columns/*.npy`.

    Args:
        head: method, licence, source, labels, elements.
    """
    if len(samples) > LARGE:
        splits, columns_ = _columns(samples)
        return write_columns(
            folder, head, shards=shards, splits=splits, rows=columns_, rejected=rejected
        )
    # One sample per line: a diff of two manifests shows the samples that differ.
    rows = ",\n  ".join(
        json.dumps([getattr(sample, column) for column in COLUMNS]) for sample in samples
    )
    return _write(folder, _record(head, shards, rejected), f'"samples": [\n  {rows}\n ]')


def write_columns(
    folder: Path,
    head: dict[str, Any],
    *,
    shards: Sequence[ShardRecord],
    splits: Sequence[str],
    rows: Mapping[str, np.ndarray],
    rejected: Sequence[RejectedMolecule],
) -> Manifest:
    """Write a manifest whose rows lie in `columns/*.npy`; as `write` otherwise.

    Args:
        splits: names of the splits. rows: the columns of SampleRecord; `key` as bytes, `split` as
            places in `splits`.
    """
    where = {
        "count": len(rows["key"]),
        "splits": list(splits),
        "sha256": columns.write(folder, rows),
    }
    return _write(folder, _record(head, shards, rejected), f'"columns_beside": {json.dumps(where)}')


def column_files(content: bytes) -> list[str]:
    """List the columns that a manifest.json keeps beside it, as paths below the dataset's folder.

    A damaged manifest lists none: whoever loads it will say what is wrong.
    """
    try:
        return [
            columns.path_of(name, sum_)
            for name, sum_ in json.loads(content)["columns_beside"]["sha256"].items()
            if name in COLUMNS
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _record(
    head: dict[str, Any], shards: Sequence[ShardRecord], rejected: Sequence[RejectedMolecule]
) -> dict[str, Any]:
    record = {"format": FORMAT, "version": VERSION, **head, "method": asdict(head["method"])}
    return record | {
        "shards": [vars(shard) for shard in shards],
        "rejected": [vars(molecule) for molecule in rejected],
        "columns": list(COLUMNS),
    }


def _write(folder: Path, record: dict[str, Any], samples: str) -> Manifest:
    # The samples go before the closing brace: json's own layout would give each number a line.
    text = json.dumps(record, indent=1)[:-2] + f",\n {samples}\n}}\n"
    write_atomically(folder / NAME, text)
    return Manifest.load(folder)


def _columns(samples: Sequence[SampleRecord]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Split names in order of first appearance, and the columns."""
    splits = list(dict.fromkeys(sample.split for sample in samples))
    code = {name: number for number, name in enumerate(splits)}
    rows = {
        name: np.array([getattr(s, name) for s in samples], dtype=dtype)
        for name, dtype in columns.DTYPES.items()
        if name != "split"
    }
    rows["split"] = np.array(
        [code[sample.split] for sample in samples], dtype=columns.DTYPES["split"]
    )
    return splits, rows | {"key": np.array([sample.key.encode() for sample in samples])}


def _read(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Fields of a Manifest from the JSON record."""
    # Rows are lists without names, so that their order is part of the format.
    if record["columns"] != list(COLUMNS):
        raise ValueError(f"columns: got {record['columns']}, wanted {list(COLUMNS)}")
    if "columns_beside" in record:
        beside = record["columns_beside"]
        splits, rows = beside["splits"], columns.load(folder, beside["sha256"])
        lengths = {len(column) for column in rows.values()}
        if lengths != {beside["count"]}:
            raise ValueError(f"columns: got {sorted(lengths)} rows, wanted {beside['count']}")
    else:
        listed = (dict(zip(COLUMNS, row, strict=True)) for row in record["samples"])
        splits, rows = _columns([SampleRecord(**row) for row in listed])
    columns.check_keys(rows["key"])
    for shard in record["shards"]:
        if not SHARD.fullmatch(shard["name"]):
            raise ValueError(f"shard '{shard['name']}': wanted a plain file name ending in .tar")
    return {
        "method": Method(**record["method"]),
        "labels": tuple(record["labels"]),
        "shards": tuple(ShardRecord(**shard) for shard in record["shards"]),
        "rejected": tuple(RejectedMolecule(**entry) for entry in record["rejected"]),
        **{name: record[name] for name in ("licence", "source", "elements")},
        "names_of_splits": tuple(splits),
        "split_code": rows.pop("split"),
        "key": SampleKeys(rows.pop("key")),
        **rows,
    }


def _from_here(path: Path) -> str:
    """For messages: the folder from which a relative path was looked for."""
    return "" if path.is_absolute() else f" in {Path.cwd()}"
