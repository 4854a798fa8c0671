"""The composition root: the one file that sees every part, one function per command.

PySCF- and DeepSpeed-backed parts are imported inside the functions that need them, so that a training node needs no
PySCF and the import stays quick.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from helm_scale.batch import Method
from helm_scale.config import EvaluateConfig, ExportConfig, ModelConfig, PredictConfig, parse
from helm_scale.model.helm import Helm
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
        return folder, json.loads((folder / "config.json").read_text())
    if not (folder / "model.json").is_file():
        from helm_scale.training.checkpoint import latest

        folder = latest(folder) or folder
    if not (folder / "model.json").is_file():
        raise ValueError(f"{source}: neither a run folder with a checkpoint nor a bundle; train with launch/pretrain.py first")
    return folder, json.loads((folder / "model.json").read_text())


def load_state(model: Helm, state: dict, where: str) -> None:
    """Copy weights into a model.

    Raises:
        ValueError: names missing, unexpected or wrongly shaped tensors and the file.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{where}: weights do not fit the model: {error}") from None


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


def evaluate(config: EvaluateConfig) -> str:
    """Judge a model on a split of a dataset; writes report.json, report.md and pictures to `out`.

    Returns:
        The tables, Markdown.
    Raises:
        ValueError: no model, no such split, labels of another method, or a molecule outside the model's range.
    """
    from helm_scale.data.manifest import Manifest
    from helm_scale.data.shards import ShardReader
    from helm_scale.evaluation import prediction, protocol, report

    model, method = load_model(config.source)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    manifest = Manifest.load(config.data)
    protocol.check_method(method, manifest.method, config.data)
    indices = manifest.split(config.split)[: config.max_molecules or None]
    reader, drawn = ShardReader(manifest), protocol.pictured(manifest.atoms[indices])

    def jobs() -> Iterator[protocol.Job]:
        for place, index in enumerate(indices):
            molecule = reader.read(int(index))
            yield protocol.Job(
                molecule, prediction.predict_residual(model, molecule), manifest.method, model.config.baseline,
                model.config.pair_cutoff, config.overlap_threshold,
                with_orbitals=place < (config.orbital_molecules or len(indices)), keep_matrices=place == drawn,
            )  # fmt: skip

    records = list(protocol.evaluate_molecules(jobs(), config.processes, len(indices)))
    settings = {name: getattr(config, name) for name in ("source", "data", "split", "overlap_threshold")}
    about = settings | {"method": asdict(manifest.method), "model": model.config.model_dump(mode="json")}
    return report.write_report(Path(config.out), records, about)


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
