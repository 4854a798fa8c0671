"""The optimisers of a model: what is trained, and by which of them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, cast

from torch import nn
from torch.optim import Optimizer

from helm_scale import optim
from helm_scale.config import TrainingConfig
from helm_scale.optim import adamw
from helm_scale.parallel.flat_shards import FlatShard


class HasHiddenMatrices(Protocol):
    """A model that says which matrices an optimiser of matrices, such as Muon, may take."""

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Matrices [a, b] between hidden features; no embeddings, heads or vectors."""


def hidden_names(model: nn.Module) -> set[str]:
    """Names of a model's hidden matrices; called before the model is wrapped."""
    hidden = {id(parameter) for parameter in cast(HasHiddenMatrices, model).hidden_matrices()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in hidden}


def freeze(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Leave parameters out of training, by how their names begin.

    Called before the model is wrapped.

    Raises:
        ValueError: a prefix fits no parameter, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            known = ", ".join(sorted({".".join(name.split(".")[:2]) for name in names}))
            raise ValueError(
                f"training.freeze_prefixes: no parameter is named {prefix}...; known: {known}"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(prefixes)))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"training.freeze_prefixes: got {list(prefixes)}, which leaves nothing to train;"
            " wanted fewer"
        )


def make_optimizers(
    trained: Mapping[str, FlatShard], config: TrainingConfig, hidden: Collection[str]
) -> list[Optimizer]:
    """AdamW, and for hidden matrices another where the config says so.

    Args:
        trained: shards of the trained parameters by name.
        hidden: names of the matrices between hidden features.
    """
    spec = optim.spec_of(config.optimizer)
    taken = set(hidden) & trained.keys() if spec.matrices_only else set()
    rest = [shard for name, shard in trained.items() if name not in taken]
    optimizers = [adamw.make(rest, config)]
    if taken:
        matrices = [shard for name, shard in trained.items() if name in taken]
        optimizers.append(spec.make(matrices, config))
    return optimizers
