"""The import of a dataset: proofs first, then shard after shard in parallel processes, then one
manifest.

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
from helm_scale.importers.md17 import MD17
from helm_scale.importers.nabla_dft import NABLA_DFT
from helm_scale.importers.npz_folder import NPZ
from helm_scale.importers.omol_csh import OMOL_CSH
from helm_scale.importers.proofs import ProofLimits, prove
from helm_scale.importers.qh9 import QH9_DYNAMIC, QH9_STABLE
from helm_scale.importers.source import Address, Importer, SourceSample, canonical
from helm_scale.types import Method, Molecule

log = logging.getLogger(__name__)
DATASETS: dict[str, Importer] = {
    "md17": MD17, "qh9-stable": QH9_STABLE, "qh9-dynamic": QH9_DYNAMIC, "nabla-dft": NABLA_DFT, "omol-csh-58k": OMOL_CSH, "npz": NPZ,
}  # fmt: skip


@dataclass(frozen=True)
class ImportPlan:
    """What every process of an import knows. labels: what each sample gets. source: identifies the
    input."""

    config: ImportConfig
    method: Method
    licence: str
    labels: tuple[str, ...]
    limits: ProofLimits
    source: str


@dataclass(frozen=True)
class ShardTask:
    """One shard to make: its number, its samples and their splits."""

    plan: ImportPlan
    number: int
    addresses: tuple[Address, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class ProofCounts:
    """How many samples went through the proofs, and through that of consistency."""

    samples: int
    consistent: int


def import_dataset(config: ImportConfig) -> tuple[Manifest, ProofCounts]:
    """Turn a public dataset or a folder of npz files into shards; started again it continues, or
    does nothing.

    Returns:
        The dataset, and how many samples were proven in this call.
    Raises:
        ValueError: a file that is not what it should be, a failed proof (which check, which sample,
            got, wanted), or a folder that holds something else. ChildProcessError: a process died.
    """
    out = Path(config.out)
    plan, addresses, splits = _prepare(config)
    finished = finished_dataset(out, plan.method, plan.labels, plan.source)
    if finished is not None:
        shutil.rmtree(out / "staging", ignore_errors=True)
        return finished, ProofCounts(0, 0)
    size = config.molecules_per_shard
    tasks = [
        ShardTask(
            plan,
            number,
            tuple(addresses[start : start + size]),
            tuple(splits[start : start + size]),
        )
        for number, start in enumerate(range(0, len(addresses), size))
    ]
    missing = [task for task in tasks if not _is_done(task)]
    proven = [_prove_first(plan, addresses)] if missing else []
    proven += [
        result
        for _, result in run_parallel(
            _make, missing, config.processes, len(missing), "import", "shard"
        )
    ]
    left_out = [RejectedMolecule(name, "excluded by the user") for name in config.exclude]
    made = merge.merge(
        [Manifest.load(_folder(task)) for task in tasks], out, _move, plan.source, left_out
    )
    shutil.rmtree(out / "staging")
    return made, ProofCounts(
        sum(one.samples for one in proven), sum(one.consistent for one in proven)
    )


def _prepare(config: ImportConfig) -> tuple[ImportPlan, Sequence[Address], np.ndarray]:
    """Open the source and settle method, licence, labels and splits, before any process starts."""
    dataset, path = DATASETS[config.dataset], Path(config.source)
    source = dataset.open(path, config)
    method, licence = declared_method(source.method, config), config.licence or dataset.licence
    if licence is None:
        raise ValueError(f"{path}: the files name no licence; give --licence (an SPDX name)")
    addresses = source.addresses()
    count = len(addresses)
    splits = (
        np.full(len(addresses), "train", dtype=object)
        if config.split == "none"
        else source.splits(config.split)
    )
    addresses, splits = _chosen(addresses, splits, config)
    labels = _labels(source.read(addresses[0]), config)
    about = (
        f"{config.dataset}, {path.name}, {len(addresses)} samples of {count}, split {config.split}"
    )
    about += f", without {', '.join(config.exclude)}" if config.exclude else ""
    about += (
        ""
        if config.dataset != "omol-csh-58k"
        else ", repaired"
        if config.repair
        else ", not repaired"
    )
    limits = ProofLimits(config.consistency_limit or dataset.consistency, config.proof_atoms)
    return ImportPlan(config, method, licence, labels, limits, about), addresses, splits


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
            f"{config.source}: exclude: no sample '{unknown[0]}'; wanted names as the messages of the import give them"
        )
    excluded = set(config.exclude)
    kept = [place for place, address in enumerate(addresses) if str(address) not in excluded][
        : config.samples or None
    ]
    if not kept:
        raise ValueError(f"{config.source}: holds no samples, or all are excluded")
    return [addresses[place] for place in kept], splits[kept]


def declared_method(known: Method | None, config: ImportConfig) -> Method:
    """The method record of the labels: what the dataset is known to have, overridden by the config.

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
            f"{config.source}: the files hold no 'method'; give --xc and --basis (and --auxbasis, --grid_level, --program)"
        )
    start = known or Method(
        xc="",
        basis="",
        ecp="def2",
        grid_level=3,
        auxbasis=None,
        conv_tol=1e-9,
        baseline="none",
        program="unknown",
    )
    return replace(start, **given, baseline=config.baseline)


