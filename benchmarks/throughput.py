"""Pairs per second and peak memory of one training step against the number of atoms.

Geometries are synthetic (H, C, N, O at about 1.4 Angstrom spacing) and labels are random numbers of true size: only the
cost is measured. Every size runs in a process of its own, so that its peak memory is its own.

    python benchmarks/throughput.py [--quick] [--channels 128] [--threads 2]
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from helm_scale.basis import layout
from helm_scale.batch import GraphBatch, Molecule
from helm_scale.config import ModelConfig
from helm_scale.data.collate import collate
from helm_scale.model.helm import Helm
from helm_scale.objective.losses import HamiltonianObjective


def synthetic(atoms: int, seed: int) -> Molecule:
    """Random organic composition on a jittered grid of 1.4 Angstrom, growing outward from the origin."""
    rng = np.random.default_rng(seed)
    axis = np.arange(-4, 5)
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3) * 1.4
    nearest = grid[np.argsort(np.linalg.norm(grid, axis=1), kind="stable")[:atoms]]
    numbers = rng.choice([1, 6, 7, 8], size=atoms, p=[0.5, 0.35, 0.08, 0.07])
    return Molecule(f"synthetic-{atoms}", numbers, nearest + rng.normal(scale=0.1, size=nearest.shape))


def with_random_targets(batch: GraphBatch, config: ModelConfig) -> GraphBatch:
    """Targets of the true size."""
    onsite = sum((s.stop - s.start) * layout.onsite_layout(config.basis, s.first, config.parity).size for s in batch.atom_segments)
    offsite = sum((s.stop - s.start) * layout.offsite_layout(config.basis, s.first, s.second).size for s in batch.pair_segments)
    targets = torch.randn(onsite + offsite, dtype=torch.float64).split([onsite, offsite])
    aos = layout.ao_offsets(config.basis, batch.atomic_numbers.numpy())[-1]
    return dataclasses.replace(batch, onsite_target=targets[0], offsite_target=targets[1], matrix_elements=torch.tensor([int(aos) ** 2]))


def measure(atoms: int, channels: int, threads: int, repeats: int) -> dict[str, float]:
    """One warm step, then the median of the repeats."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = ModelConfig(channels=channels, hidden_channels=channels, edge_channels=channels, pair_cutoff=25.0)
    model = Helm(config)
    batch = with_random_targets(collate([synthetic(atoms, 0)], config), config)
    objective = HamiltonianObjective(config.basis, config.parity, model.reference_onsite)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = []
    for _ in range(repeats + 1):
        model.zero_grad()
        start = time.perf_counter()
        sums = objective(model, batch)
        objective.loss(sums.total, sums.count).backward()
        seconds.append(time.perf_counter() - start)
    step = float(np.median(seconds[1:]))
    pairs = batch.pair_index.shape[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    return {"atoms": atoms, "pairs": pairs, "step_seconds": step, "pairs_per_second": pairs / step, "peak_above_model_mb": peak}


def main() -> None:
    """Measure all sizes; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 and 20 atoms, 16 channels")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--atoms", type=int, help="one size, in this process")
    arguments = parser.parse_args()
    channels = 16 if arguments.quick else arguments.channels
    if arguments.atoms:
        print(json.dumps(measure(arguments.atoms, channels, arguments.threads, 1 if arguments.quick else 2)))
        return
    rows = []
    for atoms in (10, 20) if arguments.quick else (10, 20, 40, 60):
        command = [sys.executable, __file__, "--atoms", str(atoms), "--channels", str(channels), "--threads", str(arguments.threads)]
        output = subprocess.run(command + ["--quick"] * arguments.quick, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(output.splitlines()[-1]))
        print(
            "{atoms:4d} atoms {pairs:6d} pairs {step_seconds:8.3f} s {pairs_per_second:8.1f} pairs/s {peak_above_model_mb:8.0f} MB".format(
                **rows[-1]
            )
        )
    print(json.dumps({"benchmark": "throughput", "channels": channels, "threads": arguments.threads, "rows": rows}))


if __name__ == "__main__":
    main()
