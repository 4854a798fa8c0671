"""Losses as sums and counts; one place divides, by global counts.

A loss L(S, N) depends on the global sum S and count N alone. Its gradient is that of S times dL/dS,
a scalar that is known once S is summed over ranks and micro-batches.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from helm_scale.basis import layout, packing
from helm_scale.losses.spectral import Slopes, SpectralTerms
from helm_scale.types import GraphBatch, PairChunk


@dataclass(frozen=True)
class LossSums:
    """What one micro-batch contributes.

    Attributes:
        total: scalar sum that carries the gradient. count: float64 scalar.
        metrics: name -> (sum, count), float64 scalars without gradient.
    """

    total: Tensor
    count: Tensor
    metrics: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


def root_plus_mean(total: Tensor, count: Tensor) -> Tensor:
    """sqrt(S/N) + S/N of a sum of squares S over N terms; an exact fit has gradient zero."""
    mean = (total / count).clamp(
        min=1e-30
    )  # the root has no gradient at 0, which few labels can reach exactly
    return torch.sqrt(mean) + mean


@dataclass(frozen=True)
class HamiltonianObjective:
    """sqrt(MSE) + MSE over matrix elements, in Hartree (HELM, arXiv:2510.00224, with the
    norm-preserving coupling).

    Packed irreps carry the norm of H, so the sum over them, divided by the number of matrix
    elements, is the mean square error of the matrix. Metrics are mean absolute errors of matrix
    elements in Hartree: h_mae, h_mae_onsite, h_mae_offsite.

    Attributes:
        basis, parity: layout of the blocks.
        reference: batch -> flat on-site reference (float64 Hartree) that is taken off the labels
            before casting.
        spectral: sums that know S, added to that over matrix elements; adds the metric
            orbital_energy_mae.
    """

    basis: str
    parity: str
    reference: Callable[[GraphBatch], Tensor]
    spectral: SpectralTerms | None = None

    def __call__(self, model: nn.Module, batch: GraphBatch) -> LossSums:
        """Run the model on a batch with targets."""
        assert batch.onsite_target is not None and batch.matrix_elements is not None
        terms = self.spectral.slopes(model, batch, self.reference) if self.spectral else None
        prediction = model(batch, partial(self._offsite, batch, terms))
        error = prediction.onsite - (batch.onsite_target - self.reference(batch)).to(
            prediction.onsite.dtype
        )
        far_total, far_absolute, far_linear = prediction.offsite.unbind()
        near = [
            (s, layout.onsite_layout(self.basis, s.first, self.parity)) for s in batch.atom_segments
        ]
        count = batch.matrix_elements.sum().double() / batch.pair_world_size
        near_count = (
            count.new_tensor(float(sum(s.count * kind.shape[0] ** 2 for s, kind in near)))
            / batch.pair_world_size
        )
        near_absolute = _absolute(error.detach(), near) / batch.pair_world_size
        metrics = {
            "h_mae": (near_absolute + far_absolute.detach(), count),
            "h_mae_onsite": (near_absolute, near_count),
            "h_mae_offsite": (far_absolute.detach(), count - near_count),
        }
        total = error.square().sum() / batch.pair_world_size + far_total
        if terms is not None:
            linear = (terms.onsite * prediction.onsite.double()).sum()
            total = total + linear - linear.detach() - far_linear.detach() + terms.value
            metrics |= terms.metrics
        return LossSums(total, count, metrics)

    def _offsite(
        self, batch: GraphBatch, terms: Slopes | None, chunk: PairChunk, packed: Tensor
    ) -> Tensor:
        """Sum of squares (plus slope times prediction) and of absolute errors of a chunk's matrix
        elements, and the slope's part: [3]."""
        assert batch.offsite_target is not None
        error = packed - batch.offsite_target[chunk.flat].to(packed.dtype)
        kinds = [(s, layout.offsite_layout(self.basis, s.first, s.second)) for s in chunk.segments]
        total, absolute = error.square().sum().double(), _absolute(error.detach(), kinds)
        linear = (
            torch.zeros_like(total)
            if terms is None
            else (terms.offsite[chunk.flat] * packed.double()).sum()
        )
        return torch.stack([total + linear, absolute, linear.detach()])

    @staticmethod
    def loss(total: Tensor, count: Tensor) -> Tensor:
        """sqrt(S/N) + S/N, Hartree (the second term Hartree squared)."""
        return root_plus_mean(total, count)


def _absolute(flat: Tensor, kinds: list) -> Tensor:  # type: ignore[type-arg]
    """Sum of |error| over matrix elements of consecutive segments of packed irreps, float64."""
    parts = flat.split([s.count * kind.size for s, kind in kinds])
    sums = [
        packing.absolute_sum(part.unflatten(0, (-1, kind.size)), kind).double()
        for part, (_, kind) in zip(parts, kinds, strict=True)
    ]
    return torch.stack(sums).sum() if sums else flat.new_zeros((), dtype=torch.float64)
