"""Peak memory of one training step against the number of atoms, plain and in chunks.

Memory is that above model and labels. Every figure comes from a process of its own, after a warm
step on a molecule of 3 atoms. `live` puts large blocks through mmap, so that fragmentation of the
heap does not count; `resident` is the default allocator. Gradients count, parameters, optimiser and
labels do not. `planned` is what helm_scale/pretraining/memory/footprint.py says without running the
step.

    python benchmarks/memory.py [--quick] [--atoms 20 40 80 150]
"""

import argparse
import json
import resource
import time
from pathlib import Path

import torch
from report import command_line, in_fresh_process, report
from synthetic import Step, batch_of, model_config

from helm_scale.basis import elements
from helm_scale.pretraining.memory.chunks import ChunkSettings
from helm_scale.pretraining.memory.footprint import BatchSize, StepEstimator

VARIANTS = {"plain": (0, "none", 1), "chunked": (256, "full", 256)}
LIVE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
LINE = (
    "{atoms:4d} atoms {variant:8s} live {live_mb:8.0f} MB (planned {planned_mb:8.0f}),"
    " resident {resident_mb:8.0f} MB, {seconds:7.2f} s"
)
PLAIN_LIMIT = 80  # atoms; beyond, the plain step does not fit a small machine


def resident_mb() -> float:
    """Resident memory now; that of the warm step, gradients included, is free again."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def peak_mb() -> float:
    """Peak resident memory of this program so far.

    getrusage would begin with that of the process which started it.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def planned_mb(step: Step, variant: str) -> float:
    """What the memory plan says of the same micro-batch."""
    batch = step.batch
    symbols = [elements.symbol(int(z)) for z in batch.atomic_numbers]
    estimator = StepEstimator(
        step.model.config, {symbol: symbols.count(symbol) for symbol in symbols}
    )
    size = BatchSize(len(symbols), batch.edge_index.shape[1], batch.pair_index.shape[1])
    return estimator.activation_bytes(size, ChunkSettings(*VARIANTS[variant]), first=True) / 2**20


def measure(variant: str, atoms: int, quick: bool) -> dict[str, float]:
    """Peak above the state before the step, and seconds."""
    torch.set_num_threads(1)
    step = Step(3, model_config("omol_csh_58k", quick))
    step.model.set_memory(*VARIANTS[variant])
    step()
    step.model.zero_grad()
    step.batch = batch_of(atoms, step.model.config)
    before, start = resident_mb(), time.perf_counter()
    step()
    figures = {"peak_mb": peak_mb() - before, "seconds": time.perf_counter() - start}
    return {**figures, "planned_mb": planned_mb(step, variant)}


def both_allocators(variant: str, atoms: int, quick: bool) -> dict[str, float | str]:
    """Figures of fresh processes with large blocks through mmap and with the default allocator."""
    arguments = ["--one", variant, atoms, *["--quick"] * quick]
    live, resident = (
        in_fresh_process(__file__, *arguments, environment=environment)
        for environment in (LIVE, {})
    )
    return {
        "atoms": atoms,
        "variant": variant,
        "live_mb": live["peak_mb"],
        "resident_mb": resident["peak_mb"],
        "planned_mb": live["planned_mb"],
        "seconds": resident["seconds"],
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__, quick="8 and 12 atoms, 8 channels")
    parser.add_argument("--atoms", type=int, nargs="+", default=[20, 40, 80, 150])
    parser.add_argument(
        "--one", nargs=2, metavar=("VARIANT", "ATOMS"), help="one figure, in this process"
    )
    return parser.parse_args()


def main() -> None:
    """All sizes and variants in turn; the last line is one JSON object."""
    arguments = parse()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]), arguments.quick)))
        return
    rows = []
    for atoms in (8, 12) if arguments.quick else arguments.atoms:
        for variant in VARIANTS:
            if variant == "plain" and atoms > PLAIN_LIMIT:
                continue
            rows.append(both_allocators(variant, atoms, arguments.quick))
            print(LINE.format(**rows[-1]), flush=True)
    report("memory", config="configs/omol_csh_58k.yaml", rows=rows)


if __name__ == "__main__":
    main()
