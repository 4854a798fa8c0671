"""Seconds that training stands still for a checkpoint, written in the background or at once.

The model of configs/omol_csh_58k.yaml with its optimisers, after one step, in one process. Both
ways are taken in turn. Standing still is the time in the calls of the training loop; the disk works
on after them. Bytes on disk are compared with the least that a resume needs: weights and optimiser
states once.

    python benchmarks/checkpoint.py [--quick]
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from report import command_line, report
from torch import Tensor, nn

from helm_scale.config import PretrainConfig, load
from helm_scale.data.graphs.collate import collate
from helm_scale.losses.hamiltonian import LossSums
from helm_scale.model.helm import Helm
from helm_scale.optim.build import hidden_names, make_optimizers
from helm_scale.parallel import startup
from helm_scale.parallel.build import build_engine
from helm_scale.parallel.engine import Engine
from helm_scale.parallel.processes import Processes
from helm_scale.pretraining import checkpoint
from helm_scale.pretraining.saver import Saver
from helm_scale.types import GraphBatch, Molecule

SMALL = [
    "--model.channels=16",
    "--model.hidden_channels=16",
    "--model.edge_channels=16",
    "--model.num_layers=1",
    "--model.pair_layers=1",
]
WAYS = {"background": True, "at_once": False}  # execution.background_save


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
    saver.finish()
    assert not saver.failure
    return still, time.perf_counter() - begun


def settings(folder: str, quick: bool) -> PretrainConfig:
    """Config of the run that is saved."""
    flags = [
        "--config=configs/omol_csh_58k.yaml",
        f"--out={folder}",
        "--execution.engine=single",
        "--execution.replicas=1",
        "--execution.pair_ranks=1",
        "--execution.device=cpu",
        "--training.ema_decay=0",
    ]
    return load(PretrainConfig, [*flags, *(SMALL if quick else [])])


def trained(config: PretrainConfig, processes: Processes, model: Helm) -> Engine:
    """An engine that has made one step, so that the optimisers have states."""
    hydrogen = collate([Molecule("h", np.array([1]), np.zeros((1, 3)))], config.model)
    hidden = hidden_names(model)
    engine = build_engine(
        config.execution,
        processes,
        model=model,
        objective=WeightDecay(),
        make_optimizers=lambda module: make_optimizers(module, config.training, hidden),
        clip_norm=0.0,
        empty=hydrogen,
    )
    engine.step([hydrogen], 1e-3)
    return engine


def save_in_turn(
    config: PretrainConfig, engine: Engine, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Both times of every checkpoint of every way, without the first round, which warms up."""
    savers = {}
    for way, background in WAYS.items():
        execution = config.execution.model_copy(update={"background_save": background})
        savers[way] = Saver(
            execution, engine, folder=Path(config.out), average=None, record={}, settings=""
        )
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for place, (way, saver) in enumerate(savers.items()):
            seconds[way].append(stands_still(saver, 2 * number + place + 1))
    return {way: times[1:] for way, times in seconds.items()}


def size_on_disk(folder: str) -> int:
    """Bytes of the last committed checkpoint."""
    files = checkpoint.committed(folder)[-1].rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def least_size(engine: Engine) -> int:
    """Bytes of weights and optimiser states."""
    tensors = engine.capture(True).tensors.values()
    return sum(tensor.numel() * 4 for tensor in tensors if tensor.dtype == torch.float32)


def main() -> None:
    """Measure; the last line is one JSON object."""
    quick = command_line(__doc__, quick="a small model, one round").parse_args().quick
    rounds = 1 if quick else 5
    with tempfile.TemporaryDirectory(dir=".") as folder:
        config = settings(folder, quick)
        model = Helm(config.model)
        with startup.process_group(config.execution) as processes:
            engine = trained(config, processes, model)
            seconds = save_in_turn(config, engine, rounds)
            written, least = size_on_disk(folder), least_size(engine)
    still = {way: statistics.median(stop for stop, _ in times) for way, times in seconds.items()}
    report(
        "checkpoint",
        rounds=rounds,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        background_seconds=still["background"],
        at_once_seconds=still["at_once"],
        ratio=still["at_once"] / still["background"],
        background_committed_seconds=statistics.median(total for _, total in seconds["background"]),
        bytes_on_disk=written,
        least_bytes=least,
        bytes_ratio=written / least,
    )


if __name__ == "__main__":
    main()
