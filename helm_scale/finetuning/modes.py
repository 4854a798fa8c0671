"""The three modes of finetuning: which weights a model starts with, and at which rates they learn.

direct: a random backbone of the same architecture. frozen: the pretrained backbone stays, only the
head learns. finetuned: all learn, the backbone at smaller rates towards its first layer.
"""

from dataclasses import dataclass

import torch
from torch import nn

from helm_scale.config import FinetuneConfig
from helm_scale.finetuning.labels import ReferencedSplits
from helm_scale.finetuning.targets import new_property_model
from helm_scale.model.helm import Helm
from helm_scale.model.properties import PropertyModel


@dataclass(frozen=True)
class ParameterGroup:
    """Tensors of a model that learn at one rate.

    Attributes:
        name: layer or head. origin: whence the values come: random, backbone or new.
        rate: peak rate of learning; 0: frozen.
    """

    name: str
    origin: str
    tensors: tuple[nn.Parameter, ...]
    rate: float


def start_model(
    mode: str, backbone: Helm, splits: ReferencedSplits, config: FinetuneConfig, *, seed: int
) -> PropertyModel:
    """The model of a mode with a head that adds nothing: it predicts the reference alone."""
    # A fork: how many numbers a model draws must not change what is drawn after it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_property_model(backbone.config, splits.head, config.head)
    for weight in model.head.output_weights():
        nn.init.zeros_(weight)
    if mode != "direct":
        model.trunk.load_state_dict(backbone.trunk.state_dict())
    model.reference.copy_(splits.reference)
    model.output_scale.fill_(splits.scale)
    return model.to(backbone.reference.device)


def parameter_groups(
    model: PropertyModel, mode: str, config: FinetuneConfig
) -> list[ParameterGroup]:
    """Tensors of the model by depth with their rates.

    The rate of a layer is `layer_decay` times that of the next.
    """
    layers, groups = len(model.trunk.layers), []
    for depth in range(layers + 1):
        tensors = tuple(
            p for name, p in model.trunk.named_parameters() if _depth(name, layers) == depth
        )
        group = ParameterGroup(
            name=f"layer {depth}" if depth else "embeddings",
            origin="random" if mode == "direct" else "backbone",
            tensors=tensors,
            rate=_trunk_rate(mode, depth, layers=layers, config=config),
        )
        groups.append(group)
    head = tuple(model.head.parameters())
    return [*groups, ParameterGroup("head", "new", head, config.learning_rate)]


def _trunk_rate(mode: str, depth: int, *, layers: int, config: FinetuneConfig) -> float:
    """Peak rate of the trunk's tensors of a depth."""
    if mode == "direct":
        return config.learning_rate
    if mode == "frozen" or depth < config.freeze_layers:
        return 0.0
    return config.backbone_learning_rate * config.layer_decay ** (layers - depth)


def _depth(name: str, layers: int) -> int:
    """0 for embeddings and edges, k for the k-th layer; the last norm goes with the last layer."""
    first, second, *_ = name.split(".")
    if first == "layers":
        return int(second) + 1
    return layers if first == "norm" else 0