def _labels(foreign: SourceSample, config: ImportConfig) -> tuple[str, ...]:
    """Names of the labels that every sample gets if it is like this one."""
    wanted = {
        "hamiltonian": True,
        "baseline_hamiltonian": config.baseline != "none",
        "overlap": config.overlap,
    }
    return tuple(
        name
        for name in codec.LABELS
        if wanted.get(name, getattr(foreign.molecule, name) is not None)
    )


def _labelled(foreign: SourceSample, method: Method, config: ImportConfig) -> Molecule:
    """A sample in canonical order with the labels asked for: S always anew in float64, H0 where the
    source has none."""
    molecule = canonical(foreign, method)
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
    source = DATASETS[config.dataset].open(Path(config.source), config)
    consistent = 0
    for address in addresses[: config.proof_first]:
        consistent += prove(
            source.read(address), plan.method, plan.limits, f"{config.source}, sample {address}"
        )
        log.info("%s, sample %s: every proof holds", config.source, address)
    if config.proof_atoms and not consistent:
        raise ValueError(
            f"{config.source}: none of the first {config.proof_first} samples has at most {config.proof_atoms} atoms, so nothing proves"
            " the functional: raise --proof_first or --proof_atoms, or go without this proof: --proof_atoms 0"
        )
    return ProofCounts(len(addresses[: config.proof_first]), consistent)


def _make(task: ShardTask) -> ProofCounts:
    """Make one shard; a random share of its samples, the same on every run, goes through the
    proofs."""
    plan, config, folder = task.plan, task.plan.config, _folder(task)
    shutil.rmtree(folder, ignore_errors=True)
    source = DATASETS[config.dataset].open(Path(config.source), config)
    writer = ShardWriter(folder, plan.method, plan.licence, plan.source, len(task.addresses))
    drawn = np.random.default_rng(task.number).random(len(task.addresses)) < config.proof_share
    consistent = 0
    for address, split, chosen in zip(task.addresses, task.splits, drawn, strict=True):
        foreign, where = source.read(address), f"{config.source}, sample {address}"
        if chosen:
            consistent += prove(foreign, plan.method, plan.limits, where)
        molecule = _labelled(foreign, plan.method, config)
        check_same_labels(
            where,
            {"labels": codec.labels_of(molecule)},
            other="the first sample",
            wanted={"labels": plan.labels},
            remedy="exclude it, or import samples of one kind",
        )
        writer.write(molecule, split)
    writer.close()
    return ProofCounts(int(drawn.sum()), consistent)


def _folder(task: ShardTask) -> Path:
    return Path(task.plan.config.out) / "staging" / f"part-{task.number:06d}"


def _is_done(task: ShardTask) -> bool:
    """Whether a task is made; raises ValueError if it was made from something else."""
    folder = _folder(task)
    if not (folder / manifest.NAME).is_file():
        return False
    made = Manifest.load(folder)
    plan = task.plan
    check_same_labels(
        folder,
        {**made.label_kind, "input": made.source, "samples": len(made)},
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
