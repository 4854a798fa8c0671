"""A manifest of ten million samples: time and memory to open it and to read the first batch.

The manifest is synthetic: 10,000 shards of 1,000 samples each, as sparse files. Only the samples of
the steps that are read really exist in them; four bytes of their padding are chosen so that each
has the CRC-32 that the manifest lists. Every measurement is a process of its own, which opens the
dataset, plans the step, reads, checks and collates its 64 molecules, at the start or after a
resume; the coupling tables, which do not depend on the dataset, are made before. CPU times stand
beside wall times: on a machine that does other work, too, only they say what is needed.
scale_checkpoint.py adds what ranks open to resume, for up to 512 of them.

    python benchmarks/scale.py [--quick] [--samples 10000000] [--folder runs/scale]
"""

import argparse
import json
import resource
import shutil
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import scale_checkpoint
from report import command_line, in_fresh_process, report

from helm_scale.config import DataConfig, ModelConfig
from helm_scale.data.format.manifest import Manifest, ShardRecord, write_columns
from helm_scale.data.format.shards import sample_bytes
from helm_scale.data.graphs.collate import collate
from helm_scale.data.loading.dataset import Dataset
from helm_scale.data.loading.stream import BatchMaker, Stream
from helm_scale.types import Method, Molecule

METHOD = Method(
    xc="pbe",
    basis="def2-svp",
    ecp="def2",
    grid_level=3,
    auxbasis=None,
    conv_tol=1e-9,
    baseline="none",
    program="random numbers",
)
CONFIG = ModelConfig(basis="def2-svp", parity="full")
PER_SHARD, BATCH, CRC32 = 1000, 64, 0x600DF00D
RESUMED = (0, 1000, 1_000_000)
LINE = (
    "window {window:2d}, step {step:7d}: open {open_s:.2f} s (CPU {open_cpu_s:.2f}),"
    " first batch {first_batch_s:.2f} s (CPU {first_batch_cpu_s:.2f}), peak {peak_mb:.0f} MB"
)


def water(key: str) -> Molecule:
    """Water with a random Hamiltonian."""
    size = 24  # AOs of water in def2-SVP
    matrix = np.random.default_rng(0).normal(size=(size, size))
    positions = np.array([[0.0, 0.0, 0.1], [0.76, 0.0, 0.68], [-0.74, 0.0, 0.58]])
    return Molecule(
        key,
        np.array([8, 1, 1]),
        positions,
        hamiltonian=matrix + matrix.T,
        energy=0.0,
        method=METHOD,
    )


def content(key: str) -> bytes:
    """A sample with the CRC-32 that the manifest lists."""
    plain = sample_bytes(water(key))
    assert not any(plain[-4:]), "the last four bytes are padding"
    return plain[:-4] + bytes_to_reach(plain[:-4], CRC32)


def bytes_to_reach(start: bytes, crc32: int) -> bytes:
    """Four bytes after which the CRC-32 of all is the given one.

    The register of the sum is run backwards through them.
    """
    table = [zlib.crc32(bytes([i])) ^ zlib.crc32(b"\0") for i in range(256)]
    by_top = {entry >> 24: i for i, entry in enumerate(table)}
    register = crc32 ^ 0xFFFFFFFF
    for _ in range(4):
        i = by_top[register >> 24]
        register = ((register ^ table[i]) << 8 & 0xFFFFFFFF) | i
    return (register ^ zlib.crc32(start) ^ 0xFFFFFFFF).to_bytes(4, "little")


