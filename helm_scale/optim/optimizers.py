"""Optimisers, schedule, and the average of the weights.

AdamW takes everything, or Muon takes the matrices between hidden features and AdamW the rest.
StackedMuon differs from torch.optim.Muon in arithmetic only: matrices of one shape are
orthogonalised as one batch, in float32 or bfloat16 where torch's own goes one by one in bfloat16,
and sharded matrices are gathered whole. On one thread of a Xeon with bfloat16 units torch's step
takes 1.4 times as long as ours in float32 and 2.5 times as in bfloat16 for the model of
configs/water.yaml, 2.2 and 2.6 times for that of configs/quickstart.yaml (benchmarks/muon.py).
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import cos, pi, sqrt
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from helm_scale.config import TrainingConfig
from helm_scale.parallel.engine import Engine
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.sharded_matrices import ShardedMatrices

_COEFFICIENTS, _STEPS, _EPS = (
    (3.4445, -4.7750, 2.0315),
    5,
    1e-7,
)  # of the Newton-Schulz iteration, as in torch.optim.Muon


class HasHiddenMatrices(Protocol):
    """A model that says which matrices Muon may orthogonalise."""

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Matrices [a, b] between hidden features; embeddings, heads and vectors are not among
        them."""


def hidden_names(model: nn.Module) -> set[str]:
    """Names of the parameters that Muon may orthogonalise; call it before the model is wrapped."""
    hidden = {id(parameter) for parameter in cast(HasHiddenMatrices, model).hidden_matrices()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in hidden}


def freeze(model: nn.Module, beginnings: Sequence[str]) -> None:
    """Leave parameters out of training, by how their names begin; call it before the model is
    wrapped.

    Raises:
        ValueError: a beginning that fits no parameter, or nothing left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in names):
            known = ", ".join(sorted({".".join(name.split(".")[:2]) for name in names}))
            raise ValueError(
                f"training.freeze_prefixes: no parameter is named {beginning}...; known: {known}"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(beginnings)))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"training.freeze_prefixes: got {list(beginnings)}, which leaves nothing to train; wanted fewer"
        )


def make_optimizers(
    trained: Mapping[str, FlatShard], config: TrainingConfig, hidden: Collection[str]
) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for hidden matrices where the config says so.

    Weight decay leaves vectors and biases alone.

    Args:
        trained: shards of the trained parameters by name. hidden: names of those that Muon may
            take.
    """
    taken = {
        name: shard
        for name, shard in trained.items()
        if name in hidden and config.optimizer == "muon"
    }
    rest = [shard for name, shard in trained.items() if name not in taken]
    groups = [
        {
            "params": [shard.local for shard in rest if len(shard.shape) >= 2],
            "weight_decay": config.weight_decay,
        },
        {"params": [shard.local for shard in rest if len(shard.shape) < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    ]
    if taken:
        dtype = getattr(torch, config.muon_dtype)
        optimizers.append(
            StackedMuon(
                list(taken.values()),
                dtype,
                lr=config.muon_learning_rate,
                weight_decay=config.weight_decay,
            )
        )
    return optimizers


def learning_rate_factor(step: int, steps: int, warmup_steps: int) -> float:
    """Factor of the peak rate at a step (from 0): linear warm-up to 1, then a cosine that reaches 0
    at `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + cos(pi * (step - warmup_steps) / max(steps - warmup_steps, 1)))


class StackedMuon(torch.optim.Optimizer):
    """torch.optim.Muon (same arithmetic, RMS-matched to AdamW) on stacks of matrices of one shape,
    whole or in shards.

    Args:
        shards: of matrices. dtype: of the Newton-Schulz products.

    Property: the update of a matrix is torch's own within bfloat16, whatever it is stacked with and
    however it is cut.
    """

    def __init__(
        self,
        shards: Sequence[FlatShard],
        dtype: torch.dtype,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        nesterov: bool = True,
    ) -> None:
        super().__init__(
            [shard.local for shard in shards],
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay},
        )
        self._dtype, self._nesterov, self._matrices = dtype, nesterov, ShardedMatrices(shards)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step on all matrices; each has a gradient."""
        assert closure is None
        (group,) = self.param_groups
        held = [tensor.detach() for tensor in group["params"]]
        gradients = [tensor.grad for tensor in group["params"]]
        momenta = [
            self.state[tensor].setdefault("momentum_buffer", torch.zeros_like(tensor.detach()))
            for tensor in group["params"]
        ]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = (
            torch._foreach_lerp(gradients, momenta, group["momentum"])
            if self._nesterov
            else momenta
        )
        polar = self._matrices.apply(
            lambda whole: orthogonalise(whole, _COEFFICIENTS, _STEPS, _EPS, self._dtype), updates
        )
        torch._foreach_mul_(held, 1 - group["lr"] * group["weight_decay"])
        scales = [-group["lr"] * 0.2 * sqrt(max(shape)) for shape in self._matrices.shapes]
        torch._foreach_add_(held, torch._foreach_mul(polar, scales))


def orthogonalise(
    matrices: Sequence[Tensor],
    coefficients: tuple[float, float, float],
    steps: int,
    eps: float,
    dtype: torch.dtype,
) -> list[Tensor]:
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix, one batch per shape (up
    to transposition).

    X <- a X + (b A + c A^2) X with A = X X^T, from X / |X|; singular values end between about 0.7
    and 1.2.

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
        results.update(
            {
                i: one if matrices[i].shape == one.shape else one.mT
                for i, one in zip(members, x, strict=True)
            }
        )
    return [results[i] for i in range(len(matrices))]


class WeightAverage:
    """Exponential moving average of trainable weights, in the shards that the engine holds.

    Args:
        engine: holds the weights. decay: weight of the past per step.
    """

    def __init__(self, engine: Engine, decay: float) -> None:
        self._engine, self._decay = engine, decay
        self.shards = {
            name: shard.like(shard.local.detach().clone()) for name, shard in engine.trained.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the present weights."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - self._decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; all ranks enter and leave together."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mine, theirs in zip(self._averages, self._weights, strict=True):
            kept = mine.clone()
            mine.copy_(theirs)
            theirs.copy_(kept)
        self._engine.sync_parameters()

    @property
    def _averages(self) -> list[Tensor]:
        return [shard.local for shard in self.shards.values()]

    @property
    def _weights(self) -> list[Tensor]:
        return [shard.local.detach() for shard in self._engine.trained.values()]


def _wide(matrix: Tensor) -> Tensor:
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
