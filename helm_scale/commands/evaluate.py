"""Compare predicted Hamiltonians with the labels of a split."""

from pathlib import Path

import torch

from helm_scale.commands.models import (
    WEIGHTS,
    find_model,
    load_predictor,
    load_state,
    validation_error,
)
from helm_scale.config import EvaluateConfig
from helm_scale.model.energy import EnergyModel
from helm_scale.model.helm import Helm
from helm_scale.model.weights import below, load_weights


def evaluate(config: EvaluateConfig) -> str:
    """Judge a model, or a folder of anybody's Hamiltonians, on a split of a dataset.

    Tables, figures and cube files go to `out`.

    Returns:
        The tables, Markdown.
    Raises:
        ValueError: no model, no such split, labels of another method, or a molecule outside the
            model's range.
    """
    from helm_scale.data.format.manifest import Manifest
    from helm_scale.evaluation import predictors
    from helm_scale.evaluation.dataset import evaluate_dataset
    from helm_scale.evaluation.molecule import check_method

    manifest, source = Manifest.load(config.data), Path(config.source)
    if predictors.is_folder(source):
        files = predictors.of_folder(source, manifest.method.basis, config.ao_order)
        return evaluate_dataset(files, None, manifest, config)
    model, method = load_predictor(source, flow_steps=config.flow_steps)
    check_method(method, manifest.method, config.data)
    other = _backbone_like(model, config.other) if "embedding" in config.extras else None
    predictor = predictors.of_model(model, method, error=validation_error(source))
    return evaluate_dataset(predictor, other, manifest, config)


def _backbone_like(model: Helm, source: str | None) -> EnergyModel:
    """A trunk of the same architecture: of a run, bundle or finetuned model, or random weights."""
    torch.manual_seed(0)
    backbone = EnergyModel(model.config).to(model.reference.device).eval()
    if source is not None:
        folder, _ = find_model(source)
        trunk = below("trunk.", load_weights(folder / WEIGHTS))
        load_state(backbone.trunk, trunk, str(folder))
    return backbone
