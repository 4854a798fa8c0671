"""Imports a dataset: proofs first, then shard after shard in parallel, then one manifest.

Every shard is made as a small dataset of its own in `out/staging/`, complete once it has a
manifest; a killed import, started again, makes the missing ones. At the end the shards move to
their place.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from helm_scale.config import ImportConfig
from helm_scale.data.format import codec, manifest
from helm_scale.data.format.compatibility import check_same_labels
from helm_scale.data.format.manifest import Manifest, RejectedMolecule
from helm_scale.data.format.shards import ShardWriter
from helm_scale.data.format.staging import finished_dataset
from helm_scale.data.tools import merge
from helm_scale.dft.energies import EnergyFunctional, overlap
from helm_scale.dft.processes import run_parallel
from helm_scale.importers import registry
from helm_scale.importers.proofs import ProofLimits, prove
from helm_scale.importers.source import (
    UNSTATED,
    Address,
    Importer,
    Source,
    SourceSample,
    canonical,
)
from helm_scale.types import Method, Molecule

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """What every process of an import knows.

    Attributes:
        importer: opens the dataset. method, licence: of the labels. limits: of the proofs.
        labels: names of those that each sample gets. source: text that identifies the input.
    """

    config: ImportConfig
    importer: Importer
    method: Method
    licence: str
    labels: tuple[str, ...]
    limits: ProofLimits
    source: str

    def open(self) -> Source:
        """Open the dataset; every process does so for itself."""
        return self.importer.open(Path(self.config.source), self.config)


@dataclass(frozen=True)
class ShardTask:
    """One shard to make: its number, its samples and their splits."""

    plan: ImportPlan
    number: int
    addresses: tuple[Address, ...]
    splits: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it is made."""
        return Path(self.plan.config.out) / "staging" / f"part-{self.number:06d}"


@dataclass(frozen=True)
class ProofCounts:
    """How many samples went through the proofs, and through that of consistency."""

    samples: int
    consistent: int


def import_dataset(config: ImportConfig) -> tuple[Manifest, ProofCounts]:
    """Turn a public dataset or a folder of npz files into shards; a second call goes on.

    Returns:
        The dataset, and how many samples were proven in this call.
    Raises:
        ValueError: a file that is not what it should be, a failed proof (which check, which sample,
            got, wanted), or a folder that holds something else. ChildProcessError: a process died.
    """
    out = Path(config.out)
    plan, addresses, splits = _prepare(config)
    finished = finished_dataset(out, method=plan.method, labels=plan.labels, source=plan.source)
    if finished is not None:
        # What a kill has left between the manifest and the end.
        shutil.rmtree(out / "staging", ignore_errors=True)
        return finished, ProofCounts(0, 0)
    tasks = _tasks(plan, addresses, splits)
    counts = _make_missing(tasks, addresses)
    dataset = merge.merge(
        [Manifest.load(task.folder) for task in tasks],
        out,
        transfer=_move,
        source=plan.source,
        rejected=[RejectedMolecule(name, "excluded by the user") for name in config.exclude],
    )
    shutil.rmtree(out / "staging")
    return dataset, counts


def _prepare(config: ImportConfig) -> tuple[ImportPlan, Sequence[Address], np.ndarray]:
    """Settle samples, splits, method, licence and labels, before any process starts."""
    importer, path = registry.find(config.dataset), Path(config.source)
    source = importer.open(path, config)
    method, licence = declared_method(source.method, config), config.licence or importer.licence
    if licence is None:
        raise ValueError(f"{path}: the files name no licence; give --licence (an SPDX name)")
    everything = source.addresses()
    splits = np.full(len(everything), "train", dtype=object)
    if config.split != "none":
        splits = source.splits(config.split)
    addresses, splits = _chosen(everything, splits, config)
    plan = ImportPlan(
        config=config,
        importer=importer,
        method=method,
        licence=licence,
        labels=_labels(source.read(addresses[0]), config),  # all others must have the same
        limits=ProofLimits(config.consistency_limit or importer.consistency, config.proof_atoms),
        source=_identity(config, importer, f"{len(addresses)} samples of {len(everything)}"),
    )
    return plan, addresses, splits


def _identity(config: ImportConfig, importer: Importer, samples: str) -> str:
    """Text that identifies the input; the manifest keeps it, so its words do not change."""
    # The name and not the path: a folder that moves is the same input.
    words = [config.dataset, Path(config.source).name, samples, f"split {config.split}"]
    if config.exclude:
        words.append(f"without {', '.join(config.exclude)}")
    if variant := importer.variant(config):
        words.append(variant)
    return ", ".join(words)


def _tasks(plan: ImportPlan, addresses: Sequence[Address], splits: np.ndarray) -> list[ShardTask]:
    """Cut the samples into shards."""
    size = plan.config.molecules_per_shard
    return [
        ShardTask(
            plan,
            number,
            tuple(addresses[start : start + size]),
            tuple(splits[start : start + size]),
        )
        for number, start in enumerate(range(0, len(addresses), size))
    ]


def _make_missing(tasks: Sequence[ShardTask], addresses: Sequence[Address]) -> ProofCounts:
    """Make the shards that are not there yet, in parallel."""
    missing = [task for task in tasks if not _is_done(task)]
    if not missing:
        return ProofCounts(0, 0)
    plan = missing[0].plan
    # Here and in one process: a wrong functional is to stop an import of days in its first minute.
    counts = [_prove_first(plan, addresses)]
    shards = run_parallel(
        _make,
        missing,
        processes=plan.config.processes,
        total=len(missing),
        label="import",
        unit="shard",
    )
    counts += [count for _, count in shards]
    return ProofCounts(
        sum(count.samples for count in counts), sum(count.consistent for count in counts)
    )


