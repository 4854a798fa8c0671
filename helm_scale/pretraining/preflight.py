"""Checks before the first step that config, data and folder fit, and says what a run will take."""

import hashlib
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helm_scale.config import FORMAT, PretrainConfig, dump, flat, read_record
from helm_scale.data.loading.dataset import Dataset
from helm_scale.data.loading.sampler import Sampler
from helm_scale.data.loading.traffic import traffic_text
from helm_scale.data.tools.domain import training_domain
from helm_scale.data.tools.statistics import DatasetStatistics, gather_statistics, spread_over_costs
from helm_scale.functionals import has_exact_exchange
from helm_scale.parallel import startup
from helm_scale.pretraining import checkpoint, choices
from helm_scale.pretraining.memory.footprint import BatchSize
from helm_scale.pretraining.memory.plan import MemoryPlanner
from helm_scale.reading.domain import DOMAIN, TrainingDomain

_log = logging.getLogger(__name__)
RANKS_PER_NODE = 8  # where a plan is made for ranks that were not started
MOLECULES_READ = 64  # for what the manifest does not say: edges, pairs and sizes of blocks


def check(config: PretrainConfig, dataset: Dataset) -> None:
    """Refuse a run whose config, data, launch and folder do not fit each other.

    Raises:
        ValueError: names what does not fit, both values and the remedy.
    """
    execution = config.execution
    startup.check_launch(execution)
    if config.training.working_precision == "bfloat16":
        startup.require(execution, "low_precision", "training.working_precision: got bfloat16")
    check_data(config, dataset)
    dataset.split(config.data.validation_split)  # raises where there is none
    checkpoint.check_record(
        Path(config.out), model_record(config, dataset), config.allow_config_change
    )


def model_record(config: PretrainConfig, dataset: Dataset) -> dict[str, Any]:
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
        **({"init_from": config.init_from} if config.init_from else {}),
        "training": config.training.model_dump(mode="json"),
    }


def trained_on(
    record: dict[str, Any],
    dataset: Dataset,
    resume_from: Path | None,
    before: TrainingDomain | None = None,
) -> dict[str, Any]:
    """Add to a record what the training molecules have in common (reading/domain.py).

    A checkpoint of the same data has it already; else the head of each training sample is read.

    Args:
        before: of the model that training started from.
    Raises:
        ValueError: a training sample that cannot be read.
    """
    if resume_from is not None:
        resumed = read_record(resume_from / "model.json")
        if resumed.get("data") == record["data"] and resumed.get(DOMAIN):
            return {**record, DOMAIN: resumed[DOMAIN]}
    shown = training_domain(dataset)
    return {**record, DOMAIN: (before | shown if before else shown).record()}


