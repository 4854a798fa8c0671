"""Read trained models from run folders, checkpoints and bundles."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helm_scale.config import HeadConfig, ModelConfig, parse, read_record
from helm_scale.export import shipped
from helm_scale.finetuning.targets import new_property_model
from helm_scale.model.energy import EnergyModel
from helm_scale.model.heads import HEADS
from helm_scale.model.heads.energy import ENERGY
from helm_scale.model.helm import Helm
from helm_scale.model.properties import PropertyModel
from helm_scale.model.weights import load_weights
from helm_scale.reading.domain import TrainingDomain
from helm_scale.types import Method
from helm_scale.units import MICROHARTREE

WEIGHTS = "model.safetensors"


def load_model(source: str | Path) -> tuple[Helm, Method]:
    """Load the Hamiltonian model of a run folder, a checkpoint or a bundle.

    Of a run, the newest good checkpoint is taken.

    Returns:
        (model in evaluation mode, method record of its labels).
    Raises:
        ValueError: nothing to load there, a changed bundle, or files that do not fit each other.
    """
    folder, record = find_model(source)
    model = Helm(parse(ModelConfig, record["model"], str(folder)))
    model.training_domain = TrainingDomain.read(record, str(folder))
    load_state(model, load_weights(folder / WEIGHTS), str(folder))
    return model.eval(), Method(**record["method"])


def load_predictor(source: str | Path, *, flow_steps: int = 0) -> tuple[Helm, Method]:
    """Load a Hamiltonian model onto the GPU where there is one.

    Args:
        flow_steps: Euler steps of a flow model; 0: as it was trained.
    Raises:
        ValueError: as `load_model`.
    """
    model, method = load_model(source)
    model.flow_steps = flow_steps or model.flow_steps
    return model.to(best_device()), method


def validation_error(source: str | Path) -> float | None:
    """Mean |dH| on the validation molecules at the last validation before the weights were saved,
    Hartree; None where the record beside them does not say."""
    from helm_scale.export.model_card import metrics_of

    folder, record = find_model(source)
    metrics = (
        record["provenance"].get("metrics", {}) if "provenance" in record else metrics_of(folder)
    )
    error = metrics.get("validation_h_mae_ueh")
    return None if error is None else float(error) * MICROHARTREE


def best_device() -> str:
    """The GPU where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_property_model(folder: str | Path) -> tuple[PropertyModel, dict[str, Any]]:
    """Load a model as `helm-scale finetune` writes it: of energies, dipoles or another property.

    Args:
        folder: with model.json and model.safetensors.
    Returns:
        (model in evaluation mode, its record: "model", "head", "target", "method" of the labels,
        "training").
    Raises:
        ValueError: nothing to load there, a model of Hamiltonians, a target without head, or files
            that do not fit each other.
    """
    folder = shipped.resolve(folder)
    path = folder / "model.json"
    if not path.is_file():
        raise ValueError(
            f"{folder}: no model.json, so this is no energy model;"
            " write one with helm-scale finetune"
        )
    record = _read_record(path)
    if "head" not in record:
        raise ValueError(
            f"{path}: no energy head: a model of Hamiltonians; finetune it with helm-scale finetune"
        )
    target = record.setdefault("target", ENERGY.quantity.name)  # all were of energies once
    if target not in HEADS:
        raise ValueError(f"{path}: target: got {target!r}, wanted one of {', '.join(HEADS)}")
    model = new_property_model(
        parse(ModelConfig, record["model"], str(path)),
        HEADS[target],
        parse(HeadConfig, record["head"], str(path)),
    )
    model.training_domain = TrainingDomain.read(record, str(path))
    load_state(model, load_weights(folder / WEIGHTS), str(folder))
    return model.eval(), record


def load_energy_model(folder: str | Path) -> tuple[EnergyModel, dict[str, Any]]:
    """Load an energy model as `helm-scale finetune` writes it.

    Raises:
        ValueError: as `load_property_model`, or a model of another property.
    """
    model, record = load_property_model(folder)
    if not isinstance(model, EnergyModel):
        raise ValueError(
            f"{folder}: a model of the target {record['target']}, wanted energy;"
            " load it with load_property_model"
        )
    return model, record


def find_model(source: str | Path) -> tuple[Path, dict[str, Any]]:
    """Find the folder with model.safetensors, and the record beside it.

    The source may be the name of a model (export/shipped.py). The record is config.json of a
    bundle, whose checksums must hold, or model.json of a checkpoint.

    Raises:
        ValueError: there is none, or a file of the bundle is missing or changed.
    """
    folder = shipped.resolve(source)
    if (folder / "config.json").is_file():
        from helm_scale.export.bundle import check_sums

        check_sums(folder)
        return folder, _read_record(folder / "config.json")
    if not (folder / "model.json").is_file():
        from helm_scale.pretraining.checkpoint import latest

        folder = latest(folder) or folder
    if not (folder / "model.json").is_file():
        raise ValueError(
            f"{source}: neither a run folder with a checkpoint nor a bundle;"
            " train with helm-scale pretrain first"
        )
    return folder, _read_record(folder / "model.json")


def load_state(model: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Copy weights into a model.

    Raises:
        ValueError: tensors are missing, unexpected or wrongly shaped; names the first of them and
            the folder.
    """
    # torch lists every key that does not fit, over many lines; one is enough to know the mistake
    got, wanted = (
        {name: tuple(tensor.shape) for name, tensor in part.items()}
        for part in (state, model.state_dict())
    )
    wrong = [name for name in [*wanted, *got] if got.get(name) != wanted.get(name)]
    if wrong:
        raise ValueError(
            f"{where}: weights of another ModelConfig: {wrong[0]} has shape {got.get(wrong[0])},"
            f" wanted {wanted.get(wrong[0])} (None: absent; {len(set(wrong))} tensors do not fit);"
            " keep weights and record of one model together"
        )
    model.load_state_dict(state)


def _read_record(path: Path) -> dict[str, Any]:
    """The record beside a model's weights."""
    record = read_record(path)
    try:
        return {**record, "model": dict(record["model"]), "method": dict(record["method"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not the record of a model ({error!r}); copy the folder again"
        ) from None