def _chosen(
    addresses: Sequence[Address], splits: np.ndarray, config: ImportConfig
) -> tuple[Sequence[Address], np.ndarray]:
    """The samples to import: without those that the user excludes, the first `samples` of them.

    Raises:
        ValueError: an excluded sample that there is not, or nothing is left.
    """
    unknown = sorted(set(config.exclude) - {str(address) for address in addresses})
    if unknown:
        raise ValueError(
            f"{config.source}: exclude: no sample '{unknown[0]}';"
            " wanted names as the messages of the import give them"
        )
    # As text: addresses are integers in some datasets, and the command line gives words.
    excluded = set(config.exclude)
    chosen = [place for place, address in enumerate(addresses) if str(address) not in excluded]
    chosen = chosen[: config.samples or None]
    if not chosen:
        raise ValueError(f"{config.source}: holds no samples, or all are excluded")
    return [addresses[place] for place in chosen], splits[chosen]


def declared_method(known: Method | None, config: ImportConfig) -> Method:
    """Return the method of the labels: what the source says, overridden by the config.

    Raises:
        ValueError: neither says what it is.
    """
    given = {
        name: value
        for name in ("xc", "basis", "auxbasis", "grid_level", "program")
        if (value := getattr(config, name)) is not None
    }
    if known is None and not {"xc", "basis"} <= set(given):
        raise ValueError(
            f"{config.source}: the files hold no 'method'; give --xc and --basis"
            " (and --auxbasis, --grid_level, --program)"
        )
    return replace(known or UNSTATED, **given, baseline=config.baseline)


def _labels(sample: SourceSample, config: ImportConfig) -> tuple[str, ...]:
    """Names of the labels that every sample gets if it is like this one."""
    by_config = {
        "hamiltonian": True,
        "baseline_hamiltonian": config.baseline != "none",
        "overlap": config.overlap,
    }
    # Energy and forces cannot be computed anew: they are taken where the source has them.
    return tuple(
        name
        for name in codec.LABELS
        if by_config.get(name, getattr(sample.molecule, name) is not None)
    )


def _labelled(sample: SourceSample, method: Method, config: ImportConfig) -> Molecule:
    """Bring a sample to canonical order and give it the labels asked for.

    S is computed anew in float64, whatever the source has; H0 only where it has none.
    """
    molecule = canonical(sample, method)
    baseline = molecule.baseline_hamiltonian
    if method.baseline == "none":
        baseline = None
    elif baseline is None:
        baseline = EnergyFunctional(molecule, method).baseline(method.baseline)
    return replace(
        molecule,
        overlap=overlap(molecule, method.basis) if config.overlap else None,
        baseline_hamiltonian=baseline,
    )


def _prove_first(plan: ImportPlan, addresses: Sequence[Address]) -> ProofCounts:
    """Prove the first samples, before anything is written."""
    config = plan.config
    source, consistent = plan.open(), 0
    limits = replace(plan.limits, gradient=True)
    for address in addresses[: config.proof_first]:
        where = f"{config.source}, sample {address}"
        consistent += prove(source.read(address), plan.method, limits, where)
        log.info("%s, sample %s: every proof holds", config.source, address)
    if config.proof_atoms and not consistent:
        raise ValueError(
            f"{config.source}: none of the first {config.proof_first} samples has at most"
            f" {config.proof_atoms} atoms, so nothing proves the functional: raise --proof_first"
            " or --proof_atoms, or go without this proof: --proof_atoms 0"
        )
    return ProofCounts(len(addresses[: config.proof_first]), consistent)


def _make(task: ShardTask) -> ProofCounts:
    """Make one shard; a random share of its samples goes through the proofs."""
    plan, config = task.plan, task.plan.config
    shutil.rmtree(task.folder, ignore_errors=True)  # half of a shard that a kill has left
    source = plan.open()
    writer = ShardWriter(
        task.folder,
        plan.method,
        licence=plan.licence,
        source=plan.source,
        molecules_per_shard=len(task.addresses),
    )
    # The number of the shard is the seed: a second run proves the same samples.
    is_drawn = np.random.default_rng(task.number).random(len(task.addresses)) < config.proof_share
    consistent = 0
    for address, split, drawn in zip(task.addresses, task.splits, is_drawn, strict=True):
        sample, where = source.read(address), f"{config.source}, sample {address}"
        if drawn:
            consistent += prove(sample, plan.method, plan.limits, where)
        molecule = _labelled(sample, plan.method, config)
        check_same_labels(
            where,
            {"labels": codec.labels_of(molecule)},
            other="the first sample",
            wanted={"labels": plan.labels},
            remedy="exclude it, or import samples of one kind",
        )
        writer.write(molecule, split)
    writer.close()
    return ProofCounts(int(is_drawn.sum()), consistent)


def _is_done(task: ShardTask) -> bool:
    """Whether a task is made; raises ValueError if it was made from something else."""
    folder = task.folder
    if not (folder / manifest.NAME).is_file():
        return False
    shard, plan = Manifest.load(folder), task.plan
    check_same_labels(
        folder,
        {**shard.label_kind, "input": shard.source, "samples": len(shard)},
        other="what is asked for now",
        wanted={
            "method": plan.method,
            "labels": plan.labels,
            "input": plan.source,
            "samples": len(task.addresses),
        },
        remedy=f"choose another folder or remove {folder.parent}",
    )
    return True


def _move(file: Path, target: Path) -> None:
    """Rename; a second call, after a kill, finds it done."""
    if file.exists():
        file.replace(target)
