"""Optimisers, schedule, and the average of the weights.

AdamW takes everything, or Muon takes the matrices between hidden features and AdamW the rest. StackedMuon differs from
torch.optim.Muon in arithmetic only: matrices of one shape are orthogonalised as one batch, in float32 or bfloat16 where
torch's own goes one by one in bfloat16, and sharded matrices are gathered whole. On one thread of a Xeon with bfloat16
units torch's step takes 1.4 times as long as ours in float32 and 2.5 times as in bfloat16 for the model of
configs/water.yaml, 2.2 and 2.6 times for that of configs/quickstart.yaml (benchmarks/muon.py).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import cos, pi, sqrt
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from helm_scale.config import TrainingConfig
from helm_scale.parallel.collectives import local, on_whole_matrices


class HasHiddenMatrices(Protocol):
    """A model that says which matrices Muon may orthogonalise."""

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Matrices [a, b] between hidden features; embeddings, heads and vectors are not among them."""


def make_optimizers(model: nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for hidden matrices where the config says so; call it after the model is wrapped.

    Weight decay leaves vectors and biases alone.
    """
    hidden = cast(HasHiddenMatrices, model).hidden_matrices() if config.optimizer == "muon" else []
    taken = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in taken]
    groups = [
        {"params": [parameter for parameter in rest if parameter.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in rest if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)]
    if hidden:
        optimizers.append(
            StackedMuon(
                hidden,
                getattr(torch, config.muon_dtype),
                lr=config.muon_learning_rate,
                weight_decay=config.weight_decay,
                momentum=0.95,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def learning_rate_factor(step: int, steps: int, warmup_steps: int) -> float:
    """Factor of the peak rate at a step (from 0): linear warm-up to 1, then a cosine that reaches 0 at `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + cos(pi * (step - warmup_steps) / max(steps - warmup_steps, 1)))


class StackedMuon(torch.optim.Muon):
    """torch.optim.Muon (same options, same state) on stacks of matrices of one shape.

    Args:
        dtype: of the Newton-Schulz products.

    Property: the update of a matrix is torch's own within bfloat16, whatever it is stacked with and however it is sharded.
    """

    def __init__(self, parameters: Iterable[Tensor], dtype: torch.dtype, **options: Any) -> None:
        super().__init__(parameters, **options)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step on all matrices that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            parameters: list[Tensor] = []
            gradients: list[Tensor] = []
            momenta: list[Tensor] = []
            self._init_group(group, parameters, gradients, momenta)
            if parameters:
                self._step_group(group, parameters, gradients, momenta)

    def _step_group(self, group: dict, parameters: list[Tensor], gradients: list[Tensor], momenta: list[Tensor]) -> None:  # type: ignore[type-arg]
        shapes = [parameter.shape for parameter in parameters]
        torch._foreach_lerp_(_locals(momenta), _locals(gradients), 1 - group["momentum"])
        updates = [g.lerp(m, group["momentum"]) for g, m in zip(gradients, momenta, strict=True)] if group["nesterov"] else momenta
        options = group["ns_coefficients"], group["ns_steps"], group["eps"], self._dtype
        polar = on_whole_matrices(lambda whole: orthogonalise(whole, *options), updates)
        held = _locals(parameters)
        torch._foreach_mul_(held, 1 - group["lr"] * group["weight_decay"])
        scales = [-group["lr"] * _rate_of_shape(group["adjust_lr_fn"], shape) for shape in shapes]
        torch._foreach_add_(held, torch._foreach_mul(polar, scales))


def orthogonalise(
    matrices: Sequence[Tensor], coefficients: tuple[float, float, float], steps: int, eps: float, dtype: torch.dtype
) -> list[Tensor]:
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix, one batch per shape (up to transposition).

    X <- a X + (b A + c A^2) X with A = X X^T, from X / |X|; singular values end between about 0.7 and 1.2.

    Returns:
        matrices of the same shapes, in order and dtype.
    """
    by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        by_shape[min(matrix.shape), max(matrix.shape)].append(i)
    results: dict[int, Tensor] = {}
    a, b, c = coefficients
    for members in by_shape.values():
        x = torch.stack([_wide(matrices[i]) for i in members])
        x = (x / x.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]).to(dtype)
        for _ in range(steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        x = x.to(matrices[members[0]].dtype)
        results.update({i: one if matrices[i].shape == one.shape else one.mT for i, one in zip(members, x, strict=True)})
    return [results[i] for i in range(len(matrices))]


class WeightAverage:
    """Exponential moving average of trainable weights, sharded as they are.

    Args:
        parameters: the engine's weights by name. decay: weight of the past per step.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self._parameters, self._decay = dict(parameters), decay
        self.tensors = {name: tensor.clone() for name, tensor in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the present weights."""
        torch._foreach_lerp_(_locals(self.tensors.values()), _locals(self._parameters.values()), 1 - self._decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mine, theirs in zip(_locals(self.tensors.values()), _locals(self._parameters.values()), strict=True):
            kept = mine.clone()
            mine.copy_(theirs)
            theirs.copy_(kept)


def _locals(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [local(tensor) for tensor in tensors]


def _wide(matrix: Tensor) -> Tensor:
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


def _rate_of_shape(adjustment: str | None, shape: torch.Size) -> float:
    """torch.optim.Muon's factor of the learning rate; "match_rms_adamw" gives updates the size of AdamW's."""
    if adjustment == "match_rms_adamw":
        return 0.2 * sqrt(max(shape))
    return sqrt(max(1.0, shape[0] / shape[1]))
