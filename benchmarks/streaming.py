"""Tar files to collated batches: MB/s and samples/s against plain reading and plain webdataset, and
peak memory.

Samples hold H in def2-TZVPD of synthetic organic molecules: about 0.1, 4 and 32 MB each, in eight
shards; matrix elements are random numbers. All ways read the same tar files, in turn, first with
the files dropped from the page cache, as a dataset larger than memory finds them, then again from
the page cache:

    plain        Python's tarfile, the bytes of every member
    webdataset   webdataset.WebDataset(...).decode(), every array of every sample; in process, and in two DataLoader processes
    stream       this package: read in sampling order, checked, collated, blocks joined; in process, and in two processes
    coupled      the same in two processes, and this process couples the blocks to irreps on a CPU core, which in training is
                 the work of the device that trains

Every measurement is the median of its repeats; MB per CPU second, all processes together, stand
beside, for machines that do other work, too. Stages, on one core and from the page cache, say where
the time of one process goes: its reading alone, with the CRC-32, with tar, JSON and npz, with
collation, with coupling. Memory: peak of all processes for a dataset and for one four times as
large.

    python benchmarks/streaming.py [--quick] [--megabytes 3200] [--folder runs/streaming]
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from isal.isal_zlib import crc32
from torch.utils.data import DataLoader

from helm_scale.basis.layout import ao_offsets
from helm_scale.config import ModelConfig
from helm_scale.data.format.cache import LocalShards
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader, ShardWriter
from helm_scale.data.loading.epochs import ShuffledEpochs
from helm_scale.data.loading.sampler import Sampler
from helm_scale.data.loading.stream import BatchMaker, Stream
from helm_scale.types import Method, Molecule, couple_labels

METHOD = Method(
    xc="pbe",
    basis="def2-tzvpd",
    ecp="def2",
    grid_level=3,
    auxbasis=None,
    conv_tol=1e-9,
    baseline="none",
    program="random numbers",
)
CONFIG = ModelConfig(parity="full", pair_cutoff=100.0)
KINDS = {
    "0.1 MB": (11, 16, 0.25),
    "4 MB": (56, 4, 1.0),
    "32 MB": (158, 1, 1.0),
}  # atoms, molecules per batch, share of --megabytes
SHARDS = 8


def molecule(key: str, atoms: int) -> Molecule:
    """Random organic composition on a jittered grid of 1.4 Angstrom, growing outward from the
    origin."""
    rng = np.random.default_rng(atoms)
    axis = np.arange(-4, 5)
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3) * 1.4
    nearest = grid[np.argsort(np.linalg.norm(grid, axis=1), kind="stable")[:atoms]]
    numbers = rng.choice([1, 6, 7, 8], size=atoms, p=[0.5, 0.35, 0.08, 0.07])
    size = int(ao_offsets(METHOD.basis, numbers)[-1])
    matrix = 0.1 * rng.normal(size=(size, size))
    return Molecule(
        key,
        numbers,
        nearest + rng.normal(scale=0.1, size=nearest.shape),
        hamiltonian=(matrix + matrix.T) / 2,
        energy=0.0,
        method=METHOD,
    )


def write(folder: Path, atoms: int, megabytes: float) -> Manifest:
    """A dataset of about so many megabytes, at least two samples per shard."""
    one = molecule("sample", atoms)
    count = max(2 * SHARDS, round(megabytes * 1e6 / (2 * one.hamiltonian.size)))
    writer = ShardWriter(
        folder,
        METHOD,
        licence="CC0-1.0",
        source="random numbers",
        molecules_per_shard=-(-count // SHARDS),
    )
    for number in range(count):
        writer.write(dataclasses.replace(one, key=f"sample-{number}"), "train")
    return writer.close()


def drop(dataset: Manifest) -> None:
    """Take the tar files out of the page cache."""
    for shard in dataset.shards:
        file = os.open(dataset.folder / shard.name, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def plain(dataset: Manifest) -> int:
    """The bytes of every member; returns the number of samples."""
    count = 0
    for shard in dataset.shards:
        with tarfile.open(dataset.folder / shard.name) as tar:
            for member in tar:
                file = tar.extractfile(member)
                count += file is not None and len(file.read()) > 0 and member.name.endswith(".npz")
    return count


def arrays(sample: dict) -> dict:
    """All arrays of a decoded sample."""
    return {"json": sample["json"], **{name: sample["npz"][name] for name in sample["npz"]}}


def plain_webdataset(dataset: Manifest, workers: int) -> int:
    """Every array of every sample, in webdataset's own way."""
    urls = [str(dataset.folder / shard.name) for shard in dataset.shards]
    samples = webdataset.WebDataset(urls, shardshuffle=False).decode().map(arrays)
    return sum(1 for _ in DataLoader(samples, batch_size=None, num_workers=workers))


