"""The golden runs: twelve optimiser steps of five small models, as tables of numbers.

Four are pretraining runs exactly as launch/pretrain.py makes them from the YAML files beside this
one, read back from metrics.jsonl; the fifth is the finetuning of an energy model on energies and
forces. Every step has two micro-batches of unequal size (pretraining) or one batch of ragged
molecules (finetuning).
"""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from helm_scale import commands
from helm_scale.config import FinetuneConfig, HeadConfig, ModelConfig, PretrainConfig, load
from helm_scale.finetuning import modes
from helm_scale.finetuning import train as finetune
from helm_scale.finetuning.features import GraphCache
from helm_scale.finetuning.labels import fit_reference, read
from helm_scale.model.helm import Helm
from helm_scale.types import GraphBatch

FOLDER = Path(__file__).parent
Rows = dict[str, dict[str, float]]  # number of the step, or "end" -> quantity -> value
PRETRAINED = ("loss", "grad_norm", "h_mae_ueh", "h_mae_onsite_ueh", "h_mae_offsite_ueh")


def pretraining(name: str, dtype: str, data: Path, out: Path) -> Rows:
    """Train as NAME.yaml says; the last row holds the validation after the last step."""
    flags = {"config": FOLDER / f"{name}.yaml", "data.path": data, "out": out}
    flags |= {"model.dtype": dtype, "training.muon_dtype": dtype}
    commands.pretrain(load(PretrainConfig, [f"--{key}={value}" for key, value in flags.items()]))
    lines = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    rows = {str(line["step"]): {key: line[key] for key in PRETRAINED} for line in lines}
    end = {
        key: lines[-1][f"validation_{key}"]
        for key in PRETRAINED
        if f"validation_{key}" in lines[-1]
    }
    return rows | {"end": end}


def energy(dtype: str, data: Path, out: Path) -> Rows:
    """Finetune a trunk and a head with a message layer on energies and forces.

    The last row holds errors on a test molecule.
    """
    config = FinetuneConfig(
        data=str(data),
        validation_split="none",
        test_splits=("validation",),
        head=HeadConfig(kind="layer"),
        steps=12,
        batch_molecules=3,
        learning_rate=1e-2,
        backbone_learning_rate=5e-3,
        weight_decay=0.1,
        target="forces",
        force_weight=0.5,
    )
    torch.manual_seed(4)
    backbone = Helm(
        ModelConfig(
            lmax=6, mmax=2, channels=4, hidden_channels=6, edge_channels=8, num_layers=2,
            radial_functions=8, trunk_cutoff=2.4, dtype=dtype,
        )
    )  # fmt: skip
    labelled = read(config)
    splits = fit_reference(labelled)
    model = modes.start_model("finetuned", backbone, splits, config, seed=5)
    run = finetune.FinetuneRun(
        mode="finetuned",
        model=model,
        splits=splits,
        graphs=GraphCache(labelled.all_molecules(), model),
        features=model.select,
    )
    with _recorded() as rows:
        groups = modes.parameter_groups(model, "finetuned", config)
        finetune.train(run, groups, config, seed=6)
    errors = finetune.errors(run, splits.tests["validation"], forces=True)
    return rows | {"end": {"energy_mae": errors.mae, "force_mae": errors.force_mae or 0.0}}


@contextmanager
def _recorded() -> Iterator[Rows]:
    """Inside, every step of finetuning leaves its loss and the norm of its gradient."""
    rows: Rows = {}
    true_loss = finetune.loss

    def loss(run: finetune.FinetuneRun, batch: GraphBatch, force_weight: float) -> Tensor:
        value = true_loss(run, batch, force_weight)
        rows[str(len(rows) + 1)] = {"loss": value.item()}
        return value

    def before_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [
            p.grad.double()
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        rows[str(len(rows))]["grad_norm"] = float(torch.stack([g.norm() for g in gradients]).norm())

    hook = register_optimizer_step_pre_hook(before_step)
    try:
        with mock.patch.object(finetune, "loss", loss):
            yield rows
    finally:
        hook.remove()


@contextmanager
def _drawn_as(dtype: str) -> Iterator[None]:
    """Inside, weights are drawn in this dtype.

    torch's float32 normals differ in the last bit between processors.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


RUNS = {
    "helm": functools.partial(pretraining, "helm"),
    "minao": functools.partial(pretraining, "minao"),
    "flow": functools.partial(pretraining, "flow"),
    "soap": functools.partial(pretraining, "soap"),
    "energy": energy,
}
# In float32 SOAP gives components of the size of rounding errors a full step.
CASES = [
    (name, dtype)
    for name in RUNS
    for dtype in ("float64", "float32")
    if (name, dtype) != ("soap", "float32")
]


def run(name: str, dtype: str, data: Path, out: Path) -> Rows:
    """The numbers of a golden run.

    Args:
        data: folder of dataset.py. out: folder that is made for the run.
    """
    with _drawn_as(dtype):
        return RUNS[name](dtype, data, out)
