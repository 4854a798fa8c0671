"""What is known before the first step: do config, data and run folder fit, and what will it
take."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from helm_scale.config import FORMAT, PretrainConfig, dump
from helm_scale.data.loading.dataset import Dataset
from helm_scale.data.loading.sampler import Sampler, check_world_size
from helm_scale.data.tools.statistics import DatasetStatistics, gather_statistics, spread_over_costs
from helm_scale.parallel import startup
from helm_scale.pretraining import checkpoint
from helm_scale.pretraining.memory.footprint import Load
from helm_scale.pretraining.memory.plan import Planner

_log = logging.getLogger(__name__)
MOLECULES_READ = 64  # molecules read for what the manifest does not say


def check(config: PretrainConfig) -> tuple[Dataset, Sampler]:
    """Check that config, data, launch and run folder fit each other, before any process group
    starts.

    Returns:
        the dataset, and the order in which it is seen.
    Raises:
        ValueError: names what does not fit, both values and the remedy.
    """
    startup.check_launch(config.execution)
    if config.training.working_precision == "bfloat16":
        startup.require(
            config.execution, "low_precision", "training.working_precision: got bfloat16"
        )
    dataset, settings = Dataset.open(config.data), config.training
    check_data(config, dataset)
    dataset.split(config.data.validation_split)
    check_world_size(
        settings.micro_batches, startup.launched_world_size() // config.execution.pair_ranks
    )
    sampler = dataset.sampler(settings.batch_molecules, settings.micro_batches, settings.seed)
    checkpoint.check_record(Path(config.out), record(config, dataset), config.allow_config_change)
    return dataset, sampler


def record(config: PretrainConfig, dataset: Dataset) -> dict[str, Any]:
    """What model.json holds: the model, the method of its labels, and how it was trained."""
    return {
        "format": FORMAT,
        "model": config.model.model_dump(mode="json"),
        "method": asdict(dataset.method),
        "data": {
            "manifest_sha256": dataset.hash,
            "train_split": config.data.train_split,
            "licence": dataset.licence,
        },
        "training": config.training.model_dump(mode="json"),
    }


def check_data(config: PretrainConfig, dataset: Dataset) -> None:
    """Raise ValueError unless the dataset holds what the model is to learn; names both sides."""
    if "hamiltonian" not in dataset.labels:
        raise ValueError(
            f"{dataset.folder}: has the labels {', '.join(dataset.labels) or 'none'}, wanted hamiltonian; pretraining needs it"
        )
    model, method = config.model, dataset.method
    for name in (*model.conditions, *config.loss_matrices):
        if name not in dataset.labels:
            remedy = "--overlap true" if name == "overlap" else "--baseline minao"
            raise ValueError(
                f"{dataset.folder}: has no {name}, which the settings of model or loss ask for; generate data with {remedy}"
            )
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


def within_memory(config: PretrainConfig, dataset: Dataset, sampler: Sampler) -> PretrainConfig:
    """The config with the chunks that fit execution.memory_limit_gib; as it is where there is no
    limit.

    Raises:
        ValueError: a molecule of the training split cannot fit; names it.
    """
    if not config.execution.memory_limit_gib:
        return config
    found = Planner(config, dataset, sampler, startup.launched_world_size()).choose()
    _log.info("memory of a rank:\n%s", found.text(config.execution.memory_limit_gib))
    return config.model_copy(
        update={"execution": config.execution.model_copy(update=found.memory._asdict())}
    )


def describe(config: PretrainConfig, dataset: Dataset, sampler: Sampler, world_size: int) -> str:
    """Resolved config, data, what block sparsity saves, and the memory of every rank, as text.

    Raises:
        ValueError: a molecule of the training split cannot fit execution.memory_limit_gib; names
            it.
    """
    train, validation = (
        dataset.split(config.data.train_split),
        dataset.split(config.data.validation_split),
    )
    steps_per_epoch = len(train) / config.training.batch_molecules
    found = gather_statistics(
        dataset, spread_over_costs(dataset, train, MOLECULES_READ), config.model
    )
    verified = (
        "every shard and sample verified"
        if dataset.local == list(dataset.manifests)
        else "remote shards are verified on arrival"
    )
    return "\n".join(
        [
            dump(config),
            f"data: {dataset.folder}, {verified}; {len(train)} molecules in '{config.data.train_split}',"
            f" {len(validation)} in '{config.data.validation_split}'",
            f"steps: {config.training.steps:,}; {steps_per_epoch:.1f} per epoch; {config.training.steps / steps_per_epoch:.1f} epochs",
            found.text(),
            *_plan_lines(config, dataset, sampler, world_size, found),
        ]
    )


def outlook(config: PretrainConfig, dataset: Dataset, ranks: int, found: DatasetStatistics) -> str:
    """What training on so many ranks takes: memory of each, and an epoch.

    Args:
        found: statistics of the dataset, for edges and pairs within the cutoffs.
    Raises:
        ValueError: config and data do not fit each other, or a molecule cannot fit
            execution.memory_limit_gib.
    """
    check_data(config, dataset)
    check_world_size(config.training.micro_batches, ranks // config.execution.pair_ranks)
    sampler = dataset.sampler(
        config.training.batch_molecules, config.training.micro_batches, config.training.seed
    )
    return "\n".join(_plan_lines(config, dataset, sampler, ranks, found))


def _plan_lines(
    config: PretrainConfig, dataset: Dataset, sampler: Sampler, ranks: int, found: DatasetStatistics
) -> list[str]:
    """Parameters, memory per rank and an epoch."""
    train = dataset.split(config.data.train_split)
    planner = Planner(config, dataset, sampler, ranks)
    chosen = planner.choose()
    atoms = np.asarray(dataset.atoms)[train].astype(np.int64)
    pairs = int((atoms * (atoms - 1) // 2).sum())
    share = pairs / max(found.atom_pairs, 1)
    load = Load(int(atoms.sum()), round(found.edges * share), round(found.pairs * share))
    return [
        f"parameters: {sum(parameter.numel() for parameter in planner.rehearsal.model.parameters()):,}",
        f"memory of a rank, engine {config.execution.engine} on {ranks} ranks:",
        chosen.text(config.execution.memory_limit_gib),
        f"edges and pairs within the cutoffs: from {found.molecules} molecules",
        planner.epoch(load, chosen.memory.recompute),
    ]
