"""Saves state on any number of ranks under any engine, to be loaded on any other.

Every rank writes one safetensors file, rank-00002-of-00008.safetensors, with its shards (flat
ranges of tensors); the file's metadata say where in which tensor each shard lies, and index.json
says it of all files, so that a reader opens only those it needs. Replicas share the work: each
writes its part. Reading finds tensors by name, reads what this rank is to hold, and runs nothing:
safetensors are numbers and names. Whether the files are whole is for the caller to check first: a
flipped bit loads without an error.
"""

import hashlib
import json
import os
import re
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from helm_scale.files import Written, write_synced
from helm_scale.parallel.flat_shards import FlatShard

# Rank and number of ranks: a reader can tell when a file is missing.
_NAME = re.compile(r"rank-(\d{5})-of-(\d{5})\.safetensors")
INDEX = "index.json"
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.uint8: "U8",
}
# Bytes hashed and written at a time: large enough for the disk, small enough to stay in the cache.
_BLOCK = 1 << 24


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Written:
    """Write CPU tensors as a safetensors file, synced to disk.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers lie aligned in the mapped file
    # Written here and not by safetensors, whose writer would need the file read again for its hash.
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for block in _blocks(struct.pack("<Q", len(text)) + text, tensors):
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    return Written(digest.hexdigest(), size)


def _blocks(head: bytes, tensors: Mapping[str, Tensor]) -> Iterator[Any]:
    yield head
    for tensor in tensors.values():
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data  # numpy: no bfloat16
        yield from (raw[first : first + _BLOCK] for first in range(0, len(raw), _BLOCK))


@dataclass(frozen=True)
class Snapshot:
    """A copy of what one rank holds; training may go on while it is written.

    Attributes:
        name: of the file. tensors: flat, on the CPU. metadata: where they lie.
    """

    name: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def write(self, folder: Path) -> dict[str, Written]:
        """Write the file into a folder; its hash and size by its name.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        return {self.name: write_tensors(folder / self.name, self.tensors, self.metadata)}


