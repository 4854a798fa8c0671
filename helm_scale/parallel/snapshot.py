"""Saves state on any number of ranks under any engine, to be loaded on any other.

Every rank writes one safetensors file, rank-00002-of-00008.safetensors, with its shards (flat
ranges of tensors); the file's metadata say where in which tensor each shard lies. Replicas share
the work: each writes its part. Reading finds tensors by name, reads what this rank is to hold, and
runs nothing: safetensors are numbers and names. Whether the files are whole is for the caller to
check first: a flipped bit loads without an error.
"""

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from helm_scale.parallel.flat_shards import FlatShard

# Rank and number of ranks: a reader can tell when a file is missing.
_NAME = re.compile(r"rank-(\d{5})-of-(\d{5})\.safetensors")
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.uint8: "U8",
}
# Bytes hashed and written at a time: large enough for the disk, small enough to stay in the cache.
_BLOCK = 1 << 24


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write CPU tensors as a safetensors file, synced to disk; returns its SHA-256.

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
    return digest.hexdigest()


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

    def write(self, folder: Path) -> dict[str, str]:
        """Write the file into a folder; {name: SHA-256}.

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


class StateReader:
    """Tensors of a folder that `Snapshot.write` filled, read range by range.

    Attributes:
        shapes: of the whole tensors, by name.

    Raises:
        ValueError: a file is missing or is no safetensors file of ours; names it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._files = folder, list[Any]()
        self._ranges: dict[str, list[tuple[int, int, str]]] = {}  # name -> (start, file, its name)
        self.shapes: dict[str, tuple[int, ...]] = {}
        paths = sorted(path for path in folder.glob("rank-*") if _NAME.fullmatch(path.name))
        world_sizes = {int(path.name[14:19]) for path in paths}
        if world_sizes != {len(paths)}:
            counts = " or ".join(map(str, world_sizes)) or "some"
            raise ValueError(
                f"{folder}: got {len(paths)} files rank-*, wanted {counts}; copy it again"
            )
        for path in paths:
            try:
                file = safe_open(path, framework="pt", device="cpu")
                for name, place in json.loads(file.metadata()["places"]).items():
                    self.shapes[name] = tuple(map(int, place["shape"]))
                    start = int(place["start"])
                    self._ranges.setdefault(name, []).append((start, len(self._files), name))
            except (SafetensorError, ValueError, KeyError, TypeError) as error:
                raise _not_ours(path, error) from None
            self._files.append(file)

    def add_file(self, path: Path, prefix: str) -> None:
        """Take in a file of whole tensors; here their names begin with a prefix.

        Raises:
            ValueError: it is no safetensors file.
        """
        try:
            file = safe_open(path, framework="pt", device="cpu")
        except (SafetensorError, OSError) as error:
            raise _not_ours(path, error) from None
        for name in file.keys():  # noqa: SIM118
            self.shapes[prefix + name] = tuple(file.get_slice(name).get_shape())
            self._ranges[prefix + name] = [(0, len(self._files), name)]
        self._files.append(file)

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
        for start, number, stored_name in self._ranges[name]:
            stored = self._files[number].get_tensor(stored_name).view(-1)  # mapped, not read yet
            first, last = max(start, shard.start), min(start + stored.numel(), end)
            if last > first:
                overlap = stored[first - start : last - start]
                local[first - shard.start : last - shard.start] = overlap
                filled += last - first
        if filled != local.numel():
            raise ValueError(
                f"{self._folder}: {name}: got {filled} of {local.numel()} elements;"
                " the checkpoint is incomplete"
            )


def _not_ours(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: not a file of a checkpoint: {error!r}; it is not loaded")