def bins(dataset: Manifest, batch: int) -> Iterator[list[int]]:
    """Samples of every batch, in sampling order, once through the dataset."""
    sampler = Sampler(
        [ShuffledEpochs(dataset.hash, dataset.split("train"), seed=0)],
        dataset.cost,
        batch_molecules=batch,
        micro_batches=1,
    )
    return (sampler.samples_of(step) for step in range(len(dataset) // batch))


def stream(dataset: Manifest, batch: int, workers: int, coupled: bool = False) -> int:
    """This package."""
    found = Stream(BatchMaker(ShardReader(dataset), CONFIG), workers=workers).batches(
        bins(dataset, batch)
    )
    return sum((couple_labels(one, "cpu") if coupled else one).num_molecules for one in found)


def stages(dataset: Manifest, batch: int, repeats: int) -> dict[str, float]:
    """MB per CPU second of one process that does the first stages, each with those before it."""
    reader, tasks, make = (
        ShardReader(dataset),
        list(bins(dataset, batch)),
        BatchMaker(ShardReader(dataset), CONFIG),
    )
    memory, shards, targets = (
        memoryview(bytearray(int(dataset.size.max()))),
        LocalShards(dataset.folder),
        dict[int, torch.Tensor](),
    )

    def read(index: int) -> memoryview:
        content = memory[: reader.size(index)]
        shards.read_into(dataset.shards[dataset.shard[index]], int(dataset.offset[index]), content)
        return content

    def used_again(count: int, dtype: torch.dtype) -> torch.Tensor:
        size = count * dtype.itemsize
        if size not in targets:
            targets[size] = torch.empty(size, dtype=torch.uint8)
        return targets[size].view(dtype)

    work: dict[str, Callable[[list[int]], object]] = {
        "read": lambda samples: [read(index) for index in samples],
        "checked": lambda samples: [crc32(read(index)) for index in samples],
        "parsed": lambda samples: [reader.read_stored(index, memory) for index in samples],
        "collated": lambda samples: make(samples, used_again),
        "coupled": lambda samples: couple_labels(make(samples, used_again).batch, "cpu"),
    }
    megabytes, found = (
        sum(int(dataset.size[i]) for samples in tasks for i in samples) / 1e6,
        dict.fromkeys(work, 0.0),
    )
    for name in [*work] * (repeats + 1):
        start = time.process_time()
        for samples in tasks:
            work[name](samples)
        found[name] = max(found[name], megabytes / (time.process_time() - start))
    return found


def compare(dataset: Manifest, batch: int, repeats: int) -> dict[str, dict[str, Any]]:
    """MB/s and samples/s of every way, cold and warm."""
    megabytes = sum(shard.size for shard in dataset.shards) / 1e6
    ways: dict[str, Callable[[], int]] = {
        "plain": lambda: plain(dataset),
        "webdataset": lambda: plain_webdataset(dataset, 0),
        "webdataset_2": lambda: plain_webdataset(dataset, 2),
        "stream": lambda: stream(dataset, batch, 0),
        "stream_2": lambda: stream(dataset, batch, 2),
        "coupled_2": lambda: stream(dataset, batch, 2, coupled=True),
    }
    seconds: dict[str, list[float]] = {}  # per sample
    cpu: dict[str, list[float]] = {}
    stream(
        dataset, batch, 0, coupled=True
    )  # makes the coupling tables, which every later batch shares
    for state in ["cold", "warm"] * repeats:
        for name, way in ways.items():
            if state == "cold":
                drop(dataset)
            start, busy = time.perf_counter(), cpu_seconds()
            count = way()
            seconds.setdefault(f"{name} {state}", []).append((time.perf_counter() - start) / count)
            cpu.setdefault(f"{name} {state}", []).append((cpu_seconds() - busy) / count)
            assert count >= len(dataset) - batch, f"{name}: {count} samples"
    each = megabytes / len(dataset)
    return {
        name: {
            "mb_per_s": each / statistics.median(values),
            "samples_per_s": 1 / statistics.median(values),
            "mb_per_cpu_s": each / statistics.median(cpu[name]),
            "mb_per_s_of_each_repeat": [each / value for value in values],
        }
        for name, values in seconds.items()
    }


def cpu_seconds() -> float:
    """CPU time of this process and of the children that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def peak_megabytes(folder: Path) -> float:
    """Peak resident memory of a process that streams a dataset with two workers, theirs included
    (shared pages count twice)."""
    code = (
        "import resource, sys; from benchmarks.streaming import *; dataset = "
        "Manifest.load(sys.argv[1]); stream(dataset, 1, 2);"
        "own, theirs = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, "
        "resource.RUSAGE_CHILDREN));"
        "print((own + 2 * theirs) / 1024)"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        ),
    }
    return float(
        subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            check=True,
            capture_output=True,
            env=environment,
        ).stdout
    )


def main() -> None:
    """Measure all sizes; the last line is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="little data, one repeat, no 32 MB samples"
    )
    parser.add_argument(
        "--megabytes",
        type=float,
        default=3200.0,
        help="size of each dataset; a quarter of it for 0.1 MB",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/streaming"),
        help="where the data goes; removed afterwards",
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.megabytes, arguments.repeats = 8.0, 1
    torch.set_num_threads(1)
    rows = {}
    try:
        for name, (atoms, batch, share) in list(KINDS.items())[: 2 if arguments.quick else None]:
            dataset = write(
                arguments.folder / name.replace(" ", ""), atoms, share * arguments.megabytes
            )
            found = compare(dataset, batch, arguments.repeats)
            rows[name] = {
                "sample_mb": float(dataset.size.mean()) / 1e6,
                "samples": len(dataset),
                "molecules_per_batch": batch,
                **found,
            }
            rows[name]["stages_mb_per_cpu_s"] = stages(dataset, batch, arguments.repeats)
            for state in ("cold", "warm"):
                rates = {
                    way.split()[0]: row["mb_per_s"]
                    for way, row in found.items()
                    if way.endswith(state)
                }
                rows[name][f"ratio_to_plain_{state}"] = rates["stream_2"] / rates["plain"]
                rows[name][f"ratio_to_webdataset_{state}"] = rates["stream_2"] / max(
                    rates["webdataset"], rates["webdataset_2"]
                )
                print(
                    f"{name:7s} {state}: "
                    + ", ".join(f"{way} {rate:.0f}" for way, rate in rates.items())
                    + " MB/s",
                    flush=True,
                )
            work = {
                way.split()[0]: row["mb_per_cpu_s"]
                for way, row in found.items()
                if way.endswith("warm")
            }
            print(
                f"{name:7s} work: "
                + ", ".join(f"{way} {rate:.0f}" for way, rate in work.items())
                + " MB per CPU s",
                flush=True,
            )
            each = ", ".join(
                f"{stage} {rate:.0f}" for stage, rate in rows[name]["stages_mb_per_cpu_s"].items()
            )
            print(f"{name:7s} one process: {each} MB per CPU s", flush=True)
        size = 64.0 if arguments.quick else 200.0
        write(arguments.folder / "large", KINDS["4 MB"][0], 4 * size)
        write(arguments.folder / "small", KINDS["4 MB"][0], size)
        memory = {
            label: peak_megabytes(arguments.folder / folder)
            for label, folder in (("one", "small"), ("four_times", "large"))
        }
    finally:
        shutil.rmtree(arguments.folder, ignore_errors=True)
    versions = {
        package: importlib.metadata.version(package) for package in ("torch", "numpy", "webdataset")
    }
    about = {
        "hardware": f"{os.cpu_count()} CPU cores",
        "python": platform.python_version(),
        **versions,
        "command": " ".join(sys.argv),
    }
    print(
        json.dumps(
            {"benchmark": "streaming", "rows": rows, "peak_mb_4mb_samples": memory, "about": about}
        )
    )


if __name__ == "__main__":
    main()
