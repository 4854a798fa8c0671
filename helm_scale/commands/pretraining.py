"""Learning Hamiltonians, and the replay of a doubtful step."""

import functools
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from helm_scale.commands.datasets import shards_verify
from helm_scale.commands.models import load_state
from helm_scale.config import (
    DataConfig,
    ModelConfig,
    PretrainConfig,
    ReplayConfig,
    TrainingConfig,
    VerifyConfig,
    parse,
    upgrade,
)
from helm_scale.losses.hamiltonian import HamiltonianObjective
from helm_scale.losses.spectral import SpectralTerms
from helm_scale.model.helm import Helm
from helm_scale.model.weights import load_weights
from helm_scale.types import BlockBatch, couple_labels


def pretrain(config: PretrainConfig) -> str:
    """Learn Hamiltonians, alone or as one rank of torchrun; the same command resumes. A dry run
    only describes it.

    Everything is checked before a process group starts.

    Returns:
        what to tell the user; empty on ranks other than 0.
    Raises:
        ValueError: config, data, launch and run folder do not fit each other, or a molecule does
            not fit the memory limit.
        FloatingPointError: loss or gradient not finite. MemoryError: a micro-batch does not fit.
    """
    from helm_scale.data.graphs.collate import collate
    from helm_scale.data.loading.quarantine import Quarantine
    from helm_scale.data.loading.sampler import validation_micro_batches
    from helm_scale.data.loading.stream import BatchMaker, Stream
    from helm_scale.optim import optimizers
    from helm_scale.parallel import collectives, pair_parallel, startup
    from helm_scale.parallel.build import build_engine
    from helm_scale.parallel.watchdog import Watchdog
    from helm_scale.pretraining import checkpoint, loop, preflight

    logging.getLogger("helm_scale").setLevel(
        logging.CRITICAL if startup.launched_rank() else logging.INFO
    )
    (dataset, sampler), settings = preflight.check(config), config.training
    if config.dry_run:
        for manifest in dataset.local:
            shards_verify(VerifyConfig(folder=str(manifest.folder)))
        return preflight.describe(config, dataset, sampler, startup.launched_world_size())
    config = preflight.within_memory(config, dataset, sampler)
    skips = config.data.damaged == "quarantine"
    model = _untrained(config)
    objective, matrices = _objective(model, settings), config.loss_matrices
    make_optimizers = functools.partial(
        optimizers.make_optimizers, config=settings, hidden=optimizers.hidden_names(model)
    )
    with (
        startup.process_group(config.execution) as ranks,
        Watchdog(ranks, config.execution).running() as watchdog,
    ):
        quarantine = (
            Quarantine(
                config.data.quarantine_share, Path(config.out) / f"quarantine-{ranks.rank}.jsonl"
            )
            if skips
            else None
        )
        make = BatchMaker(dataset, config.model, skips, matrices)
        stream = Stream(
            make, ranks.data_rank, ranks.data_size, config.execution.workers, quarantine
        )
        resume_from = collectives.from_rank_zero(ranks.rank, lambda: checkpoint.latest(config.out))
        if resume_from is None:
            singles = [[index] for index in sampler.head(settings.reference_molecules)]
            fitted = collectives.from_rank_zero(
                ranks.rank, lambda: _fitted_reference(model, stream.batches(singles))
            )
            model.set_reference(*fitted)
        model.set_pair_shard(
            ranks.pair_rank,
            ranks.pair_world_size,
            all_reduce=pair_parallel.sum_over_pair_ranks(ranks),
        )
        empty = collate([], config.model, matrices)
        engine = build_engine(
            config.execution,
            ranks,
            model=model,
            objective=objective,
            make_optimizers=make_optimizers,
            clip_norm=settings.clip_norm,
            empty=empty,
            low_precision=settings.working_precision == "bfloat16",
        )
        samples = dataset.split(config.data.validation_split)
        validation = validation_micro_batches(
            samples,
            dataset.cost[samples],
            -(-settings.batch_molecules // settings.micro_batches),
            ranks.data_size,
        )
        job = loop.Job(
            config, engine, watchdog, sampler, dataset.key, functools.partial(stream.steps, sampler), lambda: stream.batches_of_rank(validation),
            preflight.record(config, dataset), resume_from,
        )  # fmt: skip
        ending = loop.train(job)
    if ending.requeue:
        logging.getLogger(__name__).warning(ending.text)
        raise SystemExit(startup.requeue_code())
    return ending.text if ranks.rank == 0 else ""


def _untrained(config: PretrainConfig) -> Helm:
    """The model as every rank builds it, before it is wrapped."""
    from helm_scale.optim import optimizers

    torch.manual_seed(config.training.seed)
    model = Helm(config.model)
    optimizers.freeze(model, config.training.freeze_prefixes)
    model.set_memory(
        config.execution.pair_chunk, config.execution.recompute, config.execution.message_chunk
    )
    if config.execution.compile:
        model.compile_layers()
    return model


def replay(config: ReplayConfig) -> str:
    """Compute a doubtful step again, sample by sample, on one CPU.

    Returns:
        Loss and gradient norm of every sample, the worst first, Markdown.
    Raises:
        ValueError: not a replay file, or the data are not those of the run.
    """
    from helm_scale.data.graphs.collate import collate
    from helm_scale.data.loading.dataset import Dataset
    from helm_scale.model.weights import load_metadata
    from helm_scale.pretraining import replay as replaying

    path = Path(config.file)
    try:
        about = json.loads(load_metadata(path)["about"])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: not a replay file ({error!r}); wanted one from the folder replay of a run"
        ) from None
    about = upgrade(about, str(path))
    dataset = Dataset.open(DataConfig(path=config.data or about["data_path"]))
    if dataset.hash != about["data"]["manifest_sha256"]:
        raise ValueError(
            f"{dataset.folder}: not the data of the run (manifest {about['data']['manifest_sha256'][:12]}); name them with --data"
        )
    model = Helm(parse(ModelConfig, about["model"], str(path)))
    load_state(model, load_weights(path), str(path))
    settings = PretrainConfig(
        model=model.config, training=parse(TrainingConfig, about["training"], str(path))
    )
    load = lambda index: collate([dataset.read(index)], model.config, settings.loss_matrices)  # noqa: E731
    return replaying.replay(model, _objective(model, settings.training), about, load)


def _objective(model: Helm, training: TrainingConfig) -> HamiltonianObjective:
    config = model.config
    terms = SpectralTerms(
        config.basis, config.parity, training.loewdin_weight, training.orbital_weight, training.orbital_virtuals,
        training.loss_threshold, config.baseline != "none",
    )  # fmt: skip
    on = training.loewdin_weight or training.orbital_weight
    return HamiltonianObjective(
        config.basis, config.parity, model.reference_onsite, terms if on else None
    )


def _fitted_reference(model: Helm, batches: Iterator[BlockBatch]) -> tuple[torch.Tensor, float]:
    from helm_scale.losses.references import fit_hamiltonian_reference

    rows, width = model.reference.shape
    coupled = (couple_labels(batch, "cpu") for batch in batches)
    return fit_hamiltonian_reference(coupled, model.config.basis, model.config.parity, rows, width)
