"""Compute a doubtful step again, sample by sample."""

import json
from pathlib import Path
from typing import Any

from helm_scale.commands.models import load_state
from helm_scale.commands.pretrain import build_loss
from helm_scale.config import (
    DataConfig,
    ModelConfig,
    PretrainConfig,
    ReplayConfig,
    TrainingConfig,
    parse,
    upgrade,
)
from helm_scale.data.graphs.collate import collate
from helm_scale.data.loading.dataset import Dataset
from helm_scale.model.helm import Helm
from helm_scale.model.weights import load_metadata, load_weights
from helm_scale.pretraining import replay as replaying
from helm_scale.types import GraphBatch


def replay(config: ReplayConfig) -> str:
    """Compute a doubtful step again, sample by sample, on one CPU.

    Returns:
        Loss and gradient norm of every sample, the worst first, Markdown.
    Raises:
        ValueError: not a replay file, or the data are not those of the run.
    """
    path = Path(config.file)
    about = _read_about(path)
    dataset = Dataset.open(DataConfig(path=config.data or about["data_path"]))
    manifest = about["data"]["manifest_sha256"]
    if dataset.hash != manifest:
        raise ValueError(
            f"{dataset.folder}: not the data of the run (manifest {manifest[:12]});"
            " name them with --data"
        )
    model = Helm(parse(ModelConfig, about["model"], str(path)))
    load_state(model, load_weights(path), str(path))
    training = parse(TrainingConfig, about["training"], str(path))
    matrices = PretrainConfig(model=model.config, training=training).loss_matrices

    def load(index: int) -> GraphBatch:
        return collate([dataset.read(index)], model.config, matrices)

    return replaying.replay(model, build_loss(model, training), about=about, load=load)


def _read_about(path: Path) -> dict[str, Any]:
    """What a replay file says of its step, in today's names; ValueError if it is none."""
    try:
        about = json.loads(load_metadata(path)["about"])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: not a replay file ({error!r}); wanted one from the folder replay of a run"
        ) from None
    return upgrade(about, str(path))
