"""SOAP: Adam in the eigenbases of Shampoo's preconditioners, on whole or sharded matrices.

For a matrix with gradients G, L = EMA(G G^T) and R = EMA(G^T G) have the eigenvectors Q_L and Q_R;
Adam runs on Q_L^T G Q_R and its step is turned back (arXiv:2409.11321, algorithm 3). The bases come
from the first gradient, which moves no weight, and follow by one power step and a QR decomposition
every few steps. A side longer than `max_side` gets no basis (the paper's one-sided variant).

Unlike the paper's, the bases depend continuously on the gradients, so that engines agree: null
spaces are split in a fixed way (`_separated`), and the smallest second moment that counts is
relative to the others. The averages of a matrix lie whole on the rank that owns it.

Axes: B matrices of one shape [a, b].
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from helm_scale.config import TrainingConfig
from helm_scale.optim.spec import OptimizerSpec
from helm_scale.parallel.flat_shards import FlatShard
from helm_scale.parallel.sharded_matrices import ShardedMatrices

# Weights of the past per step in the averages of gradient, square and preconditioner.
_BETA = 0.95
# Of the root of the mean square: smaller components of a float32 gradient are rounding errors.
_EPS = 1e-6
# Of the mean eigenvalue: below what float32 resolves, far above what float64 does.
_SEPARATION = 1e-7
# Elements of small matrices that share operations.
_TOGETHER = 2**21


class Soap(torch.optim.Optimizer):
    """SOAP on stacks of matrices of one shape.

    The name of the class and the keys of its states are part of the format of checkpoints.

    Args:
        shards: of matrices.
        max_side: longest side that gets a basis.
        renew_every: steps between renewals of the bases.

    Property: on one matrix it is the paper's algorithm, whatever the matrix is stacked with and
    however it is cut.
    """

    def __init__(
        self,
        shards: Sequence[FlatShard],
        *,
        lr: float,
        weight_decay: float = 0.0,
        max_side: int = 512,
        renew_every: int = 10,
    ) -> None:
        super().__init__(
            [shard.local for shard in shards], {"lr": lr, "weight_decay": weight_decay}
        )
        self._matrices, self._renew_every = ShardedMatrices(shards), renew_every
        self._step = torch.zeros(())  # on the CPU: read in every step
        for shard in shards:
            self.state[shard.local]["step"] = self._step
        self._stacks: list[tuple[list[int], _Stack]] = []
        owned = [shards[i] for i in self._matrices.owned]
        for shape, members in _by_shape(owned).items():
            stack = _Stack.zeros(owned[members[0]].local, (len(members), *shape), max_side)
            self._stacks.append((members, stack))
            for i, position in enumerate(members):
                self.state[owned[position].local] |= {
                    name: tensor[i] for name, tensor in stack.states().items()
                }

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step on all matrices; each has a gradient."""
        assert closure is None
        (group,) = self.param_groups
        weights = [tensor.detach() for tensor in group["params"]]
        self._step += 1
        updates = self._matrices.apply(self._updates, [p.grad for p in group["params"]])
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, updates, alpha=-group["lr"])

    def _updates(self, gradients: list[Tensor]) -> list[Tensor]:
        """Steps of Adam from the gradients of the matrices that this rank owns, in order."""
        step, stacks = int(self._step), [stack for _, stack in self._stacks]
        stacked = [torch.stack([gradients[i] for i in members]) for members, _ in self._stacks]
        if step == 1:
            for stack, gradient in zip(stacks, stacked, strict=True):
                stack.start(gradient)
            changes = [torch.zeros_like(gradient) for gradient in stacked]
        else:
            changes = []
            for some in _runs(stacks):
                changes += _update(stacks[some], stacked[some], step - 1)
            for stack in stacks if step % self._renew_every == 0 else ():
                stack.renew()
        updates = dict[int, Tensor]()
        for (members, _), change in zip(self._stacks, changes, strict=True):
            updates.update(zip(members, change, strict=True))
        return [updates[i] for i in range(len(gradients))]


@dataclass(frozen=True)
class _Side:
    """Rows or columns of a stack.

    Attributes:
        axis: 1 for rows, 2 for columns. covariance, basis: [B, n, n]; a basis has vectors in its
            columns, by descending eigenvalue.
    """

    axis: int
    covariance: Tensor
    basis: Tensor

    def square(self, gradient: Tensor) -> Tensor:
        """G G^T or G^T G."""
        return gradient @ gradient.mT if self.axis == 1 else gradient.mT @ gradient

    def into(self, x: Tensor) -> Tensor:
        """Components in the basis."""
        return self.basis.mT @ x if self.axis == 1 else x @ self.basis

    def out(self, x: Tensor) -> Tensor:
        """From components in the basis."""
        return self.basis @ x if self.axis == 1 else x @ self.basis.mT


