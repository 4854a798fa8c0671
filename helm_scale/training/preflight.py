"""What is known before the first step: do config, data and run folder fit, and what will it take."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helm_scale.batch import GraphBatch
from helm_scale.config import PretrainConfig, dump
from helm_scale.data.corpus import Corpus
from helm_scale.data.plan import StepPlan, check_world_size
from helm_scale.parallel import mesh
from helm_scale.parallel.engine import Objective
from helm_scale.training import checkpoint


def check(config: PretrainConfig) -> tuple[Corpus, StepPlan]:
    """Check that config, data, launch and run folder fit each other, before any process group starts.

    Returns:
        the dataset, and the order in which it is seen.
    Raises:
        ValueError: names what does not fit, both values and the remedy.
    """
    mesh.check_launch(config.execution)
    if config.training.working_precision == "bfloat16" and config.execution.engine in ("single", "ddp"):
        raise ValueError(
            f"training.working_precision: got bfloat16 with engine '{config.execution.engine}'; wanted fsdp2 or zero1, zero2, zero3"
        )
    dataset, settings = Corpus.open(config.data), config.training
    check_data(config, dataset)
    dataset.split(config.data.validation_split)
    check_world_size(settings.bins, mesh.launched_world_size() // config.execution.pair_ranks)
    plan = dataset.plan(settings.batch_molecules, settings.bins, settings.seed)
    checkpoint.check_record(Path(config.out), record(config, dataset), config.accept_changes)
    return dataset, plan


def record(config: PretrainConfig, dataset: Corpus) -> dict[str, Any]:
    """What model.json holds: the model, the method of its labels, and how it was trained."""
    return {
        "model": config.model.model_dump(mode="json"),
        "method": asdict(dataset.method),
        "data": {"manifest_sha256": dataset.hash, "train_split": config.data.train_split, "licence": dataset.licence},
        "training": config.training.model_dump(mode="json"),
    }


def check_data(config: PretrainConfig, dataset: Corpus) -> None:
    """Raise ValueError unless the dataset holds what the model is to learn; names both sides."""
    if "hamiltonian" not in dataset.labels:
        raise ValueError(
            f"{dataset.folder}: has the labels {', '.join(dataset.labels) or 'none'}, wanted hamiltonian; pretraining needs it"
        )
    model, method = config.model, dataset.method
    for name in (*model.conditions, *config.loss_matrices):
        if name not in dataset.labels:
            remedy = "--overlap true" if name == "overlap" else "--baseline minao"
            raise ValueError(f"{dataset.folder}: has no {name}, which the settings of model or loss ask for; generate data with {remedy}")
    if model.basis != method.basis:
        raise ValueError(
            f"model.basis: got '{model.basis}', but {dataset.folder} holds '{method.basis}';"
            f" set model.basis to {method.basis}, or name other data"
        )
    if model.baseline not in ("none", method.baseline):
        raise ValueError(
            f"model.baseline: got '{model.baseline}', but {dataset.folder} holds the H0 '{method.baseline}';"
            f" generate data with --baseline {model.baseline}, or set model.baseline to {method.baseline}"
        )


def describe(config: PretrainConfig, dataset: Corpus, plan: StepPlan, model: nn.Module, activations: Mapping[str, Any]) -> str:
    """Resolved config, parameters, data and an estimate of memory, as text.

    Args:
        activations: what `measure_activations` found.
    """
    train, validation = dataset.split(config.data.train_split), dataset.split(config.data.validation_split)
    steps_per_epoch = len(train) / config.training.batch_molecules
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weight_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    state_bytes = (4 + bool(config.training.ema_decay)) * weight_bytes  # weight, gradient, two moments; Muon keeps one less
    verified = "every shard and sample verified" if dataset.local == list(dataset.manifests) else "remote shards are verified on arrival"
    heaviest = max(_bin_costs(plan, dataset, range(max(1, round(steps_per_epoch)))))
    return "\n".join(
        [
            dump(config),
            f"parameters: {parameters:,}",
            f"data: {dataset.folder}, {verified}; {len(train)} molecules in '{config.data.train_split}',"
            f" {len(validation)} in '{config.data.validation_split}'",
            f"steps: {config.training.steps:,}; {steps_per_epoch:.1f} per epoch; {config.training.steps / steps_per_epoch:.1f} epochs",
            f"memory, weights with gradients and optimiser: {state_bytes / 1e6:,.0f} MB (fsdp2 divides it by the number of ranks)",
            f"memory, kept for backward by the costliest micro-batch of the first epoch: about"
            f" {activations['bytes'] / activations['cost'] * heaviest / 1e6:,.0f} MB"
            f" (scaled by cost from '{activations['key']}': {activations['bytes'] / 1e6:,.1f} MB)",
        ]
    )


def measure_activations(
    model: nn.Module, objective: Objective, dataset: Corpus, samples: Sequence[int], load: Callable[[int], GraphBatch]
) -> dict[str, Any]:
    """Bytes that one molecule of median cost keeps for backward.

    Args:
        samples: candidates, by index. load: sample index -> batch of it alone.
    Returns:
        {"key", "cost", "bytes"}.
    """
    index = sorted(samples, key=lambda i: float(dataset.cost[i]))[len(samples) // 2]
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        sums = objective(model, load(index))
    assert sums.total.requires_grad  # the graph, and with it every kept tensor, lives up to here
    return {"key": str(dataset.key[index]), "cost": float(dataset.cost[index]), "bytes": sum(kept.values())}


def _bin_costs(plan: StepPlan, dataset: Corpus, steps: range) -> list[float]:
    costs = dataset.cost
    return [float(costs[members].sum()) for step in steps for members in plan.bins_of(step)]
