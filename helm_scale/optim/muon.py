"""Muon on stacks of matrices of one shape, whole or sharded.

StackedMuon differs from torch.optim.Muon in arithmetic only: matrices of one shape are
orthogonalised as one batch, in float32 or bfloat16 where torch's own goes one by one in bfloat16;
under every engine each rank works on its share of them, gathered whole for that. On one thread of a
Xeon with bfloat16 units torch's step takes 1.4 times as long as ours in float32 and 2.5 times as in
bfloat16 for the model of configs/water.yaml, 2.2 and 2.6 times for that of configs/quickstart.yaml
(benchmarks/muon.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import prod, sqrt

import torch
from torch import Tensor

from helm_scale.config import TrainingConfig
from helm_scale.optim.spec import OptimizerSpec
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.sharded_matrices import shared_out

# Of the Newton-Schulz iteration, as in torch.optim.Muon: the slope at 0 is as steep as it can be.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5
_EPS = 1e-7
# Multiplications that a GPU does while it starts the operations of one more stack: some 20 of 5
# microseconds. A CPU starts them at once, and there each shape is a stack of its own.
_WORTH_A_STACK = 1e9
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
        self._dtype, self._nesterov, self._matrices = dtype, nesterov, shared_out(shards)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step on all matrices; each has a gradient."""
        assert closure is None
        (group,) = self.param_groups
        weights = [tensor.detach() for tensor in group["params"]]
        gradients = [tensor.grad for tensor in group["params"]]
        for tensor in group["params"]:
            if "momentum_buffer" not in self.state[tensor]:
                self.state[tensor]["momentum_buffer"] = torch.zeros_like(tensor.detach())
        momenta = [self.state[tensor]["momentum_buffer"] for tensor in group["params"]]
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


def newton_schulz(
    matrices: Sequence[Tensor], dtype: torch.dtype, worth_a_stack: float | None = None
) -> list[Tensor]:
    """Iterate towards the nearest semi-orthogonal matrices.

    X <- a X + (b A + c A^2) X with A = X X^T, from X / |X|; singular values end between about 0.7
    and 1.2. One batch per shape, up to transposition; small ones may be padded with zeros, which
    stay zero, and share a batch.

    Args:
        worth_a_stack: multiplications per iteration that one batch fewer may cost; by default what
            the device does while it starts the operations of one.
    Returns:
        matrices of the same shapes, in order and dtype.
    """
    if not matrices:
        return []
    device = matrices[0].device
    if worth_a_stack is None:
        worth_a_stack = _WORTH_A_STACK if device.type == "cuda" else 0.0
    results: dict[int, Tensor] = {}
    shapes = tuple((matrix.shape[0], matrix.shape[1]) for matrix in matrices)
    for stack in _stacks(shapes, worth_a_stack, device):
        x = stack.join([matrices[i] for i in stack.members])
        x = (x / x.flatten(1).norm(dim=1).clamp(min=_EPS)[:, None, None]).to(dtype)
        for _ in range(_STEPS):
            gram = x @ x.mT
            polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
            x = torch.baddbmm(x, polynomial, x, beta=_A)
        # The update is exact enough in bfloat16, the weights are not.
        parts = stack.part(x.to(matrices[stack.members[0]].dtype))
        results.update(zip(stack.members, parts, strict=True))
    return [results[i] for i in range(len(matrices))]


@dataclass(frozen=True)
class _Stack:
    """Matrices that are iterated as one batch.

    Attributes:
        members: their indices. shapes: of each as it is.
        wide: [a, b] that all of them fit in, a <= b, where need be transposed.
        joined: where their shapes differ: place in the flat matrices, one after the other and a
            zero behind them, of every element of the batch; parted: place in the batch of every
            element of theirs.
    """

    members: list[int]
    shapes: list[tuple[int, int]]
    wide: tuple[int, int]
    joined: Tensor | None
    parted: Tensor | None

    def join(self, matrices: Sequence[Tensor]) -> Tensor:
        """The batch [B, a, b]."""
        if self.joined is None:
            return torch.stack([_wide(matrix) for matrix in matrices])
        flat = [*(matrix.reshape(-1) for matrix in matrices), matrices[0].new_zeros(1)]
        return torch.cat(flat).index_select(0, self.joined).view(-1, *self.wide)

    def part(self, batch: Tensor) -> list[Tensor]:
        """The matrices of a batch, in the shapes that they have."""
        if self.parted is None:
            of_shape = zip(batch, self.shapes, strict=True)
            return [x if x.shape == shape else x.mT for x, shape in of_shape]
        flat = batch.flatten().index_select(0, self.parted)
        cut = flat.split([prod(shape) for shape in self.shapes])
        return [x.view(shape) for x, shape in zip(cut, self.shapes, strict=True)]


@lru_cache(maxsize=16)
def _stacks(
    shapes: tuple[tuple[int, int], ...], worth_a_stack: float, device: torch.device
) -> list[_Stack]:
    """Stacks of all matrices, with as few of them as the padding is worth."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, shape in enumerate(shapes):
        groups.setdefault((min(shape), max(shape)), []).append(i)
    while len(groups) > 1 and worth_a_stack:
        added, one, other = min(
            (_padding(groups, one, other), one, other) for one, other in combinations(groups, 2)
        )
        if added > worth_a_stack:
            break
        members = groups.pop(one) + groups.pop(other)
        groups.setdefault((max(one[0], other[0]), max(one[1], other[1])), []).extend(members)
    return [
        _stack(members, [shapes[i] for i in members], wide, device)
        for wide, members in groups.items()
    ]


def _padding(
    groups: dict[tuple[int, int], list[int]], one: tuple[int, int], other: tuple[int, int]
) -> float:
    """Multiplications of an iteration that two groups cost more as one."""

    def work(a: int, b: int, count: int) -> float:
        return float(count * (2 * a * a * b + a**3))

    whole = max(one[0], other[0]), max(one[1], other[1])
    counts = len(groups[one]), len(groups[other])
    return work(*whole, sum(counts)) - work(*one, counts[0]) - work(*other, counts[1])


def _stack(
    members: list[int],
    shapes: list[tuple[int, int]],
    wide: tuple[int, int],
    device: torch.device,
) -> _Stack:
    if all(shape in (wide, wide[::-1]) for shape in shapes):
        return _Stack(members, shapes, wide, None, None)
    numbers = torch.full((len(members), *wide), sum(prod(shape) for shape in shapes))
    places, begin = [], 0
    batch = torch.arange(numbers.numel()).view_as(numbers)
    for number, of_batch, shape in zip(numbers, batch, shapes, strict=True):
        own = torch.arange(begin, begin + prod(shape)).view(shape)
        number[: min(shape), : max(shape)] = _wide(own)
        inside = of_batch[: min(shape), : max(shape)]
        places.append((inside if shape[0] <= shape[1] else inside.mT).flatten())
        begin += prod(shape)
    return _Stack(
        members,
        shapes,
        wide,
        joined=numbers.flatten().int().to(device),
        parted=torch.cat(places).int().to(device),
    )


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
