"""Tar files to collated batches: rates against plain reading and plain webdataset, peak memory.

Samples hold H in def2-TZVPD of synthetic organic molecules: about 0.1, 4 and 32 MB each, in eight
shards; matrix elements are random numbers. All ways read the same tar files, in turn, first with
the files dropped from the page cache, as a dataset larger than memory finds them, then again from
the page cache:

    plain        Python's tarfile, the bytes of every member
    webdataset   webdataset.WebDataset(...).decode(), every array of every sample; in process, and
                 in two DataLoader processes
    stream       this package: read in sampling order, checked, collated, blocks joined; in process,
                 and in two processes
    coupled      the same in two processes, and this process couples the blocks to irreps on a CPU
                 core, which in training is the work of the device that trains

Every measurement is the median of its repeats; MB per CPU second, all processes together, stand
beside, for machines that do other work, too. Stages, on one core and from the page cache, say where
the time of one process goes: its reading alone, with the CRC-32, with tar, JSON and npz, with
collation, with coupling. Memory: peak of all processes for a dataset and for one four times as
large.

    python benchmarks/streaming.py [--quick] [--megabytes 3200] [--folder runs/streaming]
"""

import argparse
import dataclasses
import os
import resource
import shutil
import statistics
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
import torch
import webdataset
from isal.isal_zlib import crc32
from report import command_line, in_fresh_process, report
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
# atoms, molecules per batch, share of --megabytes
SAMPLES = {"0.1 MB": (11, 16, 0.25), "4 MB": (56, 4, 1.0), "32 MB": (158, 1, 1.0)}
SHARDS = 8


def labelled(atoms: int) -> Molecule:
    """A synthetic molecule with a random Hamiltonian."""
    bare = synthetic.molecule(atoms, seed=atoms)
    size = int(ao_offsets(METHOD.basis, bare.atomic_numbers)[-1])
    matrix = 0.1 * np.random.default_rng(atoms).normal(size=(size, size))
    hamiltonian = (matrix + matrix.T) / 2
    return dataclasses.replace(bare, hamiltonian=hamiltonian, energy=0.0, method=METHOD)


