"""Learn Hamiltonians: dataset -> sampler -> model -> loss -> batches -> engine -> loop.

`pretrain` is the path that training takes; each line of it is one of these arrows.
"""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from helm_scale.commands.initial_weights import start_from
from helm_scale.commands.models import find_model
from helm_scale.commands.shards import shards_verify
from helm_scale.config import PretrainConfig, TrainingConfig, VerifyConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.data.loading.dataset import Dataset
from helm_scale.data.loading.quarantine import Quarantine
from helm_scale.data.loading.sampler import Sampler, validation_micro_batches
from helm_scale.data.loading.stream import BatchMaker, Stream
from helm_scale.losses.hamiltonian import HamiltonianObjective
from helm_scale.losses.references import fit_hamiltonian_reference
from helm_scale.losses.spectral import SpectralTerms
from helm_scale.model.helm import Helm
from helm_scale.optim.build import freeze, hidden_names, make_optimizers
from helm_scale.parallel import agreement, collectives, pair_parallel, startup
from helm_scale.parallel.build import build_engine
from helm_scale.parallel.engine import Engine
from helm_scale.parallel.processes import Processes
from helm_scale.parallel.watchdog import Watchdog
from helm_scale.pretraining import checkpoint, choices, preflight, run_lock
from helm_scale.pretraining.loop import TrainingRun, train
from helm_scale.types import BlockBatch, couple_labels

_log = logging.getLogger(__name__)


def pretrain(config: PretrainConfig) -> str:
    """Learn Hamiltonians, alone or as one rank of torchrun; the same command resumes.

    Everything is checked before a process group starts. A dry run only describes the run.

    Returns:
        what to tell the user; empty on ranks other than 0.
    Raises:
        ValueError: config, data, launch and run folder do not fit each other, another run has the
            folder, or a molecule does not fit the memory limit.
        FloatingPointError: loss or gradient not finite. MemoryError: a micro-batch does not fit.
    """
    _let_rank_zero_speak()
    asked, training, world_size = config, config.training, startup.launched_world_size()
    dataset = Dataset.open(config.data)
    preflight.check_data(config, dataset)
    config = choices.choose(
        config, dataset, world_size=world_size, ranks_per_node=startup.launched_per_node()
    )
    preflight.check(config, dataset)
    if config.init_from:
        find_model(config.init_from)  # a wrong name ends here, before processes start
    if config.dry_run:
        return _dry_run(config, dataset, world_size)
    config, sampler = choices.fit_memory_limit(config, dataset, world_size=world_size)
    model = build_model(config)
    loss = build_loss(model, training)
    with (
        Watchdog(config.execution).running() as watchdog,
        startup.process_group(config.execution, watchdog) as ranks,
        run_lock.held(config.out, ranks.rank),
    ):
        agreement.check_same(ranks.rank, preflight.facts(config, dataset))
        batches = open_stream(config, dataset, ranks)
        resume_from = collectives.from_rank_zero(ranks.rank, lambda: checkpoint.latest(config.out))
        if resume_from is None:
            samples = sampler.head(training.reference_molecules)
            model.set_reference(*_fit_reference(model, batches, samples=samples, ranks=ranks))
            if config.init_from:
                start_from(model, config.init_from, dataset.method)
        engine = start_engine(config, model, loss=loss, ranks=ranks)
        outcome = train(
            TrainingRun(
                config=config,
                engine=engine,
                watchdog=watchdog,
                sampler=sampler,
                keys=dataset.key,
                batches=functools.partial(batches.steps, sampler),
                validation=_validation(config, dataset, sampler, batches=batches, ranks=ranks),
                record=_record(config, dataset, model, ranks=ranks, resume_from=resume_from),
                settings=asked.to_resume(),
                resume_from=resume_from,
            )
        )
    if outcome.requeue:
        _log.warning(outcome.text)
        raise SystemExit(startup.requeue_code())
    return outcome.text if ranks.rank == 0 else ""


def _let_rank_zero_speak() -> None:
    """Silence other ranks: they would say the same."""
    level = logging.CRITICAL if startup.launched_rank() else logging.INFO
    logging.getLogger("helm_scale").setLevel(level)


def build_model(config: PretrainConfig) -> Helm:
    """The model as every rank builds it, before an engine wraps it."""
    torch.manual_seed(config.training.seed)
    model = Helm(config.model)
    freeze(model, config.training.freeze_prefixes)
    execution = config.execution
    model.set_memory(execution.pair_chunk, execution.recompute, execution.message_chunk)
    if execution.compile:
        model.compile_layers()
    return model


