"""Commands on a trained model: load, evaluate, predict, export, finetune; and a guess for PySCF's
SCF."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from helm_scale.config import (
    EnergyHeadConfig,
    EvaluateConfig,
    ExportConfig,
    FinetuneConfig,
    ModelConfig,
    PredictConfig,
    parse,
    read_record,
)
from helm_scale.model.energy import EnergyModel
from helm_scale.model.helm import Helm
from helm_scale.model.weights import load_weights
from helm_scale.types import Method


def load_model(source: str | Path) -> tuple[Helm, Method]:
    """Load the Hamiltonian model of a run folder (newest good checkpoint), of one checkpoint, or of
    a bundle.

    Returns:
        (model in evaluation mode, method record of its labels).
    Raises:
        ValueError: nothing to load there, a changed bundle, or files that do not fit each other.
    """
    folder, record = find_model(source)
    model = Helm(parse(ModelConfig, record["model"], str(folder)))
    load_state(model, load_weights(folder / "model.safetensors"), str(folder))
    return model.eval(), Method(**record["method"])


def load_energy_model(folder: str | Path) -> tuple[EnergyModel, dict[str, Any]]:
    """Load a finetuned energy model: a folder with model.json and model.safetensors, as
    launch/finetune.py writes it.

    Returns:
        (model in evaluation mode, its record: "model", "head", "method" of the energies,
        "training").
    Raises:
        ValueError: nothing to load there, a model of Hamiltonians, or files that do not fit each
            other.
    """
    path = Path(folder) / "model.json"
    if not path.is_file():
        raise ValueError(
            f"{folder}: no model.json, so this is no energy model; write one with launch/finetune.py"
        )
    record = _read_record(path)
    if "head" not in record:
        raise ValueError(
            f"{path}: no energy head: a model of Hamiltonians; finetune it with launch/finetune.py"
        )
    model = EnergyModel(
        parse(ModelConfig, record["model"], str(path)),
        parse(EnergyHeadConfig, record["head"], str(path)),
    )
    load_state(model, load_weights(Path(folder) / "model.safetensors"), str(folder))
    return model.eval(), record


def find_model(source: str | Path) -> tuple[Path, dict[str, Any]]:
    """Folder with model.safetensors, and its record: config.json of a checked bundle or model.json
    of a checkpoint.

    Raises:
        ValueError: there is none, or a file of the bundle is missing or changed.
    """
    folder = Path(source)
    if (folder / "config.json").is_file():
        from helm_scale.export.bundle import check_sums

        check_sums(folder)
        return folder, _read_record(folder / "config.json")
    if not (folder / "model.json").is_file():
        from helm_scale.pretraining.checkpoint import latest

        folder = latest(folder) or folder
    if not (folder / "model.json").is_file():
        raise ValueError(
            f"{source}: neither a run folder with a checkpoint nor a bundle; train with launch/pretrain.py first"
        )
    return folder, _read_record(folder / "model.json")


def _read_record(path: Path) -> dict[str, Any]:
    """The record beside a model's weights; raises ValueError naming the file if it is damaged."""
    record = read_record(path)
    try:
        return {**record, "model": dict(record["model"]), "method": dict(record["method"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not the record of a model ({error!r}); copy the folder again"
        ) from None


def load_state(model: nn.Module, state: dict, where: str) -> None:
    """Copy weights into a model.

    Raises:
        ValueError: tensors are missing, unexpected or wrongly shaped; names the first of them and
            the folder.
    """
    got, wanted = (
        {name: tuple(tensor.shape) for name, tensor in part.items()}
        for part in (state, model.state_dict())
    )
    wrong = [name for name in [*wanted, *got] if got.get(name) != wanted.get(name)]
    if wrong:
        raise ValueError(
            f"{where}: weights of another ModelConfig: {wrong[0]} has shape {got.get(wrong[0])}, wanted {wanted.get(wrong[0])}"
            f" (None: absent; {len(set(wrong))} tensors do not fit); keep weights and record of one model together"
        )
    model.load_state_dict(state)


def export(config: ExportConfig) -> str:
    """Write a bundle from the newest checkpoint of a run, or only verify the one at `out`; either
    way it is verified.

    Returns:
        What was found, one line.
    Raises:
        ValueError: no checkpoint, a folder that is no bundle, or a bundle with a missing or changed
            file.
    """
    from helm_scale.export import bundle, card

    out = Path(config.out)
    if not config.verify:
        folder, record = find_model(config.source)
        model, method = load_model(folder)
        bundle.write(model, method, out, record.get("provenance") or card.origin(folder, record))
    found = bundle.verify(out)
    return (
        f"{out}: {found.files} checksums hold; features of {found.molecules} golden molecules are reproduced"
        f" to {found.program_error:.1e} by model.pt2 and {found.model_error:.1e} by this package"
    )


def finetune(config: FinetuneConfig) -> str:
    """Learn energies from few labels on a random, a frozen and a pretrained backbone; writes tables
    and models to `out`.

    Returns:
        The tables, Markdown.
    Raises:
        ValueError: no model, no such data or split, molecules without energies, or a molecule
            outside the model's range.
    """
    from helm_scale.finetuning import labels
    from helm_scale.finetuning.report import study

    if config.threads:
        torch.set_num_threads(config.threads)
    backbone, _ = load_model(config.source)
    return study(
        backbone.to("cuda" if torch.cuda.is_available() else "cpu"), labels.read(config), config
    )


def evaluate(config: EvaluateConfig) -> str:
    """Judge a model, or a folder of anybody's Hamiltonians, on a split of a dataset; writes tables,
    figures and cube files to `out`.

    Returns:
        The tables, Markdown.
    Raises:
        ValueError: no model, no such split, labels of another method, or a molecule outside the
            model's range.
    """
    from helm_scale.data.format.manifest import Manifest
    from helm_scale.evaluation import predictors, protocol, study

    manifest, other = Manifest.load(config.data), None
    if predictors.is_folder(Path(config.source)):
        return study.run(
            predictors.of_folder(Path(config.source), manifest.method.basis, config.ao_order),
            None,
            manifest,
            config,
        )
    model, method = load_model(config.source)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    model.flow_steps = config.flow_steps or model.flow_steps
    protocol.check_method(method, manifest.method, config.data)
    if "embedding" in config.extras:
        other = _backbone(config.other, model)
    return study.run(predictors.of_model(model, method), other, manifest, config)


def _backbone(source: str | None, like: Helm) -> EnergyModel:
    """The trunk of a run, bundle or finetuned model, or random weights, in the architecture of
    another model."""
    torch.manual_seed(0)
    backbone = EnergyModel(like.config).to(like.reference.device).eval()
    if source is not None:
        folder, _ = find_model(source)
        weights = load_weights(folder / "model.safetensors")
        trunk = {
            name.removeprefix("trunk."): tensor
            for name, tensor in weights.items()
            if name.startswith("trunk.")
        }
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
        ValueError: no model, or a molecule outside its range: another basis, no ECP, ghost atoms,
            elements, charge, multiplicity.
    """
    from helm_scale.evaluation import guess

    model, method = load_model(source)
    return guess.initial_density(mol, model, method)


def predict(config: PredictConfig) -> str:
    """Write one npz file (its field `about` describes it) per molecule of an extended XYZ file.

    Returns:
        How many files were written, and where.
    Raises:
        ValueError: no model, an unreadable or empty XYZ file, or a molecule outside the model's
            range.
    """
    from helm_scale.data.format.xyz import read_xyz
    from helm_scale.evaluation import prediction

    model, method = load_model(config.source)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    model.flow_steps = config.flow_steps or model.flow_steps
    (molecules, _), out = read_xyz(config.xyz), Path(config.out)
    prediction.check_molecules(molecules, model.config.basis)
    jobs = (
        prediction.PredictJob(
            molecule, prediction.predict_residual(model, molecule, method), method, model.config.baseline, config.overlap_threshold,
            out / f"{molecule.key}.npz",
        )
        for molecule in molecules
    )  # fmt: skip
    written = list(prediction.write_predictions(jobs, config.processes, len(molecules)))
    return f"{out}: {len(written)} molecules written; their field 'about' names units and AO orders"
