"""Sums over edges or pairs in bounded memory: chunk by chunk, exactly.

Two ways, for two needs. A loss over pairs is a number at once, so each chunk runs forward and
backward before the next begins and nothing is computed twice (`loss_over_chunks`). Messages are
needed by what follows, so their chunks are computed again in the backward pass
(`sum_chunks_recomputed`).
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ChunkT = TypeVar("ChunkT")
# Options of torch's checkpoint; nothing that is recomputed here draws random numbers.
RECOMPUTE: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}


def sum_chunks(function: Callable[[ChunkT], Tensor], chunks: Sequence[ChunkT]) -> Tensor:
    """Sum of function(chunk) over the chunks, activations kept for the backward pass."""
    total = function(chunks[0])
    for chunk in chunks[1:]:
        total = total + function(chunk)
    return total


def sum_chunks_recomputed(function: Callable[[ChunkT], Tensor], chunks: Sequence[ChunkT]) -> Tensor:
    """The same, with activations of one chunk at a time, computed again in the backward pass.

    Whatever scatters the result belongs inside the function, else what it scatters is kept.
    """
    total = checkpoint(function, chunks[0], **RECOMPUTE)
    for chunk in chunks[1:]:
        total = total + checkpoint(function, chunk, **RECOMPUTE)
    return cast(Tensor, total)


def loss_over_chunks(
    function: Callable[[Tensor, ChunkT], Tensor],
    chunks: Sequence[ChunkT],
    states: Tensor,
    parameters: Sequence[Tensor],
) -> Tensor:
    """Sum of function(states, chunk) over the chunks; memory of one chunk, no recomputation.

    Args:
        function: gives a vector of sums [S]; only the first carries a gradient, to the states and
            the parameters.
        parameters: all trainable tensors that the function uses besides the states.
    Returns:
        [S] float64.
    """
    # Autograd sees only tensors that are arguments of `apply`: without them the parameters, which
    # the function reads by closure, would get no gradient.
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    return cast(Tensor, _LossOverChunks.apply(function, chunks, states, *trainable))


class _LossOverChunks(torch.autograd.Function):
    """Runs both passes of every chunk in `forward`; `backward` only scales what they gave."""

    @staticmethod
    def forward(
        ctx: Any, function: Any, chunks: Any, states: Tensor, *parameters: Tensor
    ) -> Tensor:
        # Detached, so that the backward pass of a chunk ends here and not in the trunk.
        leaf = states.detach().requires_grad_()
        totals: Tensor | None = None
        gradients: list[Tensor] = []
        for chunk in chunks:
            with torch.enable_grad():  # which is off inside `forward` of a Function
                sums = function(leaf, chunk)
                of_chunk = torch.autograd.grad(sums[0], (leaf, *parameters))
            totals = sums.detach().double() if totals is None else totals + sums.detach()
            if gradients:
                torch._foreach_add_(gradients, of_chunk)
            else:
                # Views may share memory with each other, so they cannot be added to in place.
                gradients = [g.clone() if g._is_view() else g for g in of_chunk]
            del of_chunk, sums  # or they stay while the next chunk runs
        ctx.gradients = gradients
        return cast(Tensor, totals)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Any, ...]:
        gradients = ctx.gradients
        del ctx.gradients  # they are scaled in place: a second backward pass must fail
        for gradient in gradients:
            gradient.mul_(slopes[0].to(gradient.dtype))
        return None, None, *gradients
