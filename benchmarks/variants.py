"""Trains variants of a model on sets of molecules, the same number of steps, seed by seed, and
counts what a step of each costs.

Sets: "quickstart", the committed molecules of 58 elements (def2-TZVPD, H - H0); "water", 500 water
conformers (def2-SVP, no H0; made by benchmarks/water.py); "small", 600 molecules of 3 to 10 atoms
and 200 others to test (def2-SVP, H - H0; made by launch/low_data.py --config
configs/low_data.yaml). Models are narrow ones with one or two node layers.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from synthetic import Step
from torch.utils.flop_counter import FlopCounterMode

from helm_scale import commands
from helm_scale.config import PretrainConfig, load

Model = Callable[[str, str], dict[str, Any]]  # set, variant -> settings of the model
ERRORS = ("h_mae", "h_mae_onsite", "h_mae_offsite")


@dataclass(frozen=True)
class Task:
    """What is trained: a config, data, steps, and settings of the model beside those of the
    config."""

    config: str
    data: str
    steps: int
    model: dict[str, Any] = field(default_factory=dict)


TASKS = {
    "quickstart": Task("configs/quickstart.yaml", "data_shards/quickstart", 400),
    "water": Task("configs/water.yaml", "runs/water/data", 1000),
    "small": Task(
        "configs/quickstart.yaml",
        "runs/low_data/data",
        1000,
        {"basis": "def2-svp", "lmax": 4, "mmax": 4, "trunk_cutoff": 5.0, "pair_cutoff": 9.0},
    ),
}


def asked(description: str | None, sets: Sequence[str]) -> argparse.Namespace:
    """The command line: --quick, --sets, --seeds."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="4 steps on the committed molecules, one seed"
    )
    parser.add_argument("--sets", nargs="+", default=sets, choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sets, arguments.seeds = ["quickstart"], [0]
    torch.set_num_threads(1)
    return arguments


def compare(
    name: str,
    arguments: argparse.Namespace,
    variants: Sequence[str],
    model: Model,
    take: Callable[[str], None],
) -> None:
    """Train all variants in turn; the last line is one JSON object.

    Args:
        name: of the benchmark. take: called with a variant before its models are built.
    """
    rows: list[dict[str, Any]] = []
    for task in arguments.sets:
        found: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
        for seed in arguments.seeds:
            for variant, runs in found.items():
                take(variant)
                runs.append(_train(_flags(name, task, variant, seed, model, arguments.quick)))
                print(f"{task}, seed {seed}, {variant}: {json.dumps(runs[-1])}", flush=True)
        cost = {}
        for variant in variants:
            take(variant)
            cost[variant] = _operations(_flags(name, task, variant, 0, model, quick=False))
        for variant, runs in found.items():
            each = {key: [run[key] for run in runs] for key in runs[0]}
            seconds = statistics.median(each.pop("seconds_per_step"))
            means = {
                "mean_h_mae_ueh": statistics.mean(each["h_mae_ueh"]),
                "seconds_per_step": seconds,
            }
            rows.append(
                {
                    "set": task,
                    "variant": variant,
                    **each,
                    **means,
                    "operations_of_first": cost[variant] / cost[variants[0]],
                }
            )
    for row in rows:
        print(
            "{set:10s} {variant:48s} {mean_h_mae_ueh:9.1f} uEh, operations "
            "{operations_of_first:.2f}".format(**row)
        )
    steps = {task: 4 if arguments.quick else TASKS[task].steps for task in arguments.sets}
    print(json.dumps({"benchmark": name, "steps": steps, "seeds": arguments.seeds, "rows": rows}))


def _flags(name: str, task: str, variant: str, seed: int, model: Model, quick: bool) -> list[str]:
    """Command line of one training run; its validation is the test split, once, at the end."""
    found = TASKS[task]
    steps = 4 if quick else found.steps
    out = Path(
        "runs",
        f"{name}-quick" if quick else name,
        task,
        f"{re.sub('[^a-z0-9]+', '-', variant.lower())}-{seed}",
    )
    settings = [
        item
        for key, value in {**found.model, **model(task, variant)}.items()
        for item in (f"--model.{key}", str(value))
    ]
    training = [
        "--training.steps",
        str(steps),
        "--training.warmup_steps",
        str(steps // 10),
        "--training.seed",
        str(seed),
    ]
    once = [
        "--execution.validate_every",
        str(steps),
        "--execution.checkpoint_every",
        str(steps),
        "--execution.progress",
        "false",
    ]
    data = ["--data.path", found.data, "--data.validation_split", "test", "--out", str(out)]
    return ["--config", found.config, *data, *settings, *training, *once]


def _train(flags: list[str]) -> dict[str, float]:
    """Test errors after the last step, and seconds per step."""
    config = load(PretrainConfig, flags)
    start = time.perf_counter()
    commands.pretrain(config)
    seconds = time.perf_counter() - start
    last = json.loads((Path(config.out) / "metrics.jsonl").read_text().splitlines()[-1])
    return {
        **{f"{error}_ueh": last[f"validation_{error}_ueh"] for error in ERRORS},
        "seconds_per_step": seconds / config.training.steps,
    }


def _operations(flags: list[str]) -> int:
    """Operations of one step on a synthetic molecule of 40 atoms, without recomputation."""
    step = Step(40, load(PretrainConfig, flags).model)
    step.model.set_memory(pair_chunk=0, recompute="none", message_chunk=1)
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())
