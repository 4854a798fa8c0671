"""The composition root: the one file that sees every part, one function per command.

PySCF- and DeepSpeed-backed parts are imported inside the functions that need them, so that a training node needs no
PySCF and the import stays quick.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from helm_scale.batch import GraphBatch, Method
from helm_scale.config import (
    DataConfig,
    EvaluateConfig,
    ExportConfig,
    FinetuneConfig,
    GenerateConfig,
    ImportConfig,
    LeaksConfig,
    ModelConfig,
    PredictConfig,
    PretrainConfig,
    RepackConfig,
    ReplayConfig,
    SplitConfig,
    parse,
)
from helm_scale.model.helm import EnergyModel, Helm
from helm_scale.model.weights import load_weights


def load_model(source: str | Path) -> tuple[Helm, Method]:
    """Load the Hamiltonian model of a run folder (newest good checkpoint), of one checkpoint, or of a bundle.

    Returns:
        (model in evaluation mode, method record of its labels).
    Raises:
        ValueError: nothing to load there, a changed bundle, or files that do not fit each other.
    """
    folder, record = find_model(source)
    model = Helm(parse(ModelConfig, record["model"], str(folder)))
    load_state(model, load_weights(folder / "model.safetensors"), str(folder))
    return model.eval(), Method(**record["method"])


def find_model(source: str | Path) -> tuple[Path, dict[str, Any]]:
    """Folder with model.safetensors, and its record: config.json of a checked bundle or model.json of a checkpoint.

    Raises:
        ValueError: there is none, or a file of the bundle is missing or changed.
    """
    folder = Path(source)
    if (folder / "config.json").is_file():
        from helm_scale.export.bundle import check_sums

        check_sums(folder)
        return folder, _read_record(folder / "config.json")
    if not (folder / "model.json").is_file():
        from helm_scale.training.checkpoint import latest

        folder = latest(folder) or folder
    if not (folder / "model.json").is_file():
        raise ValueError(f"{source}: neither a run folder with a checkpoint nor a bundle; train with launch/pretrain.py first")
    return folder, _read_record(folder / "model.json")


def _read_record(path: Path) -> dict[str, Any]:
    """The record beside a model's weights; raises ValueError naming the file if it is damaged."""
    try:
        record = json.loads(path.read_text())
        return {**record, "model": dict(record["model"]), "method": dict(record["method"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the record of a model ({error!r}); copy the folder again") from None


def load_state(model: nn.Module, state: dict, where: str) -> None:
    """Copy weights into a model.

    Raises:
        ValueError: tensors are missing, unexpected or wrongly shaped; names the first of them and the folder.
    """
    got, wanted = ({name: tuple(tensor.shape) for name, tensor in part.items()} for part in (state, model.state_dict()))
    wrong = [name for name in [*wanted, *got] if got.get(name) != wanted.get(name)]
    if wrong:
        raise ValueError(
            f"{where}: weights of another ModelConfig: {wrong[0]} has shape {got.get(wrong[0])}, wanted {wanted.get(wrong[0])}"
            f" (None: absent; {len(set(wrong))} tensors do not fit); keep weights and record of one model together"
        )
    model.load_state_dict(state)


def export(config: ExportConfig) -> str:
    """Write a bundle from the newest checkpoint of a run, or only verify the one at `out`; either way it is verified.

    Returns:
        What was found, one line.
    Raises:
        ValueError: no checkpoint, a folder that is no bundle, or a bundle with a missing or changed file.
    """
    from helm_scale.export import bundle

    out = Path(config.out)
    if not config.verify:
        folder, record = find_model(config.source)
        model, method = load_model(folder)
        extra = {key: value for key, value in record.items() if key not in ("model", "method")}
        origin = {"run": Path(config.source).resolve().name, "checkpoint": folder.name, **extra}
        bundle.write(model, method, out, record.get("provenance", origin))
    found = bundle.verify(out)
    return (
        f"{out}: {found.files} checksums hold; features of {found.molecules} golden molecules are reproduced"
        f" to {found.program_error:.1e} by model.pt2 and {found.model_error:.1e} by this package"
    )


def finetune(config: FinetuneConfig) -> str:
    """Learn energies from few labels on a random, a frozen and a pretrained backbone; writes tables and models to `out`.

    Returns:
        The table, Markdown.
    Raises:
        ValueError: no model, no such split, molecules without energies, or a molecule outside the model's range.
    """
    from helm_scale.data.manifest import Manifest
    from helm_scale.data.shards import ShardReader
    from helm_scale.training.finetune import gather_labels
    from helm_scale.training.finetune_report import compare

    if config.threads:
        torch.set_num_threads(config.threads)
    backbone, _ = load_model(config.source)
    manifest = Manifest.load(config.data)
    reader = ShardReader(manifest)
    train, test = ([reader.read(int(i)) for i in manifest.split(name)] for name in (config.train_split, config.test_split))
    labels = gather_labels(train, test, backbone.config)
    return compare(backbone.to("cuda" if torch.cuda.is_available() else "cpu"), labels, config, manifest.method)


def evaluate(config: EvaluateConfig) -> str:
    """Judge a model, or a folder of anybody's Hamiltonians, on a split of a dataset; writes tables, figures and cube files to `out`.

    Returns:
        The tables, Markdown.
    Raises:
        ValueError: no model, no such split, labels of another method, or a molecule outside the model's range.
    """
    from helm_scale.data.manifest import Manifest
    from helm_scale.evaluation import predictors, protocol, study

    manifest, other = Manifest.load(config.data), None
    if predictors.is_folder(Path(config.source)):
        return study.run(predictors.of_folder(Path(config.source), manifest.method.basis, config.ao_order), None, manifest, config)
    model, method = load_model(config.source)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    protocol.check_method(method, manifest.method, config.data)
    if "embedding" in config.extras:
        other = _backbone(config.other, model)
    return study.run(predictors.of_model(model), other, manifest, config)


def _backbone(source: str | None, like: Helm) -> EnergyModel:
    """The trunk of a run, bundle or finetuned model, or random weights, in the architecture of another model."""
    torch.manual_seed(0)
    backbone = EnergyModel(like.config).to(like.reference.device).eval()
    if source is not None:
        folder, _ = find_model(source)
        weights = load_weights(folder / "model.safetensors")
        trunk = {name.removeprefix("trunk."): tensor for name, tensor in weights.items() if name.startswith("trunk.")}
        load_state(backbone.trunk, trunk, str(folder))
    return backbone


def initial_guess(mol: Any, source: str | Path) -> np.ndarray:
    """Density matrix to start an SCF from: `mf.kernel(dm0=initial_guess(mol, "bundle"))`.

    Args:
        mol: a PySCF Mole in the basis of the model, with its ECP; closed shell.
        source: run folder or bundle folder.
    Returns:
        [nao, nao], PySCF's AO order.
    Raises:
        ValueError: no model, or a molecule outside its range: another basis, no ECP, ghost atoms, elements, charge, multiplicity.
    """
    from helm_scale.evaluation import guess

    model, method = load_model(source)
    return guess.initial_density(mol, model, method)


def predict(config: PredictConfig) -> str:
    """Write one npz file (its field `about` describes it) per molecule of an extended XYZ file.

    Returns:
        How many files were written, and where.
    Raises:
        ValueError: no model, an unreadable or empty XYZ file, or a molecule outside the model's range.
    """
    from helm_scale.data.xyz import read_xyz
    from helm_scale.evaluation import prediction

    model, method = load_model(config.source)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    (molecules, _), out = read_xyz(config.xyz), Path(config.out)
    prediction.check_molecules(molecules, model.config.basis)
    jobs = (
        prediction.PredictJob(
            molecule, prediction.predict_residual(model, molecule), method, model.config.baseline, config.overlap_threshold,
            out / f"{molecule.key}.npz",
        )
        for molecule in molecules
    )  # fmt: skip
    written = list(prediction.write_predictions(jobs, config.processes, len(molecules)))
    return f"{out}: {len(written)} molecules written; their field 'about' names units and AO orders"


def shards_generate(config: GenerateConfig) -> str:
    """Label the molecules of an XYZ file and write them as shards; a rerun continues, or does nothing once all is done.

    Returns:
        What the dataset holds; rejected molecules by name.
    Raises:
        ValueError: input that cannot be labelled, or a folder that holds something else.
        ChildProcessError: a PySCF process died.
    """
    from helm_scale.data import unfinished, xyz
    from helm_scale.data.manifest import Manifest, Rejected
    from helm_scale.dft import generate
    from helm_scale.dft.molecule import check_electrons

    out, method, labels = Path(config.out), generate.method_of(config), generate.labels_of(config)
    molecules, splits = xyz.read_xyz(config.xyz)
    for frame, molecule in enumerate(molecules):
        check_electrons(molecule, config.basis, f"{config.xyz}, frame {frame} ({molecule.key})")
    source = f"XYZ file, SHA-256 {hashlib.sha256(Path(config.xyz).read_bytes()).hexdigest()}"
    work = unfinished.UnfinishedDataset(out, method, labels)
    if unfinished.finished_dataset(out, method, labels, source) is None:
        rejected = []
        todo = work.missing(molecules)
        jobs = [generate.Job(molecule, method, config.forces, config.overlap, config.max_cycle) for molecule in todo]
        for number, result in generate.label_all(jobs, config.processes):
            if isinstance(result, str):
                rejected.append(Rejected(todo[number].key, result))
            else:
                work.add(result)
        work.finish(molecules, splits, rejected, config.licence, source, config.molecules_per_shard)
    work.clear()
    return Manifest.load(config.out).describe()


def shards_import(config: ImportConfig) -> str:
    """Turn a public dataset or a folder of npz files into shards; a rerun continues, or does nothing once all is done.

    Returns:
        How many samples were proven, and what the dataset holds.
    Raises:
        ValueError: a file that is not what it should be, a failed proof, or a folder that holds something else.
        ChildProcessError: a process died.
    """
    from helm_scale.importers.run import import_dataset

    made, proven = import_dataset(config)
    return f"{proven.samples} samples proven, {proven.consistent} of them by one-step self-consistency\n{made.describe()}"


def shards_verify(folder: str) -> str:
    """Check every byte and every sample of a dataset.

    Raises:
        ValueError: something is wrong; one line each.
    """
    from helm_scale.data.manifest import Manifest
    from helm_scale.data.shards import verify

    problems = verify(folder)
    if problems:
        raise ValueError("\n".join([f"{folder}: {len(problems)} problems", *problems]))
    dataset = Manifest.load(folder)
    return f"{folder}: {len(dataset)} samples in {len(dataset.shards)} shards are what the manifest says"


def shards_info(folder: str, png: str = "") -> str:
    """Say what a dataset holds, with histograms; draw them, too, where a PNG file is named."""
    from helm_scale.data import histograms
    from helm_scale.data.manifest import Manifest

    dataset = Manifest.load(folder)
    if png:
        histograms.draw(dataset, Path(png))
    return f"{dataset.describe()}\n{histograms.text(dataset)}"


def shards_split(config: SplitConfig) -> str:
    """Divide a dataset anew into train, validation and test, like samples on one side; shards stay as they are."""
    from helm_scale.data.hygiene import divide

    dataset, groups = divide(config)
    return f"{len(dataset)} samples in {groups} groups by {config.by}\n{dataset.describe()}"


def shards_leaks(config: LeaksConfig) -> str:
    """Check that no near-duplicates lie in different splits; raises ValueError if some do."""
    from helm_scale.data.hygiene import check

    return check(config)


def shards_repack(config: RepackConfig) -> str:
    """Write a dataset anew in shards of another size."""
    from helm_scale.data.repacking import repack

    return repack(config.folder, Path(config.out), config.molecules_per_shard).describe()


def shards_concat(out: str, folders: list[str]) -> str:
    """Join datasets of one method into a new one."""
    from helm_scale.data.joining import concat

    return concat(folders, Path(out)).describe()


def pretrain(config: PretrainConfig) -> str:
    """Learn Hamiltonians, alone or as one rank of torchrun; the same command resumes. A dry run only describes it.

    Everything is checked before a process group starts.

    Returns:
        what to tell the user; empty on ranks other than 0.
    Raises:
        ValueError: config, data, launch and run folder do not fit each other. FloatingPointError: loss or gradient not finite.
    """
    from helm_scale.data.collate import collate
    from helm_scale.data.plan import validation_bins
    from helm_scale.data.quarantine import Quarantine
    from helm_scale.data.stream import BatchMaker, Stream
    from helm_scale.objective.losses import HamiltonianObjective
    from helm_scale.parallel import collectives, engines, mesh, pair_parallel
    from helm_scale.parallel.watch import Watch
    from helm_scale.training import checkpoint, loop, optim, preflight

    logging.getLogger("helm_scale").setLevel(logging.CRITICAL if mesh.launched_rank() else logging.INFO)
    (dataset, plan), settings = preflight.check(config), config.training
    skips = config.data.damaged == "quarantine"
    torch.manual_seed(settings.seed)
    model = Helm(config.model)
    model.set_memory(config.execution.pair_chunk, config.execution.recompute, config.execution.message_chunk)
    objective = HamiltonianObjective(config.model.basis, config.model.parity, model.reference_onsite)
    if config.dry_run:
        for manifest in dataset.local:
            shards_verify(str(manifest.folder))
        found = preflight.measure_activations(
            model, objective, dataset, plan.head(settings.batch_molecules), lambda i: collate([dataset.read(i)], config.model)
        )
        return preflight.describe(config, dataset, plan, model, found)
    low = settings.working_precision == "bfloat16"
    make_optimizers = functools.partial(optim.make_optimizers, config=settings, hidden=optim.hidden_names(model))
    with mesh.processes(config.execution) as ranks, Watch(ranks, config.execution).running() as watch:
        quarantine = Quarantine(config.data.quarantine_share, Path(config.out) / f"quarantine-{ranks.rank}.jsonl") if skips else None
        make = BatchMaker(dataset, config.model, skips)
        stream = Stream(make, ranks.data_rank, ranks.data_size, config.execution.workers, quarantine)
        resume_from = collectives.from_rank_zero(ranks.rank, lambda: checkpoint.latest(config.out))
        if resume_from is None:
            singles = [[index] for index in plan.head(settings.reference_molecules)]
            fitted = collectives.from_rank_zero(ranks.rank, lambda: _fitted_reference(model, stream.batches(singles)))
            model.set_reference(*fitted)
        model.share(ranks.part, ranks.parts, pair_parallel.sum_over_parts(ranks))
        empty = collate([], config.model)
        engine = engines.start(config.execution, ranks, model, objective, make_optimizers, settings.clip_norm, empty, low)
        samples = dataset.split(config.data.validation_split)
        bins = validation_bins(samples, dataset.cost[samples], -(-settings.batch_molecules // settings.bins), ranks.data_size)
        job = loop.Job(
            config, engine, watch, plan, dataset.key, functools.partial(stream.steps, plan), lambda: stream.share(bins),
            preflight.record(config, dataset), resume_from,
        )  # fmt: skip
        ending = loop.train(job)
    if ending.requeue:
        logging.getLogger(__name__).warning(ending.text)
        raise SystemExit(mesh.requeue_code())
    return ending.text if ranks.rank == 0 else ""


def replay(config: ReplayConfig) -> str:
    """Compute a doubtful step again, sample by sample, on one CPU.

    Returns:
        Loss and gradient norm of every sample, the worst first, Markdown.
    Raises:
        ValueError: not a replay file, or the data are not those of the run.
    """
    from helm_scale.data.collate import collate
    from helm_scale.data.corpus import Corpus
    from helm_scale.model.weights import load_metadata
    from helm_scale.objective.losses import HamiltonianObjective
    from helm_scale.training import replay as replaying

    path = Path(config.file)
    try:
        about = json.loads(load_metadata(path)["about"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a replay file ({error!r}); wanted one from the folder replay of a run") from None
    dataset = Corpus.open(DataConfig(path=config.data or about["data_path"]))
    if dataset.hash != about["data"]["manifest_sha256"]:
        raise ValueError(
            f"{dataset.folder}: not the data of the run (manifest {about['data']['manifest_sha256'][:12]}); name them with --data"
        )
    model = Helm(parse(ModelConfig, about["model"], str(path)))
    load_state(model, load_weights(path), str(path))
    objective = HamiltonianObjective(model.config.basis, model.config.parity, model.reference_onsite)
    return replaying.replay(model, objective, about, lambda index: collate([dataset.read(index)], model.config))


def _fitted_reference(model: Helm, batches: Iterator[GraphBatch]) -> tuple[torch.Tensor, float]:
    from helm_scale.objective.references import fit_hamiltonian_reference

    rows, width = model.reference.shape
    return fit_hamiltonian_reference(batches, model.config.basis, model.config.parity, rows, width)
