"""Files that a rank opens to resume, and what its index costs, for up to 512 ranks.

A state with as many tensors as that of configs/omol_csh_58k.yaml under Muon and AdamW, but thinner
ones, is written by 8, 64 and 512 ranks as FSDP2 cuts it. Then the first, the middle and the last
rank load their part: on as many ranks, and on those that are left when a node of eight is lost.

    python benchmarks/scale_checkpoint.py [--quick]
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from report import command_line, report

from helm_scale.config import PretrainConfig, load
from helm_scale.model.helm import Helm
from helm_scale.parallel import snapshot
from helm_scale.parallel.flat_shards import FlatShard

THIN = ["--model.channels=16", "--model.hidden_channels=16", "--model.edge_channels=16"]
PER_NODE = 8
LINE = (
    "{saved_by:4d} ranks, loaded by {loaded_by:4d}: {opens_most:2d} files of {files:4d} opened at"
    " most; index of {tensors} tensors {index_mb:.1f} MB, read in {index_seconds:.2f} s; a rank"
    " loads in {load_seconds:.2f} s"
)


def shapes_of_state(flags: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Tensors of a checkpoint: weights, and two states each of the optimisers."""
    settings = load(PretrainConfig, ["--config", "omol_csh_58k", *flags])
    weights = {name: tuple(w.shape) for name, w in Helm(settings.model).state_dict().items()}
    kinds = ("weights", "adamw/exp_avg", "adamw/exp_avg_sq")
    return {
        f"{kind}/{name}": shape for kind in kinds for name, shape in weights.items() if prod(shape)
    }


def shard(shape: tuple[int, ...], rank: int, ranks: int) -> FlatShard:
    """The rows of a tensor that FSDP2 leaves with a rank, as random numbers."""
    height = shape[0] if shape else 1
    rows = -(-height // ranks)
    first, last = min(rank * rows, height), min((rank + 1) * rows, height)
    width = prod(shape[1:])
    return FlatShard(local=torch.rand((last - first) * width), shape=shape, start=first * width)


def shards(shapes: Mapping[str, tuple[int, ...]], rank: int, ranks: int) -> dict[str, FlatShard]:
    """What a rank holds."""
    return {name: shard(shape, rank, ranks) for name, shape in shapes.items()}


def write(folder: Path, shapes: Mapping[str, tuple[int, ...]], ranks: int) -> None:
    """The files of all ranks, and their index."""
    names = []
    for rank in range(ranks):
        names += snapshot.capture(shards(shapes, rank, ranks), rank, ranks).write(folder)
    snapshot.write_index(folder, names)


def loaded(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], rank: int, ranks: int
) -> tuple[int, float, float]:
    """One rank loads its part: files that it opens, seconds for the index, seconds in all."""
    mine = shards(shapes, rank, ranks)
    with mock.patch.object(snapshot, "safe_open", side_effect=snapshot.safe_open) as opened:
        started = time.perf_counter()
        reader = snapshot.StateReader(folder)
        index = time.perf_counter() - started
        for name, part in mine.items():
            reader.fill(name, part)
        return opened.call_count + 1, index, time.perf_counter() - started  # and the index itself


def measure(sizes: Sequence[int], flags: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Load on as many ranks as have saved, and on a node less."""
    shapes = shapes_of_state(flags)
    for saved_by in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, shapes, saved_by)
            for loaded_by in (saved_by, max(saved_by - PER_NODE, 1)):
                ranks = sorted({0, loaded_by // 2, loaded_by - 1})
                rows = [loaded(folder, shapes, rank, loaded_by) for rank in ranks]
                yield {
                    "saved_by": saved_by,
                    "loaded_by": loaded_by,
                    "files": saved_by,
                    "tensors": len(shapes),
                    "opens_most": max(row[0] for row in rows),
                    "index_mb": (folder / snapshot.INDEX).stat().st_size / 1e6,
                    "index_seconds": max(row[1] for row in rows),
                    "load_seconds": max(row[2] for row in rows),
                }


def measured_rows(quick: bool) -> list[dict[str, Any]]:
    """Measure and print, row by row."""
    rows = []
    for row in measure((8, 64), THIN) if quick else measure((8, 64, 512), ()):
        print(LINE.format(**row), flush=True)
        rows.append(row)
    return rows


if __name__ == "__main__":
    arguments = command_line(__doc__, quick="up to 64 ranks").parse_args()
    report("scale_checkpoint", rows=measured_rows(arguments.quick))
