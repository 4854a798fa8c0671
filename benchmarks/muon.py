"""One Muon step on stacks of matrices of one shape against torch's own, matrix by matrix.

For the models of two configs: milliseconds of torch's step, which is in bfloat16, and how many
times as long it takes as ours, in float32 and in bfloat16.

    python benchmarks/muon.py [--quick]
"""

import statistics
import time
from itertools import pairwise

import torch
from report import command_line, report

from helm_scale.config import PretrainConfig, load
from helm_scale.model.helm import Helm
from helm_scale.optim.muon import StackedMuon
from helm_scale.parallel.flat_shards import from_replicated

CONFIGS = ("configs/water.yaml", "configs/quickstart.yaml")
OPTIONS = {"lr": 1e-2, "momentum": 0.95, "weight_decay": 0.1}


def seconds(optimizers: list[torch.optim.Optimizer], repeats: int) -> list[float]:
    """Median seconds of a step of each, taken in turn after one round to warm up."""
    rounds = []
    for _ in range(repeats + 1):
        times = [time.perf_counter()]
        for optimizer in optimizers:
            optimizer.step()
            times.append(time.perf_counter())
        rounds.append([after - before for before, after in pairwise(times)])
    return [statistics.median(column) for column in zip(*rounds[1:], strict=True)]


def measure(path: str, repeats: int) -> dict[str, float]:
    """Compare the steps for the hidden matrices of a config's model."""
    matrices = Helm(load(PretrainConfig, ["--config", path]).model).hidden_matrices()
    for matrix in matrices:
        matrix.grad = torch.randn_like(matrix)
    held = [from_replicated(matrix) for matrix in matrices]
    for shard in held:
        shard.local.grad = torch.randn_like(shard.local)
    ours = [StackedMuon(held, dtype, **OPTIONS) for dtype in (torch.float32, torch.bfloat16)]
    theirs, single, half = seconds(
        [torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **OPTIONS), *ours], repeats
    )
    return {
        "matrices": len(matrices),
        "torch_ms": 1e3 * theirs,
        "float32_ratio": theirs / single,
        "bfloat16_ratio": theirs / half,
    }


def main() -> None:
    """Both configs; the last line is one JSON object."""
    quick = command_line(__doc__, quick="one repeat").parse_args().quick
    torch.set_num_threads(1)
    report("muon", rows={path: measure(path, 1 if quick else 20) for path in CONFIGS})


if __name__ == "__main__":
    main()