@dataclass(frozen=True)
class _Stack:
    """Averages of matrices of one shape.

    Attributes:
        momentum: EMA of the gradient [B, a, b].
        variance: EMA of its squared components in the bases [B, a, b].
        sides: those that have a basis.
    """

    momentum: Tensor
    variance: Tensor
    sides: tuple[_Side, ...]

    @classmethod
    def zeros(cls, like: Tensor, shape: tuple[int, int, int], max_side: int) -> "_Stack":
        """Of that shape; dtype and device are those of `like`."""
        zeros, count = like.detach().new_zeros, shape[0]
        sides = tuple(
            _Side(
                axis, zeros(count, shape[axis], shape[axis]), zeros(count, shape[axis], shape[axis])
            )
            for axis in (1, 2)
            if shape[axis] <= max_side
        )
        return cls(zeros(shape), zeros(shape), sides)

    def states(self) -> dict[str, Tensor]:
        """All tensors by the names that they have in checkpoints."""
        named = {"momentum": self.momentum, "variance": self.variance}
        for side in self.sides:
            name = "left" if side.axis == 1 else "right"
            named |= {f"{name}_covariance": side.covariance, f"{name}_basis": side.basis}
        return named

    def start(self, gradient: Tensor) -> None:
        """Make the bases from the first gradient."""
        for side in self.sides:
            side.covariance.copy_(side.square(gradient) * (1 - _BETA))
            side.basis.copy_(torch.linalg.eigh(_separated(side.covariance))[1].flip(-1))

    def renew(self) -> None:
        """One power step towards the eigenvectors of the covariances, then QR."""
        for side in self.sides:
            power = _separated(side.covariance) @ side.basis
            # Where eigenvalues have changed places, vectors and second moments follow.
            order = (side.basis * power).sum(1).argsort(dim=1, descending=True)
            power = power.take_along_dim(order[:, None, :], dim=2)
            places = order[:, :, None] if side.axis == 1 else order[:, None, :]
            self.variance.copy_(self.variance.take_along_dim(places, dim=side.axis))
            side.basis.copy_(torch.linalg.qr(power)[0])

    def into(self, x: Tensor) -> Tensor:
        """Components in the bases."""
        for side in self.sides:
            x = side.into(x)
        return x

    def out(self, x: Tensor) -> Tensor:
        """From components in the bases."""
        for side in self.sides:
            x = side.out(x)
        return x


def _runs(stacks: Sequence[_Stack]) -> Iterator[slice]:
    """Stacks that are worked on together: what is large bears no more memory at once."""
    start, numbers = 0, 0
    for stop, stack in enumerate(stacks):
        if numbers and numbers + stack.momentum.numel() > _TOGETHER:
            yield slice(start, stop)
            start, numbers = stop, 0
        numbers += stack.momentum.numel()
    if stacks:
        yield slice(start, len(stacks))


def _update(stacks: Sequence[_Stack], gradients: list[Tensor], count: int) -> list[Tensor]:
    """Steps of Adam in the bases: [B, a, b] of every stack.

    What works element by element is one operation for all stacks: most of them are small.

    Args:
        count: gradients in the averages, with this one.
    """
    momenta, variances = [s.momentum for s in stacks], [s.variance for s in stacks]
    torch._foreach_lerp_(momenta, gradients, 1 - _BETA)
    rotated = [stack.into(g) for stack, g in zip(stacks, gradients, strict=True)]
    torch._foreach_mul_(variances, _BETA)
    torch._foreach_addcmul_(variances, rotated, rotated, value=1 - _BETA)
    correction = 1 - _BETA**count
    sizes = torch._foreach_div(variances, correction)
    torch._foreach_sqrt_(sizes)
    floors = [s.square().mean(dim=(1, 2), keepdim=True) for s in sizes]
    torch._foreach_sqrt_(floors)
    torch._foreach_mul_(floors, _EPS)
    # A gradient of zeros gives a step of zeros.
    torch._foreach_clamp_min_(floors, torch.finfo(floors[0].dtype).tiny)
    for size, floor in zip(sizes, floors, strict=True):
        size += floor
    means = torch._foreach_div(momenta, correction)
    updates = [stack.into(mean) for stack, mean in zip(stacks, means, strict=True)]
    torch._foreach_div_(updates, sizes)
    covariances = [side.covariance for stack in stacks for side in stack.sides]
    squares = [
        side.square(g) for stack, g in zip(stacks, gradients, strict=True) for side in stack.sides
    ]
    if covariances:
        torch._foreach_lerp_(covariances, squares, 1 - _BETA)
    return [stack.out(update) for stack, update in zip(stacks, updates, strict=True)]


def _separated(covariance: Tensor) -> Tensor:
    """Covariances [B, n, n] without zero or equal eigenvalues.

    In null spaces, which gradients of few samples have, rounding errors would choose the basis. A
    small diagonal matrix of distinct numbers chooses it instead.
    """
    n = covariance.shape[1]
    mean = covariance.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True)
    distinct = torch.linspace(2, 1, n, dtype=covariance.dtype, device=covariance.device)
    return covariance + torch.diag_embed(_SEPARATION * mean * distinct)


def _by_shape(shards: Sequence[FlatShard]) -> dict[tuple[int, int], list[int]]:
    """Positions of the matrices of each shape."""
    positions: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, shard in enumerate(shards):
        positions[shard.shape[0], shard.shape[1]].append(i)
    return positions


def make(shards: Sequence[FlatShard], config: TrainingConfig) -> torch.optim.Optimizer:
    """SOAP of shards of matrices."""
    return Soap(
        shards,
        lr=config.soap_learning_rate,
        weight_decay=config.weight_decay,
        max_side=config.soap_max_side,
        renew_every=config.soap_renew_every,
    )


def kept_numbers(shape: Sequence[int], config: TrainingConfig) -> int:
    """Two moments, and a covariance and a basis of each side."""
    sides = [side for side in shape if side <= config.soap_max_side]
    return 2 * shape[0] * shape[1] + sum(2 * side * side for side in sides)


OPTIMIZER = OptimizerSpec(
    make=make,
    kept_numbers=kept_numbers,
    whole_states=True,
    period=lambda config: config.soap_renew_every,
)
