"""Seconds of an epoch of a frozen backbone, on features that are kept on disk and without.

The epoch has 1,000 molecules. The head is the perceptron, which learns by steps; both ways take the
same steps on the same batches, in turn.

    python benchmarks/finetune_cache.py [--quick]
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from report import command_line, report

from helm_scale.config import FinetuneConfig, HeadConfig, ModelConfig
from helm_scale.finetuning import modes, train
from helm_scale.finetuning.features import GraphCache, cached_features, from_cache
from helm_scale.finetuning.labels import LabelledSplits, fit_reference
from helm_scale.model.helm import Helm
from helm_scale.types import Molecule

BATCH, LMAX = 16, 4  # molecules per step, largest degree
ELEMENTS, SHARES = (1, 6, 7, 8), (0.5, 0.3, 0.1, 0.1)


def molecules(count: int, generator: np.random.Generator) -> tuple[Molecule, ...]:
    """Molecules of 6 to 14 atoms on a jittered grid of 1.4 Angstrom; energies mean nothing."""
    grid = 1.4 * np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)
    made = []
    for number in range(count):
        size = int(generator.integers(6, 15))
        places = grid[generator.permutation(len(grid))[:size]]
        positions = places + generator.uniform(-0.1, 0.1, size=(size, 3))
        numbers = generator.choice(ELEMENTS, size, p=SHARES)
        energy = float(generator.normal())
        made.append(Molecule(f"m{number}", numbers, positions, energy=energy))
    return tuple(made)


def epoch_seconds(run: train.FinetuneRun, config: FinetuneConfig) -> float:
    """Time of one epoch."""
    groups = modes.parameter_groups(run.model, "frozen", config)
    begin = time.perf_counter()
    train.train(run, groups, config, seed=0)
    return time.perf_counter() - begin


def backbone(channels: int) -> Helm:
    """A model of two layers with random weights."""
    torch.manual_seed(0)
    shape = ModelConfig(
        basis="def2-svp",
        lmax=LMAX,
        mmax=LMAX,
        channels=channels,
        hidden_channels=channels,
        edge_channels=channels,
        num_layers=2,
    )
    return Helm(shape)


def measure(count: int, channels: int) -> tuple[float, dict[str, float]]:
    """Seconds in which the features are made, and those of an epoch with and without them."""
    trained_on = molecules(count, np.random.default_rng(0))
    splits = fit_reference(LabelledSplits(train=trained_on, tests={"test": trained_on[:10]}))
    config = FinetuneConfig(
        head=HeadConfig(kind="mlp"), batch_molecules=BATCH, steps=-(-count // BATCH)
    )
    model = modes.start_model("frozen", backbone(channels), splits, config, seed=0)
    graphs = GraphCache(trained_on, model)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        kept = from_cache(cached_features(model, trained_on, Path(folder)))
        making = time.perf_counter() - begin
    runs = {
        name: train.FinetuneRun(
            mode="frozen", model=model, splits=splits, graphs=graphs, features=features
        )
        for name, features in (("kept", kept), ("computed", model.select))
    }
    epoch_seconds(runs["kept"], config.model_copy(update={"steps": 1}))  # warms up
    return making, {name: epoch_seconds(run, config) for name, run in runs.items()}


def main() -> None:
    """Measure; the last line is one JSON object."""
    quick = command_line(__doc__, quick="64 molecules, a narrow model").parse_args().quick
    torch.set_num_threads(1)
    count, channels = (64, 8) if quick else (1000, 64)
    making, seconds = measure(count, channels)
    report(
        "finetune_cache",
        molecules=count,
        batch_molecules=BATCH,
        channels=channels,
        lmax=LMAX,
        threads=1,
        making_seconds=round(making, 3),
        **{f"{name}_epoch_seconds": round(value, 4) for name, value in seconds.items()},
        ratio=round(seconds["kept"] / seconds["computed"], 5),
    )


if __name__ == "__main__":
    main()
