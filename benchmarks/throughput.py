"""Pairs per second and peak memory of one training step against the number of atoms.

Geometries are synthetic (H, C, N, O at about 1.4 Angstrom spacing) and labels are random numbers of
true size: only the cost is measured. Every size runs in a process of its own, so that its peak
memory is its own.

    python benchmarks/throughput.py [--quick] [--channels 128] [--threads 2]
"""

import argparse
import json
import resource
import time

import numpy as np
import torch
from report import command_line, in_fresh_process, report
from synthetic import Step

from helm_scale.config import ModelConfig

LINE = (
    "{atoms:4d} atoms {pairs:6d} pairs {step_seconds:8.3f} s {pairs_per_second:8.1f} pairs/s"
    " {peak_above_model_mb:8.0f} MB"
)


def measure(atoms: int, channels: int, threads: int, repeats: int) -> dict[str, float]:
    """One warm step, then the median of the repeats."""
    torch.set_num_threads(threads)
    step = Step(
        atoms,
        ModelConfig(
            channels=channels, hidden_channels=channels, edge_channels=channels, pair_cutoff=25.0
        ),
    )
    step.model.set_memory(pair_chunk=512, recompute="none", message_chunk=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    median, pairs = float(np.median(seconds[1:])), step.batch.pair_index.shape[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    return {
        "atoms": atoms,
        "pairs": pairs,
        "step_seconds": median,
        "pairs_per_second": pairs / median,
        "peak_above_model_mb": peak,
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__, quick="10 and 20 atoms, 16 channels")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--atoms", type=int, help="one size, in this process")
    return parser.parse_args()


def main() -> None:
    """Measure all sizes; the last line is one JSON object."""
    arguments = parse()
    quick, threads = arguments.quick, arguments.threads
    channels, repeats = (16, 1) if quick else (arguments.channels, 2)
    if arguments.atoms:
        print(json.dumps(measure(arguments.atoms, channels, threads, repeats)))
        return
    rows = []
    for atoms in (10, 20) if quick else (10, 20, 40, 60):
        flags = [f"--atoms={atoms}", f"--channels={channels}", f"--threads={threads}"]
        rows.append(in_fresh_process(__file__, *flags, *["--quick"] * quick))
        print(LINE.format(**rows[-1]), flush=True)
    report("throughput", channels=channels, threads=threads, rows=rows)


if __name__ == "__main__":
    main()
