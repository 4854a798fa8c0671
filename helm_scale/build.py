"""The composition root: the one file that sees every part, one function per command.

PySCF- and DeepSpeed-backed parts are imported inside the functions that need them, so that a training node needs no
PySCF and the import stays quick.
"""

import json
from pathlib import Path

from helm_scale.batch import Method
from helm_scale.config import ModelConfig, parse
from helm_scale.model.helm import Helm
from helm_scale.model.weights import load_weights


def load_model(source: str | Path) -> tuple[Helm, Method]:
    """Load the Hamiltonian model of a run folder (newest good checkpoint), of one checkpoint, or of a bundle.

    Returns:
        (model in evaluation mode, method record of its labels).
    Raises:
        ValueError: nothing to load there, or files that do not fit each other.
    """
    from helm_scale.training.checkpoint import latest

    folder = Path(source)
    if not (folder / "model.json").is_file():
        folder = latest(folder) or folder
    if not (folder / "model.json").is_file():
        raise ValueError(f"{source}: neither a run folder with a checkpoint nor a bundle; train with launch/pretrain.py first")
    record = json.loads((folder / "model.json").read_text())
    model = Helm(parse(ModelConfig, record["model"], str(folder / "model.json")))
    load_state(model, load_weights(folder / "model.safetensors"), str(folder))
    return model.eval(), Method(**record["method"])


def load_state(model: Helm, state: dict, where: str) -> None:
    """Copy weights into a model.

    Raises:
        ValueError: names missing, unexpected or wrongly shaped tensors and the file.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{where}: weights do not fit the model: {error}") from None
