"""Trains variants of a model on sets of molecules and counts what a step of each costs.

All take the same number of steps, seed by seed. Sets: "quickstart", the committed molecules of 58
elements (def2-TZVPD, H - H0); "water", 500 water conformers (def2-SVP, no H0; made by
benchmarks/water.py); "small", 600 molecules of 3 to 10 atoms and 200 others to test (def2-SVP, H -
H0; made by launch/low_data.py --config configs/low_data.yaml). Models are narrow ones with one or
two node layers.
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
from report import command_line, report
from synthetic import Step
from torch.utils.flop_counter import FlopCounterMode

from helm_scale import commands
from helm_scale.config import PretrainConfig, load

Model = Callable[[str, str], dict[str, Any]]  # set, variant -> settings of the model
ERRORS = ("h_mae", "h_mae_onsite", "h_mae_offsite")
LINE = "{set:10s} {variant:48s} {mean_h_mae_ueh:9.1f} uEh, operations {operations_of_first:.2f}"


@dataclass(frozen=True)
class Task:
    """What is trained: config, data, steps, and settings of the model beside the config's."""

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


def parse(description: str | None, sets: Sequence[str]) -> argparse.Namespace:
    """Read the command line: --quick, --sets, --seeds."""
    parser = command_line(description, quick="4 steps on the committed molecules, one seed")
    parser.add_argument("--sets", nargs="+", default=sets, choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sets, arguments.seeds = ["quickstart"], [0]
    torch.set_num_threads(1)
    return arguments


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run: of a benchmark, on a set, of a variant with these settings."""

    benchmark: str
    task: str
    variant: str
    model: dict[str, Any]
    seed: int
    quick: bool

    @property
    def steps(self) -> int:
        """Number of training steps."""
        return 4 if self.quick else TASKS[self.task].steps

    @property
    def out(self) -> Path:
        """Folder of the run."""
        name = f"{re.sub('[^a-z0-9]+', '-', self.variant.lower())}-{self.seed}"
        return Path("runs", self.benchmark + "-quick" * self.quick, self.task, name)

    @property
    def config(self) -> PretrainConfig:
        """Its config; it validates on the test split, once, at the end."""
        task = TASKS[self.task]
        settings = {
            "config": task.config,
            "out": self.out,
            "data.path": task.data,
            "data.validation_split": "test",
            "training.steps": self.steps,
            "training.warmup_steps": self.steps // 10,
            "training.seed": self.seed,
            "execution.validate_every": self.steps,
            "execution.checkpoint_every": self.steps,
            "execution.progress": "false",
            **{f"model.{name}": value for name, value in {**task.model, **self.model}.items()},
        }
        return load(PretrainConfig, [f"--{name}={value}" for name, value in settings.items()])


def compare(
    benchmark: str,
    arguments: argparse.Namespace,
    *,
    variants: Sequence[str],
    model: Model,
    before: Callable[[str], None] = lambda variant: None,
) -> None:
    """Train all variants in turn; the last line is one JSON object.

    Args:
        benchmark: its name. model: settings of a variant. before: called with a variant before its
            models are built.
    """
    rows: list[dict[str, Any]] = []
    for task in arguments.sets:
        runs = {
            (variant, seed): Run(
                benchmark=benchmark,
                task=task,
                variant=variant,
                model=model(task, variant),
                seed=seed,
                quick=arguments.quick,
            )
            for seed in arguments.seeds
            for variant in variants
        }
        errors = _train_all(runs, before)
        operations = {}
        for variant in variants:
            before(variant)
            operations[variant] = _operations(runs[variant, arguments.seeds[0]])
        for variant in variants:
            row = _row([errors[variant, seed] for seed in arguments.seeds])
            cost = operations[variant] / operations[variants[0]]
            rows.append({"set": task, "variant": variant, **row, "operations_of_first": cost})
    for row in rows:
        print(LINE.format(**row))
    steps = {task: 4 if arguments.quick else TASKS[task].steps for task in arguments.sets}
    report(benchmark, steps=steps, seeds=arguments.seeds, rows=rows)


def _train_all(
    runs: dict[tuple[str, int], Run], before: Callable[[str], None]
) -> dict[tuple[str, int], dict[str, float]]:
    """Figures of every run, {(variant, seed): ...}."""
    figures = {}
    for (variant, seed), run in runs.items():
        before(variant)
        figures[variant, seed] = _train(run)
        print(f"{run.task}, seed {seed}, {variant}: {figures[variant, seed]}", flush=True)
    return figures


def _row(of_seeds: list[dict[str, float]]) -> dict[str, Any]:
    """Errors of every seed, their mean, and the median time of a step."""
    each: dict[str, Any] = {name: [run[name] for run in of_seeds] for name in of_seeds[0]}
    seconds = statistics.median(each.pop("seconds_per_step"))
    mean = statistics.mean(each["h_mae_ueh"])
    return {**each, "mean_h_mae_ueh": mean, "seconds_per_step": seconds}


def _train(run: Run) -> dict[str, float]:
    """Test errors after the last step, and seconds per step."""
    start = time.perf_counter()
    commands.pretrain(run.config)
    seconds = time.perf_counter() - start
    last = json.loads((run.out / "metrics.jsonl").read_text().splitlines()[-1])
    errors = {f"{error}_ueh": last[f"validation_{error}_ueh"] for error in ERRORS}
    return {**errors, "seconds_per_step": seconds / run.steps}


def _operations(run: Run) -> int:
    """Operations of one step on a synthetic molecule of 40 atoms, without recomputation."""
    step = Step(40, run.config.model)
    step.model.set_memory(pair_chunk=0, recompute="none", message_chunk=1)
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())