def capture(shards: Mapping[str, FlatShard], rank: int, world_size: int) -> Snapshot:
    """Copy this rank's shards, of replicated ones its part."""
    tensors, places = {}, {}
    for name, shard in shards.items():
        flat = shard.local.detach()
        # Replicas write equal shares, whose borders meet.
        first, last = (flat.numel() * (shard.replica + i) // shard.replicas for i in (0, 1))
        if last > first:
            tensors[name] = flat[first:last].to("cpu", copy=True)
            places[name] = {"shape": list(shard.shape), "start": shard.start + first}
    metadata = {"format": "helm_scale state 1", "places": json.dumps(places)}
    return Snapshot(f"rank-{rank:05d}-of-{world_size:05d}.safetensors", tensors, metadata)


@dataclass(frozen=True)
class Index:
    """Where every tensor of a folder lies.

    Attributes:
        files: names. shapes: of the whole tensors, by name.
        parts: of each tensor, by name, [parts, 3]: first element, number of elements, number of the
            file that has them. Arrays: a large run has some 100,000 parts.
    """

    files: list[str]
    shapes: dict[str, tuple[int, ...]]
    parts: dict[str, np.ndarray]


def write_index(folder: Path, names: Sequence[str]) -> Written:
    """Write what the files of these names hold into one file beside them.

    Raises:
        ValueError: a file is not one of ours. OSError: the disk is full or cannot be written.
    """
    index = _index_of(folder, sorted(names))
    parts = {name: rows.tolist() for name, rows in index.parts.items()}
    return write_synced(folder / INDEX, json.dumps({**vars(index), "parts": parts}) + "\n")


def read_index(folder: Path) -> Index:
    """Read what the files of a folder hold; of older checkpoints from the files themselves.

    Raises:
        ValueError: a file is missing or is not one of ours; names it.
    """
    try:
        text = (folder / INDEX).read_text()
    except FileNotFoundError:
        return _index_of(folder, _names_in(folder))
    try:
        content = json.loads(text)
        shapes = {name: tuple(map(int, shape)) for name, shape in content["shapes"].items()}
        files = [str(name) for name in content["files"]]
        if not all(map(_NAME.fullmatch, files)):  # no way out of the folder
            raise ValueError("names of files that no rank writes")
        parts = {name: _table(rows, len(files)) for name, rows in content["parts"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_ours(folder / INDEX, error) from None
    return Index(files, shapes, parts)


def _table(rows: list[list[int]], files: int) -> np.ndarray:
    """Parts of a tensor as an array."""
    table = np.array(rows, dtype=np.int64).reshape(len(rows), 3)
    if table.size and not (table.min() >= 0 and table[:, 2].max() < files):
        raise ValueError("parts that lie nowhere")
    return table


def _names_in(folder: Path) -> list[str]:
    """Names of the files of all ranks, where no index lists them."""
    names = sorted(path.name for path in folder.glob("rank-*") if _NAME.fullmatch(path.name))
    world_sizes = {int(name[14:19]) for name in names}
    if world_sizes != {len(names)}:
        counts = " or ".join(map(str, world_sizes)) or "some"
        raise ValueError(f"{folder}: got {len(names)} files rank-*, wanted {counts}; copy it again")
    return names


def _index_of(folder: Path, names: Sequence[str]) -> Index:
    """Read what every file says of itself."""
    shapes: dict[str, tuple[int, ...]] = {}
    parts = defaultdict[str, list[list[int]]](list)
    for number, name in enumerate(names):
        path = folder / name
        try:
            file = safe_open(path, framework="pt", device="cpu")
            for tensor, place in json.loads(file.metadata()["places"]).items():
                shapes[tensor] = tuple(map(int, place["shape"]))
                length = prod(file.get_slice(tensor).get_shape())
                parts[tensor].append([int(place["start"]), length, number])
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _not_ours(path, error) from None
    tables = {tensor: _table(rows, len(names)) for tensor, rows in parts.items()}
    return Index(list(names), shapes, tables)


class StateReader:
    """Tensors of a folder that `Snapshot.write` filled, read range by range.

    A file is opened when a range of it is wanted for the first time.

    Attributes:
        shapes: of the whole tensors, by name.

    Raises:
        ValueError: a file is missing or is no safetensors file of ours; names it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, index = folder, read_index(folder)
        self._paths = [folder / name for name in index.files]
        self._files: dict[int, Any] = {}
        self.shapes = index.shapes
        # name here -> parts, and the name in the file
        self._parts = {name: (parts, name) for name, parts in index.parts.items()}

    def add_file(self, path: Path, prefix: str) -> None:
        """Take in a file of whole tensors; here their names begin with a prefix.

        Raises:
            ValueError: it is no safetensors file.
        """
        number = len(self._paths)
        self._paths.append(path)
        file = self._open(number)
        for name in file.keys():  # noqa: SIM118
            shape = tuple(file.get_slice(name).get_shape())
            self.shapes[prefix + name] = shape
            self._parts[prefix + name] = (np.array([[0, prod(shape), number]]), name)

    def has(self, prefix: str) -> bool:
        """Whether the name of a tensor begins like this."""
        return any(name.startswith(prefix) for name in self.shapes)

    def fill(self, name: str, shard: FlatShard) -> None:
        """Copy the elements of a shard from the files into it.

        Raises:
            ValueError: the tensor is absent or of another shape, or elements are missing.
        """
        if self.shapes.get(name) != shard.shape:
            raise ValueError(
                f"{self._folder}: {name} has shape {self.shapes.get(name)}, wanted {shard.shape};"
                " resume with its own config"
            )
        local, filled = shard.local.detach(), 0
        end = shard.start + local.numel()
        parts, stored_name = self._parts[name]
        begins_before, ends_after = parts[:, 0] < end, parts[:, :2].sum(axis=1) > shard.start
        wanted = parts[begins_before & ends_after] if local.numel() else parts[:0]
        for start, length, number in wanted.tolist():
            first, last = max(start, shard.start), min(start + length, end)
            # mapped, not read yet
            stored = self._open(number).get_tensor(stored_name).view(-1)
            local[first - shard.start : last - shard.start] = stored[first - start : last - start]
            filled += last - first
        if filled != local.numel():
            raise ValueError(
                f"{self._folder}: {name}: got {filled} of {local.numel()} elements;"
                " the checkpoint is incomplete"
            )

    def _open(self, number: int) -> Any:
        if number not in self._files:
            path = self._paths[number]
            try:
                self._files[number] = safe_open(path, framework="pt", device="cpu")
            except (SafetensorError, OSError) as error:
                raise _not_ours(path, error) from None
        return self._files[number]


def _not_ours(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: not a file of a checkpoint: {error!r}; it is not loaded")
