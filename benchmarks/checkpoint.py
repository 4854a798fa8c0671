"""Seconds that training stands still for a checkpoint of the OMol model, written in the background
against written at once.

The model of configs/omol_csh_58k.yaml with its optimisers, after one step, in one process.
Background and at once are taken in turn. Standing still is the time in the calls of the training
loop; the disk works on after them. Bytes on disk are compared with the least that a resume needs:
weights and optimiser states once.

    python benchmarks/checkpoint.py [--quick]     ends with one JSON object; --quick: a small model
"""

import json
import platform
import statistics
import sys
import tempfile
import time

import numpy as np
import torch
from torch import Tensor, nn

from helm_scale.config import PretrainConfig, load
from helm_scale.data.graphs.collate import collate
from helm_scale.losses.hamiltonian import LossSums
from helm_scale.model.helm import Helm
from helm_scale.optim.build import hidden_names, make_optimizers
from helm_scale.parallel import startup
from helm_scale.parallel.build import build_engine
from helm_scale.pretraining import checkpoint
from helm_scale.pretraining.saver import Saver
from helm_scale.types import GraphBatch, Molecule

SMALL = [
    "--model.channels",
    "16",
    "--model.hidden_channels",
    "16",
    "--model.edge_channels",
    "16",
    "--model.num_layers",
    "1",
    "--model.pair_layers",
    "1",
]


class WeightDecay:
    """An objective whose gradient costs nothing: half the sum of all squared weights."""

    def __call__(self, model: nn.Module, batch: GraphBatch) -> LossSums:
        """Run no model."""
        total = (
            torch.stack([parameter.square().sum() for parameter in model.parameters()]).sum() / 2
        )
        return LossSums(total, torch.ones((), dtype=torch.float64))

    @staticmethod
    def loss(total: Tensor, count: Tensor) -> Tensor:
        """The sum itself."""
        return total / count


def stands_still(saver: Saver, step: int) -> tuple[float, float]:
    """Seconds in the calls of the loop for one checkpoint, and seconds until it is committed."""
    begun = time.perf_counter()
    saver.start(step, None)
    still = time.perf_counter() - begun
    while saver.pending:
        if saver.written:
            sealing = time.perf_counter()
            saver.seal()
            still += time.perf_counter() - sealing
        time.sleep(0.001)
    saver.finish()
    assert not saver.failure
    return still, time.perf_counter() - begun


def main() -> None:
    """Measure; the last line is one JSON object."""
    quick = "--quick" in sys.argv
    rounds = 1 if quick else 5
    with tempfile.TemporaryDirectory(dir=".") as folder:
        flags = [
            "--config",
            "configs/omol_csh_58k.yaml",
            "--out",
            folder,
            "--execution.engine",
            "single",
            "--execution.replicas",
            "1",
        ]
        flags += [
            "--training.ema_decay",
            "0",
            "--execution.device",
            "cpu",
            *(SMALL if quick else []),
        ]
        config = load(PretrainConfig, flags)
        model = Helm(config.model)
        hidden = hidden_names(model)
        hydrogen = collate([Molecule("h", np.array([1]), np.zeros((1, 3)))], config.model)
        with startup.process_group(config.execution) as ranks:
            make = lambda trained: make_optimizers(trained, config.training, hidden)  # noqa: E731
            engine = build_engine(
                config.execution,
                ranks,
                model=model,
                objective=WeightDecay(),
                make_optimizers=make,
                clip_norm=0.0,
                empty=hydrogen,
            )
            engine.step([hydrogen], 1e-3)
            savers = {}
            for name, background in (("background", True), ("at_once", False)):
                execution = config.execution.model_copy(update={"background_save": background})
                savers[name] = Saver(
                    config.model_copy(update={"execution": execution}), engine, None, {}
                )
            seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in savers}
            for number in range(rounds + 1):
                for place, (name, saver) in enumerate(savers.items()):
                    seconds[name].append(stands_still(saver, 2 * number + place + 1))
            written = sum(
                path.stat().st_size
                for path in checkpoint.committed(folder)[-1].rglob("*")
                if path.is_file()
            )
            least = sum(
                tensor.numel() * 4
                for tensor in engine.capture(True).tensors.values()
                if tensor.dtype == torch.float32
            )
    row = {
        name: statistics.median(still for still, _ in times[1:]) for name, times in seconds.items()
    }
    print(
        json.dumps(
            {
                "benchmark": "checkpoint",
                "hardware": "2 CPU cores",
                "torch": torch.__version__,
                "python": platform.python_version(),
                "command": "python benchmarks/checkpoint.py" + " --quick" * quick,
                "rounds": rounds,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "background_seconds": row["background"],
                "at_once_seconds": row["at_once"],
                "ratio": row["at_once"] / row["background"],
                "background_committed_seconds": statistics.median(
                    total for _, total in seconds["background"][1:]
                ),
                "bytes_on_disk": written,
                "least_bytes": least,
                "bytes_ratio": written / least,
            }
        )
    )


if __name__ == "__main__":
    main()
