"""An epoch of a frozen backbone over 1,000 molecules, on features that are kept on disk and
without: seconds and their ratio.

The head is the perceptron, which learns by steps; both ways take the same steps on the same
batches, in turn.

    python benchmarks/finetune_cache.py [--quick]
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from helm_scale.config import FinetuneConfig, HeadConfig, ModelConfig
from helm_scale.finetuning import modes, train
from helm_scale.finetuning.features import GraphCache, cached_features, from_cache
from helm_scale.finetuning.labels import LabelledSplits, fit_reference
from helm_scale.model.helm import Helm
from helm_scale.types import Molecule

BATCH = 16  # molecules per step
ELEMENTS, SHARES = (1, 6, 7, 8), (0.5, 0.3, 0.1, 0.1)


def molecules(count: int, generator: np.random.Generator) -> tuple[Molecule, ...]:
    """Molecules of 6 to 14 atoms on a jittered grid of 1.4 Angstrom, with energies of no
    meaning."""
    grid = 1.4 * np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)
    found = []
    for number in range(count):
        size = int(generator.integers(6, 15))
        x = grid[generator.permutation(len(grid))[:size]] + generator.uniform(
            -0.1, 0.1, size=(size, 3)
        )
        found.append(
            Molecule(
                f"m{number}",
                generator.choice(ELEMENTS, size, p=SHARES),
                x,
                energy=float(generator.normal()),
            )
        )
    return tuple(found)


def epoch_seconds(run: train.FinetuneRun, config: FinetuneConfig) -> float:
    """Time of one epoch."""
    groups = modes.parameter_groups(run.model, "frozen", config)
    begin = time.perf_counter()
    train.train(run, groups, config, seed=0)
    return time.perf_counter() - begin


def main() -> None:
    """The last line is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="64 molecules, a narrow model")
    quick = parser.parse_args().quick
    count, channels, lmax = (64, 8, 4) if quick else (1000, 64, 4)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = ModelConfig(
        basis="def2-svp",
        lmax=lmax,
        mmax=lmax,
        channels=channels,
        hidden_channels=channels,
        edge_channels=channels,
        num_layers=2,
    )
    found = molecules(count, np.random.default_rng(0))
    splits = fit_reference(LabelledSplits(train=found, tests={"test": found[:10]}))
    config = FinetuneConfig(
        head=HeadConfig(kind="mlp"), batch_molecules=BATCH, steps=-(-count // BATCH)
    )
    model = modes.start_model("frozen", Helm(shape), splits, config, seed=0)
    graphs = GraphCache(found, model)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        kept = from_cache(cached_features(model, found, Path(folder)))
        making = time.perf_counter() - begin
    runs = {
        name: train.FinetuneRun(
            mode="frozen", model=model, splits=splits, graphs=graphs, features=features
        )
        for name, features in (("kept", kept), ("computed", model.select))
    }
    epoch_seconds(runs["kept"], config.model_copy(update={"steps": 1}))
    seconds = {name: epoch_seconds(run, config) for name, run in runs.items()}
    print(
        json.dumps(
            {
                "benchmark": "finetune_cache",
                "molecules": count,
                "batch_molecules": BATCH,
                "channels": channels,
                "lmax": lmax,
                "torch": torch.__version__,
                "hardware": f"{platform.machine()}, one CPU thread",
                "making_seconds": round(making, 3),
                **{f"{name}_epoch_seconds": round(value, 4) for name, value in seconds.items()},
                "ratio": round(seconds["kept"] / seconds["computed"], 5),
            }
        )
    )


if __name__ == "__main__":
    main()
