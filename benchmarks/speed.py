"""Seconds of one training step, variants in turn, beside the machine's own rate of matrix products
in the same run.

python benchmarks/speed.py [--quick] [--atoms 40] [--threads 2]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from synthetic import Step, model_config
from torch.utils.flop_counter import FlopCounterMode

VARIANTS = {
    "reference plain": ("omol_csh_58k", (0, "none", 1)),
    "reference fused": ("omol_csh_58k", (512, "none", 512)),
    "reference fused, messages recomputed": ("omol_csh_58k", (512, "messages", 512)),
    "lean fused": ("omol_csh_58k_lean", (512, "none", 512)),
}


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """All variants, round by round; the last line is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="8 atoms, 8 channels, one round")
    parser.add_argument("--atoms", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    atoms, rounds, size = (
        (8, 1, 256) if arguments.quick else (arguments.atoms, arguments.rounds, 4096)
    )
    square = torch.randn(size, size)
    steps = {
        config: Step(atoms, model_config(config, arguments.quick))
        for config, _ in VARIANTS.values()
    }
    flops = {}
    for name, step in steps.items():
        step.model.set_memory(pair_chunk=0, recompute="none", message_chunk=1)
        with FlopCounterMode(display=False) as counter:
            step()
        flops[name] = counter.get_total_flops()
    times: dict[str, list[float]] = {"matrix product": [], **{name: [] for name in VARIANTS}}
    for _ in range(rounds + 1):  # the first round warms up
        times["matrix product"].append(seconds(lambda: square @ square))
        for name, (config, memory) in VARIANTS.items():
            steps[config].model.set_memory(*memory)
            times[name].append(seconds(steps[config]))
    median = {name: statistics.median(found[1:]) for name, found in times.items()}
    rate = 2 * size**3 / median["matrix product"]
    rows = {
        name: {
            "seconds": median[name],
            "share_of_matrix_product_rate": flops[config] / median[name] / rate,
        }
        for name, (config, _) in VARIANTS.items()
    }
    for name, row in rows.items():
        print(
            f"{name:38s} {row['seconds']:8.3f} s, {100 * row['share_of_matrix_product_rate']:5.1f} "
            f"% of the rate of a matrix product"
        )
    print(
        json.dumps(
            {
                "benchmark": "speed",
                "atoms": atoms,
                "threads": arguments.threads,
                "gflop_per_second": rate / 1e9,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