def write(folder: Path, samples: int) -> None:
    """The manifest and the sparse shards."""
    folder.mkdir(parents=True)
    count, size = -(-samples // PER_SHARD), len(content("molecule-00000000"))
    shards = [
        ShardRecord(f"shard-{n:06d}.tar", size * PER_SHARD + 1024, "0" * 64) for n in range(count)
    ]
    for shard in shards:
        with (folder / shard.name).open("wb") as file:
            file.truncate(shard.size)
    number = np.arange(samples)
    letters = np.tile(np.frombuffer(b"molecule-00000000", np.uint8), (samples, 1))
    for place in range(8):
        letters[:, -1 - place] += (number // 10**place % 10).astype(np.uint8)
    cost = np.random.default_rng(0).lognormal(6.0, 1.0, size=samples)
    fixed = {"size": size, "crc32": CRC32, "atoms": 3, "pairs": 3}
    rows = {
        "key": letters.view("S17")[:, 0],
        "split": (number % 100 == 99).astype(np.uint8),
        "shard": number // PER_SHARD,
        "cost": cost,
    }
    rows |= {
        "offset": number % PER_SHARD * size,
        **{name: np.full(samples, value) for name, value in fixed.items()},
    }
    head = {
        "method": METHOD,
        "licence": "CC0-1.0",
        "source": "random",
        "labels": ("hamiltonian", "energy"),
        "elements": {"H": 2, "O": 1},
    }
    write_columns(
        folder, head, shards=shards, splits=("train", "validation"), rows=rows, rejected=()
    )


def fill(folder: Path, window: int) -> None:
    """Write the samples of the steps that will be read into their shards."""
    dataset = Dataset.open(DataConfig(path=str(folder), shuffle_window=window))
    sampler, (manifest,) = (
        dataset.sampler(batch_molecules=BATCH, micro_batches=1, seed=0),
        dataset.manifests,
    )
    for index in {i for step in RESUMED for i in sampler.samples_of(step)}:
        with (folder / manifest.shards[manifest.shard[index]].name).open("r+b") as file:
            file.seek(int(manifest.offset[index]))
            file.write(content(manifest.key[index]))


def measure(folder: Path, window: int, step: int) -> dict[str, float]:
    """Open, plan and read one step, in this process."""
    collate([water("tables")], CONFIG)
    start, cpu = time.perf_counter(), time.process_time()
    dataset = Dataset.open(DataConfig(path=str(folder), shuffle_window=window))
    opened, opened_cpu = time.perf_counter(), time.process_time()
    sampler = dataset.sampler(batch_molecules=BATCH, micro_batches=1, seed=0)
    (batch,) = next(Stream(BatchMaker(dataset, CONFIG)).steps(sampler, step, step + 1))
    assert batch.num_molecules == BATCH
    done, done_cpu = time.perf_counter(), time.process_time()
    return {
        "window": window,
        "step": step,
        "open_s": opened - start,
        "open_cpu_s": opened_cpu - cpu,
        "first_batch_s": done - opened,
        "first_batch_cpu_s": done_cpu - opened_cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__, quick="200,000 samples, two steps")
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/scale"),
        help="where the data goes; removed afterwards",
    )
    parser.add_argument(
        "--one",
        type=int,
        nargs=2,
        metavar=("WINDOW", "STEP"),
        help="measure one step, in this process",
    )
    return parser.parse_args()


def measure_all(folder: Path, steps: Iterable[int]) -> list[dict[str, float]]:
    """Every step with both windows, each in a process of its own."""
    rows = []
    for window in (0, 16):
        fill(folder, window)
        for step in steps:
            flags = [f"--folder={folder}", "--one", window, step]
            rows.append(in_fresh_process(__file__, *flags))
            print(LINE.format(**rows[-1]), flush=True)
    return rows


def main() -> None:
    """Measure; the last line is one JSON object."""
    arguments = parse()
    folder = arguments.folder
    if arguments.one:
        print(json.dumps(measure(folder, *arguments.one)))
        return
    samples = 200_000 if arguments.quick else arguments.samples
    try:
        write(folder, samples)
        megabytes = sum(path.stat().st_size for path in (folder / "columns").iterdir()) / 1e6
        assert len(Manifest.load(folder)) == samples
        rows = measure_all(folder, RESUMED[:: 2 if arguments.quick else 1])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ranks = scale_checkpoint.measured_rows(arguments.quick)
    report("scale", samples=samples, manifest_mb=megabytes, rows=rows, checkpoint=ranks)


if __name__ == "__main__":
    main()