def write(folder: Path, atoms: int, megabytes: float) -> Manifest:
    """A dataset of about so many megabytes, at least two samples per shard."""
    molecule = labelled(atoms)
    assert molecule.hamiltonian is not None
    count = max(2 * SHARDS, round(megabytes * 1e6 / (2 * molecule.hamiltonian.size)))
    writer = ShardWriter(
        folder,
        METHOD,
        licence="CC0-1.0",
        source="random numbers",
        molecules_per_shard=-(-count // SHARDS),
    )
    for number in range(count):
        writer.write(dataclasses.replace(molecule, key=f"sample-{number}"), "train")
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


def arrays(sample: dict[str, Any]) -> dict[str, Any]:
    """All arrays of a decoded sample."""
    return {"json": sample["json"], **{name: sample["npz"][name] for name in sample["npz"]}}


def plain_webdataset(dataset: Manifest, workers: int) -> int:
    """Every array of every sample, in webdataset's own way."""
    urls = [str(dataset.folder / shard.name) for shard in dataset.shards]
    samples = webdataset.WebDataset(urls, shardshuffle=False).decode().map(arrays)
    return sum(1 for _ in DataLoader(samples, batch_size=None, num_workers=workers))


def micro_batches(dataset: Manifest, batch: int) -> Iterator[list[int]]:
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
    reader = Stream(BatchMaker(ShardReader(dataset), CONFIG), workers=workers)
    batches = reader.batches(micro_batches(dataset, batch))
    return sum((couple_labels(b, "cpu") if coupled else b).num_molecules for b in batches)


def stages(dataset: Manifest, batch: int, repeats: int) -> dict[str, float]:
    """MB per CPU second of one process that does the first stages, each with those before it."""
    reader, make = ShardReader(dataset), BatchMaker(ShardReader(dataset), CONFIG)
    batches = list(micro_batches(dataset, batch))
    memory = memoryview(bytearray(int(dataset.size.max())))
    shards, targets = LocalShards(dataset.folder), dict[int, torch.Tensor]()

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
    megabytes = sum(int(dataset.size[i]) for samples in batches for i in samples) / 1e6
    rates = dict.fromkeys(work, 0.0)
    for name in [*work] * (repeats + 1):
        start = time.process_time()
        for samples in batches:
            work[name](samples)
        rates[name] = max(rates[name], megabytes / (time.process_time() - start))
    return rates


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
    # makes the coupling tables, which every later batch shares
    stream(dataset, batch, 0, coupled=True)
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
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_megabytes(folder: Path) -> float:
    """Peak resident memory after streaming a dataset with two workers, theirs included.

    Shared pages count twice.
    """
    stream(Manifest.load(folder), 1, 2)
    own, largest_worker = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return (own + 2 * largest_worker) / 1024


def measure(folder: Path, name: str, megabytes: float, repeats: int) -> dict[str, Any]:
    """All figures of samples of one size."""
    atoms, batch, share = SAMPLES[name]
    dataset = write(folder / name.replace(" ", ""), atoms, share * megabytes)
    rates = compare(dataset, batch, repeats)
    row: dict[str, Any] = {
        "sample_mb": float(dataset.size.mean()) / 1e6,
        "samples": len(dataset),
        "molecules_per_batch": batch,
        **rates,
        "stages_mb_per_cpu_s": stages(dataset, batch, repeats),
    }
    for state in ("cold", "warm"):
        rate = of_state(rates, state, "mb_per_s")
        row[f"ratio_to_plain_{state}"] = rate["stream_2"] / rate["plain"]
        best = max(rate["webdataset"], rate["webdataset_2"])
        row[f"ratio_to_webdataset_{state}"] = rate["stream_2"] / best
        show(f"{name:7s} {state}", rate, "MB/s")
    show(f"{name:7s} work", of_state(rates, "warm", "mb_per_cpu_s"), "MB per CPU s")
    show(f"{name:7s} one process", row["stages_mb_per_cpu_s"], "MB per CPU s")
    return row


def of_state(rates: dict[str, dict[str, Any]], state: str, figure: str) -> dict[str, float]:
    """One figure of every way, cold or warm."""
    return {way.split()[0]: row[figure] for way, row in rates.items() if way.endswith(state)}


def show(title: str, rates: dict[str, float], unit: str) -> None:
    """Print rates on one line."""
    print(f"{title}: {', '.join(f'{way} {rate:.0f}' for way, rate in rates.items())} {unit}")


def peak_memory(folder: Path, megabytes: float) -> dict[str, float]:
    """Peaks for a dataset and for one four times as large, each in a fresh process."""
    write(folder / "large", SAMPLES["4 MB"][0], 4 * megabytes)
    write(folder / "small", SAMPLES["4 MB"][0], megabytes)
    return {
        label: in_fresh_process(__file__, "--peak", folder / name)
        for label, name in (("one", "small"), ("four_times", "large"))
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__, quick="little data, one repeat, no 32 MB samples")
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
    parser.add_argument("--peak", type=Path, help="peak memory of this dataset, in this process")
    return parser.parse_args()


def main() -> None:
    """Measure all sizes; the last line is one JSON object."""
    arguments = parse()
    if arguments.peak:
        print(peak_megabytes(arguments.peak))
        return
    names, megabytes, repeats, memory_megabytes = (
        (["0.1 MB", "4 MB"], 8.0, 1, 64.0)
        if arguments.quick
        else (list(SAMPLES), arguments.megabytes, arguments.repeats, 200.0)
    )
    torch.set_num_threads(1)
    try:
        rows = {name: measure(arguments.folder, name, megabytes, repeats) for name in names}
        memory = peak_memory(arguments.folder, memory_megabytes)
    finally:
        shutil.rmtree(arguments.folder, ignore_errors=True)
    report("streaming", rows=rows, peak_mb_4mb_samples=memory, webdataset=webdataset.__version__)


if __name__ == "__main__":
    main()
