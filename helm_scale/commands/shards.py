"""The commands `helm-scale shards ...`: generate, import, verify, info, split, repack, concat."""

from pathlib import Path

import numpy as np

from helm_scale.config import (
    ConcatConfig,
    GenerateConfig,
    ImportConfig,
    InfoConfig,
    LeaksConfig,
    RepackConfig,
    SplitConfig,
    VerifyConfig,
)
from helm_scale.files import sha256
from helm_scale.types import Molecule


def shards_generate(config: GenerateConfig) -> str:
    """Label the molecules of an XYZ file with PySCF and write shards; a second call goes on.

    Returns:
        What the dataset holds; rejected molecules by name.
    Raises:
        ValueError: input that cannot be labelled, or a folder that holds something else.
        ChildProcessError: a PySCF process died.
    """
    from helm_scale.data.format import staging, xyz
    from helm_scale.data.format.manifest import Manifest, RejectedMolecule
    from helm_scale.dft import generate
    from helm_scale.dft.molecule import check_auxiliary_basis, check_closed_shell

    out, method, labels = Path(config.out), generate.method_of(config), generate.labels_of(config)

    def check(molecule: Molecule, where: str) -> None:
        check_closed_shell(molecule, config.basis, f"{where} ({molecule.key})")

    molecules, splits, unusable = xyz.read_usable(config.xyz, check, ignore_cell=config.ignore_cell)
    check_auxiliary_basis(config.auxbasis, molecules)
    source = f"XYZ file, SHA-256 {sha256(config.xyz)}"
    work = staging.StagingFolder(out, method, labels)
    if staging.finished_dataset(out, method=method, labels=labels, source=source) is None:
        rejected = list(unusable)
        todo = work.missing(molecules)
        jobs = [
            generate.LabelJob(
                molecule=molecule,
                method=method,
                forces=config.forces,
                overlap=config.overlap,
                max_cycle=config.max_cycle,
                dipole=config.dipole,
                scf_retries=config.scf_retries,
            )
            for molecule in todo
        ]
        for number, result in generate.label_all(jobs, config.processes):
            if isinstance(result, str):
                rejected.append(RejectedMolecule(todo[number].key, result))
            else:
                work.add(result)
        work.finish(
            molecules,
            splits,
            rejected=rejected,
            licence=config.licence,
            source=source,
            molecules_per_shard=config.molecules_per_shard,
        )
    work.clear()
    return Manifest.load(config.out).describe()


def shards_import(config: ImportConfig) -> str:
    """Turn a public dataset or a folder of npz files into shards; a second call goes on.

    Returns:
        How many samples were proven, and what the dataset holds.
    Raises:
        ValueError: a file that is not what it should be, a failed proof, or a folder that holds
            something else.
        ChildProcessError: a process died.
    """
    from helm_scale.importers.run import import_dataset

    dataset, proven = import_dataset(config)
    return (
        f"{proven.samples} samples proven, {proven.consistent} of them by one-step"
        f" self-consistency\n{dataset.describe()}"
    )


def shards_verify(config: VerifyConfig) -> str:
    """Check every byte and every sample of a dataset.

    Raises:
        ValueError: something is wrong; one line each.
    """
    from helm_scale.data.format.manifest import Manifest
    from helm_scale.data.format.shards import verify

    folder = config.folder
    problems = verify(folder)
    if problems:
        raise ValueError("\n".join([f"{folder}: {len(problems)} problems", *problems]))
    dataset = Manifest.load(folder)
    return (
        f"{folder}: {len(dataset)} samples in {len(dataset.shards)} shards"
        " are what the manifest says"
    )


def shards_info(config: InfoConfig) -> str:
    """Say what a dataset holds, and with config.ranks what training on so many takes.

    Raises:
        ValueError: no dataset there, or a training config that does not fit it.
    """
    from helm_scale.data.loading.dataset import Dataset
    from helm_scale.data.tools import histograms
    from helm_scale.data.tools.statistics import gather_statistics, spread_over_costs
    from helm_scale.pretraining import preflight

    dataset = Dataset.open(config.data)
    if config.png:
        histograms.draw(dataset.manifests[0], Path(config.png))
    sections = [
        text
        for manifest in dataset.manifests
        for text in (manifest.describe(), histograms.text(manifest))
    ]
    samples = spread_over_costs(dataset, np.arange(len(dataset)), config.samples)
    statistics = gather_statistics(dataset, samples, config.model, config.cutoffs)
    sections.append(statistics.text())
    if config.ranks:
        sections.append(
            preflight.resource_report(
                config, dataset, world_size=config.ranks, statistics=statistics
            )
        )
    return "\n".join(sections)


def shards_split(config: SplitConfig) -> str:
    """Divide a dataset anew into train, validation and test; like samples stay on one side."""
    from helm_scale.data.tools.splits import divide

    dataset, groups = divide(config)
    return f"{len(dataset)} samples in {groups} groups by {config.by}\n{dataset.describe()}"


def shards_leaks(config: LeaksConfig) -> str:
    """Check that no near-duplicates lie in different splits; raises ValueError if some do."""
    from helm_scale.data.tools.splits import check

    return check(config)


def shards_repack(config: RepackConfig) -> str:
    """Write a dataset anew in shards of another size."""
    from helm_scale.data.tools.merge import repack

    return repack(config.folder, Path(config.out), config.molecules_per_shard).describe()


def shards_concat(config: ConcatConfig) -> str:
    """Join datasets of one method into a new one."""
    from helm_scale.data.tools.merge import concat

    return concat(list(config.folders), Path(config.out)).describe()
