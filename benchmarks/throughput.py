"""Pairs per second and peak memory of one training step against the number of atoms.

Geometries are synthetic (H, C, N, O at about 1.4 Angstrom spacing) and labels are random numbers of
true size: only the cost is measured. Every size runs in a process of its own, so that its peak
memory is its own.

    python benchmarks/throughput.py [--quick] [--channels 128] [--threads 2]
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from synthetic import Step

from helm_scale.config import ModelConfig


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


def main() -> None:
    """Measure all sizes; the last line is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="10 and 20 atoms, 16 channels")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--atoms", type=int, help="one size, in this process")
    arguments = parser.parse_args()
    channels = 16 if arguments.quick else arguments.channels
    if arguments.atoms:
        print(
            json.dumps(
                measure(arguments.atoms, channels, arguments.threads, 1 if arguments.quick else 2)
            )
        )
        return
    rows = []
    for atoms in (10, 20) if arguments.quick else (10, 20, 40, 60):
        command = [
            sys.executable,
            __file__,
            "--atoms",
            str(atoms),
            "--channels",
            str(channels),
            "--threads",
            str(arguments.threads),
        ]
        output = subprocess.run(
            command + ["--quick"] * arguments.quick, check=True, capture_output=True, text=True
        ).stdout
        rows.append(json.loads(output.splitlines()[-1]))
        print(
            "{atoms:4d} atoms {pairs:6d} pairs {step_seconds:8.3f} s {pairs_per_second:8.1f} "
            "pairs/s {peak_above_model_mb:8.0f} MB".format(**rows[-1])
        )
    print(
        json.dumps(
            {
                "benchmark": "throughput",
                "channels": channels,
                "threads": arguments.threads,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