def build_loss(model: Helm, training: TrainingConfig) -> HamiltonianObjective:
    """The loss over matrix elements and, where they have a weight, the terms that know S."""
    config, terms = model.config, None
    if training.loewdin_weight or training.orbital_weight:
        terms = SpectralTerms(
            basis=config.basis,
            parity=config.parity,
            loewdin=training.loewdin_weight,
            orbitals=training.orbital_weight,
            virtuals=training.orbital_virtuals,
            threshold=training.loss_threshold,
            baseline=config.baseline != "none",
        )
    return HamiltonianObjective(config.basis, config.parity, model.reference_onsite, terms)


def open_stream(config: PretrainConfig, dataset: Dataset, ranks: Processes) -> Stream:
    """This rank's micro-batches; damaged samples stop the run, or are skipped and listed."""
    quarantine = None
    if config.data.damaged == "quarantine":
        listed_in = Path(config.out) / f"quarantine-{ranks.rank}.jsonl"
        quarantine = Quarantine(config.data.quarantine_share, listed_in)
    return Stream(
        BatchMaker(
            dataset, config.model, skip=quarantine is not None, matrices=config.loss_matrices
        ),
        rank=ranks.data_rank,
        world_size=ranks.data_size,
        workers=config.execution.workers,
        quarantine=quarantine,
        agree=pair_parallel.any_of_pair_ranks(ranks),
    )


def start_engine(
    config: PretrainConfig, model: Helm, *, loss: HamiltonianObjective, ranks: Processes
) -> Engine:
    """Put the model under the engine that the config names, with its optimisers."""
    training = config.training
    model.set_pair_shard(
        ranks.pair_rank,
        ranks.pair_world_size,
        all_reduce=pair_parallel.sum_over_pair_ranks(ranks),
    )
    return build_engine(
        config.execution,
        ranks,
        model=model,
        objective=loss,
        make_optimizers=functools.partial(
            make_optimizers, config=training, hidden=hidden_names(model)
        ),
        clip_norm=training.clip_norm,
        empty=collate([], config.model, config.loss_matrices),
        low_precision=training.working_precision == "bfloat16",
    )


def _fit_reference(
    model: Helm, batches: Stream, *, samples: Sequence[int], ranks: Processes
) -> tuple[torch.Tensor, float]:
    """Rank 0 fits on-site references and scale; all ranks get them."""
    rows, width = model.reference.shape

    def fit() -> tuple[torch.Tensor, float]:
        singles = batches.batches([[index] for index in samples])
        coupled = (couple_labels(batch, "cpu") for batch in singles)
        basis, parity = model.config.basis, model.config.parity
        return fit_hamiltonian_reference(coupled, basis, parity, rows=rows, width=width)

    return collectives.from_rank_zero(ranks.rank, fit)


def _record(
    config: PretrainConfig,
    dataset: Dataset,
    model: Helm,
    *,
    ranks: Processes,
    resume_from: Path | None,
) -> dict[str, Any]:
    """What model.json is to hold; rank 0 reads what the training molecules have in common."""
    record = preflight.model_record(config, dataset)
    before = model.training_domain  # of the model that training starts from, if there is one
    return collectives.from_rank_zero(
        ranks.rank, lambda: preflight.trained_on(record, dataset, resume_from, before)
    )


def _validation(
    config: PretrainConfig,
    dataset: Dataset,
    sampler: Sampler,
    *,
    batches: Stream,
    ranks: Processes,
) -> Callable[[], Iterator[BlockBatch]]:
    """Makes this rank's validation batches, about as large as the micro-batches of training."""
    samples = dataset.split(config.data.validation_split)
    molecules = -(-sampler.batch_molecules // sampler.micro_batches)
    micro_batches = validation_micro_batches(
        samples, dataset.cost[samples], batch_molecules=molecules, world_size=ranks.data_size
    )
    return functools.partial(batches.batches_of_rank, micro_batches)


def _dry_run(config: PretrainConfig, dataset: Dataset, world_size: int) -> str:
    """Verify the shards at hand and describe the run."""
    for manifest in dataset.local:
        shards_verify(VerifyConfig(folder=str(manifest.folder)))
    sampler = choices.sampler_for(config, dataset, world_size=world_size)
    return preflight.dry_run_report(config, dataset, sampler=sampler, world_size=world_size)
