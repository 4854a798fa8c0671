"""Seconds of one training step, beside the machine's own rate of matrix products in the same run.

Forward and backward pass of every variant, and the optimiser's step of every config, which has the
same cost whatever the molecule; the table has the passes alone and with it.

python benchmarks/speed.py [--quick] [--atoms 40] [--threads 2]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from report import command_line, report
from synthetic import Step, model_config
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from helm_scale.config import PretrainConfig, load
from helm_scale.model.helm import Helm
from helm_scale.optim.build import hidden_names, make_optimizers
from helm_scale.parallel.flat_shards import from_replicated

VARIANTS = {
    "reference plain": ("omol_csh_58k", (0, "none", 1)),
    "reference fused": ("omol_csh_58k", (512, "none", 512)),
    "reference fused, messages recomputed": ("omol_csh_58k", (512, "messages", 512)),
    "lean fused": ("omol_csh_58k_lean", (512, "none", 512)),
}

PRODUCT = "matrix product"


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def operations(step: Step) -> int:
    """Floating-point operations of a step without recomputation."""
    step.model.set_memory(pair_chunk=0, recompute="none", message_chunk=1)
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def optimizers_of(config: str, model: Helm) -> list[Optimizer]:
    """The optimisers of a config, with gradients to step on."""
    trained = {name: from_replicated(tensor) for name, tensor in model.named_parameters()}
    for shard in trained.values():
        shard.local.grad = torch.randn_like(shard.local)
    training = load(PretrainConfig, ["--config", f"configs/{config}.yaml"]).training
    return make_optimizers(trained, training, hidden_names(model))


def in_turn(steps: dict[str, Step], square: torch.Tensor, rounds: int) -> dict[str, float]:
    """Median seconds of every variant, of a matrix product and of every config's optimisers."""
    optimizers = {config: optimizers_of(config, step.model) for config, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in (PRODUCT, *VARIANTS, *steps)}
    for _ in range(rounds + 1):  # the first round warms up
        times[PRODUCT].append(seconds(lambda: square @ square))
        for config, of_config in optimizers.items():
            times[config].append(seconds(lambda of=of_config: [o.step() for o in of]))
        for name, (config, memory) in VARIANTS.items():
            steps[config].model.set_memory(*memory)
            times[name].append(seconds(steps[config]))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__, quick="8 atoms, 8 channels, one round")
    parser.add_argument("--atoms", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    """All variants, round by round; the last line is one JSON object."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    atoms, rounds, size = (
        (8, 1, 256) if arguments.quick else (arguments.atoms, arguments.rounds, 4096)
    )
    square = torch.randn(size, size)
    configs = {config for config, _ in VARIANTS.values()}
    steps = {config: Step(atoms, model_config(config, arguments.quick)) for config in configs}
    flops = {config: operations(step) for config, step in steps.items()}
    median = in_turn(steps, square, rounds)
    rate = 2 * size**3 / median[PRODUCT]
    rows = {}
    for name, (config, _) in VARIANTS.items():
        share = flops[config] / median[name] / rate
        rows[name] = {
            "seconds": median[name],
            "seconds_with_optimizer": median[name] + median[config],
            "share_of_matrix_product_rate": share,
        }
        print(
            f"{name:38s} {median[name]:8.3f} s, {share:6.1%} of the rate of a matrix product;"
            f" with the optimiser's step {median[name] + median[config]:8.3f} s"
        )
    report("speed", atoms=atoms, threads=arguments.threads, gflop_per_second=rate / 1e9, rows=rows)


if __name__ == "__main__":
    main()