def facts(config: PretrainConfig, dataset: Dataset) -> dict[str, object]:
    """What all ranks of a run must have in common: every setting, data, code and versions."""
    source = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        source.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return {
        **flat(config.model_dump(mode="json")),
        "dataset": dataset.hash,
        "helm_scale": source.hexdigest()[:16],
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def check_data(config: PretrainConfig, dataset: Dataset) -> None:
    """Raise ValueError unless the dataset holds what the model is to learn; names both sides."""
    if "hamiltonian" not in dataset.labels:
        raise ValueError(
            f"{dataset.folder}: has the labels {', '.join(dataset.labels) or 'none'},"
            " wanted hamiltonian; pretraining needs it"
        )
    model, method = config.model, dataset.method
    for name in (*model.conditions, *config.loss_matrices):
        if name not in dataset.labels:
            remedy = "--overlap true" if name == "overlap" else "--baseline minao"
            raise ValueError(
                f"{dataset.folder}: has no {name}, which the settings of model or loss ask for;"
                f" generate data with {remedy}"
            )
    if model.basis != method.basis:
        raise ValueError(
            f"model.basis: got '{model.basis}', but {dataset.folder} holds '{method.basis}';"
            f" set model.basis to {method.basis}, or name other data"
        )
    if model.parity == "semilocal" and has_exact_exchange(method.xc):
        raise ValueError(
            f"model.parity: got 'semilocal', but {dataset.folder} holds labels of {method.xc},"
            " a hybrid, whose on-site blocks have the other irreps, too; set model.parity to full"
        )
    # "none" learns H itself, which every dataset has.
    if model.baseline not in ("none", method.baseline):
        raise ValueError(
            f"model.baseline: got '{model.baseline}', but {dataset.folder} holds the H0"
            f" '{method.baseline}'; generate data with --baseline {model.baseline},"
            f" or set model.baseline to {method.baseline}"
        )


def dry_run_report(
    config: PretrainConfig, dataset: Dataset, *, sampler: Sampler, world_size: int
) -> str:
    """Resolved config, data, what block sparsity saves, and the memory of every rank, as text.

    Raises:
        ValueError: a molecule of the training split cannot fit execution.memory_limit_gib; names
            it.
    """
    data, steps = config.data, config.training.steps
    train, validation = dataset.split(data.train_split), dataset.split(data.validation_split)
    steps_per_epoch = len(train) / config.training.batch_molecules
    sample = spread_over_costs(dataset, train, MOLECULES_READ)
    statistics = gather_statistics(dataset, sample, config.model)
    local = dataset.local == list(dataset.manifests)
    verified = (
        "every shard and sample verified" if local else "remote shards are verified on arrival"
    )
    return "\n".join(
        [
            dump(config),
            f"data: {dataset.folder}, {verified}; {len(train)} molecules in '{data.train_split}',"
            f" {len(validation)} in '{data.validation_split}'",
            *filter(None, [traffic_text(dataset)]),
            f"steps: {steps:,}; {steps_per_epoch:.1f} per epoch;"
            f" {steps / steps_per_epoch:.1f} epochs",
            statistics.text(),
            _resources(
                config, dataset, sampler=sampler, world_size=world_size, statistics=statistics
            ),
        ]
    )


def resource_report(
    config: PretrainConfig, dataset: Dataset, *, world_size: int, statistics: DatasetStatistics
) -> str:
    """What training on so many ranks takes: memory of each, and an epoch.

    Args:
        statistics: of the dataset, for edges and pairs within the cutoffs.
    Raises:
        ValueError: config and data do not fit each other, or a molecule cannot fit
            execution.memory_limit_gib.
    """
    check_data(config, dataset)
    config = choices.choose(
        config, dataset, world_size=world_size, ranks_per_node=math.gcd(world_size, RANKS_PER_NODE)
    )
    sampler = choices.sampler_for(config, dataset, world_size=world_size)
    return _resources(
        config, dataset, sampler=sampler, world_size=world_size, statistics=statistics
    )


def _resources(
    config: PretrainConfig,
    dataset: Dataset,
    *,
    sampler: Sampler,
    world_size: int,
    statistics: DatasetStatistics,
) -> str:
    """Parameters, memory per rank and an epoch."""
    planner = MemoryPlanner(config, dataset, sampler=sampler, world_size=world_size)
    plan = planner.choose()
    epoch = _epoch_size(dataset.atoms[dataset.split(config.data.train_split)], statistics)
    parameters = sum(parameter.numel() for parameter in planner.estimator.model.parameters())
    return "\n".join(
        [
            f"parameters: {parameters:,}",
            f"memory of a rank, engine {config.execution.engine} on {world_size} ranks:",
            plan.text(config.execution.memory_limit_gib),
            balance_text(config, dataset, sampler, world_size),
            f"edges and pairs within the cutoffs: from {statistics.molecules} molecules",
            planner.epoch(epoch, plan.chunks.recompute),
        ]
    )


def balance_text(
    config: PretrainConfig, dataset: Dataset, sampler: Sampler, world_size: int
) -> str:
    """How evenly the ranks are loaded, and what to do where they are not."""
    ranks = max(world_size // config.execution.sharing, 1)
    even = choices.balance(sampler, dataset.cost, ranks)
    text = (
        f"balance: {even:.2f}, mean over maximum of the ranks' work; {sampler.batch_molecules}"
        f" molecules of a step over {ranks} x {config.execution.sharing} ranks"
    )
    if even >= choices.UNEVEN:
        return text
    return (
        f"{text}. Warning: ranks wait for {1 - even:.0%} of the time; set execution.pair_ranks to"
        " auto, raise training.batch_molecules, or start fewer ranks"
    )


def _epoch_size(atoms: np.ndarray, statistics: DatasetStatistics) -> BatchSize:
    """Atoms, edges and pairs of all samples.

    Edges and pairs within the cutoffs were counted on some molecules; they are scaled by all pairs
    of atoms, near and far, which atom numbers alone give.
    """
    atoms = np.asarray(atoms).astype(np.int64)  # manifests hold 32 bits, which squares overflow
    scale = int((atoms * (atoms - 1) // 2).sum()) / max(statistics.atom_pairs, 1)
    edges, pairs = round(statistics.edges * scale), round(statistics.pairs * scale)
    return BatchSize(int(atoms.sum()), edges, pairs)
