"""Muon on stacks of matrices of one shape, whole or sharded.

StackedMuon differs from torch.optim.Muon in arithmetic only: matrices of one shape are
orthogonalised as one batch, in float32 or bfloat16 where torch's own goes one by one in bfloat16,
and sharded matrices are gathered whole. On one thread of a Xeon with bfloat16 units torch's step
takes 1.4 times as long as ours in float32 and 2.5 times as in bfloat16 for the model of
configs/water.yaml, 2.2 and 2.6 times for that of configs/quickstart.yaml (benchmarks/muon.py).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import prod, sqrt

import torch
from torch import Tensor

from helm_scale.config import TrainingConfig
from helm_scale.optim.spec import OptimizerSpec
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.sharded_matrices import ShardedMatrices

# Of the Newton-Schulz iteration, as in torch.optim.Muon: the slope at 0 is as steep as it can be.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5
_EPS = 1e-7
# An orthogonal matrix [a, b] has the RMS 1 / sqrt(max(a, b)); AdamW's updates have about 0.2.
_RMS = 0.2


class StackedMuon(torch.optim.Optimizer):
    """torch.optim.Muon (same arithmetic, RMS-matched to AdamW) on stacks of matrices.

    The name of the class is part of the format of checkpoints.

    Args:
        shards: of matrices.
        dtype: of the Newton-Schulz products.

    Property: the update of a matrix is torch's own within bfloat16, whatever it is stacked with and
    however it is cut.
    """

    def __init__(
        self,
        shards: Sequence[FlatShard],
        dtype: torch.dtype,
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        nesterov: bool = True,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([shard.local for shard in shards], options)
        self._dtype, self._nesterov, self._matrices = dtype, nesterov, ShardedMatrices(shards)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step on all matrices; each has a gradient."""
        assert closure is None
        (group,) = self.param_groups
        weights = [tensor.detach() for tensor in group["params"]]
        gradients = [tensor.grad for tensor in group["params"]]
        momenta = [
            self.state[tensor].setdefault("momentum_buffer", torch.zeros_like(tensor.detach()))
            for tensor in group["params"]
        ]
        # An average of gradients, not the sum that most momenta are; the iteration divides by the
        # norm anyway.
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates: Sequence[Tensor] = momenta
        if self._nesterov:
            updates = torch._foreach_lerp(gradients, momenta, group["momentum"])
        polar = self._matrices.apply(lambda whole: newton_schulz(whole, self._dtype), updates)
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        scales = [-group["lr"] * _RMS * sqrt(max(shape)) for shape in self._matrices.shapes]
        torch._foreach_add_(weights, torch._foreach_mul(polar, scales))


def newton_schulz(matrices: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Iterate towards the nearest semi-orthogonal matrices.

    X <- a X + (b A + c A^2) X with A = X X^T, from X / |X|; singular values end between about 0.7
    and 1.2. One batch per shape, up to transposition.

    Returns:
        matrices of the same shapes, in order and dtype.
    """
    by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        by_shape[min(matrix.shape), max(matrix.shape)].append(i)
    results: dict[int, Tensor] = {}
    for members in by_shape.values():
        x = torch.stack([_wide(matrices[i]) for i in members])
        x = (x / x.flatten(1).norm(dim=1).clamp(min=_EPS)[:, None, None]).to(dtype)
        for _ in range(_STEPS):
            gram = x @ x.mT
            polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
            x = torch.baddbmm(x, polynomial, x, beta=_A)
        # The update is exact enough in bfloat16, the weights are not.
        x = x.to(matrices[members[0]].dtype)
        for i, polar in zip(members, x, strict=True):
            results[i] = polar if matrices[i].shape == polar.shape else polar.mT
    return [results[i] for i in range(len(matrices))]


def _wide(matrix: Tensor) -> Tensor:
    """The matrix with at most as many rows as columns, so that X X^T is the smaller product."""
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


def make(shards: Sequence[FlatShard], config: TrainingConfig) -> torch.optim.Optimizer:
    """Muon of shards of matrices."""
    return StackedMuon(
        shards,
        orthogonalisation_dtype(config.muon_dtype, shards[0].local.device),
        lr=config.muon_learning_rate,
        weight_decay=config.weight_decay,
    )


def orthogonalisation_dtype(name: str, device: torch.device) -> torch.dtype:
    """Precision by its name; `auto` is bfloat16 where the processor computes in it."""
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        computes = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        computes = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if computes else torch.float32


OPTIMIZER = OptimizerSpec(make=make, kept_numbers=lambda shape, config: prod(shape))
