"""Losses as sums and counts; one place divides, by global counts.

A loss L(S, N) depends on the global sum S and count N alone. Its gradient is that of S times dL/dS,
a scalar that is known once S is summed over ranks and micro-batches.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from helm_scale.basis import shells, slots
from helm_scale.losses.spectral import Slopes, SpectralTerms
from helm_scale.types import GraphBatch, PairChunk, PairSums


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
    # The root has no gradient at 0, which a model can reach where labels are few.
    mean = (total / count).clamp(min=1e-30)
    return torch.sqrt(mean) + mean


@dataclass(frozen=True)
class HamiltonianObjective:
    """sqrt(MSE) + MSE over matrix elements, in Hartree (HELM, arXiv:2510.00224).

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
        # Called and not by its method `pair_loss`: engines act on calls of the module alone.
        predicted: PairSums = model(batch, partial(self._of_pairs, batch, terms))
        squares, absolute, linear = predicted.offsite.unbind()
        label = (batch.onsite_target - self.reference(batch)).to(predicted.onsite.dtype)
        error = predicted.onsite - label
        # Ranks that share pairs hold all on-site blocks each: every one counts its fraction.
        total = error.square().sum() / batch.pair_world_size + squares
        count = batch.matrix_elements.sum().double() / batch.pair_world_size
        metrics = self._metrics(batch, error.detach(), absolute.detach(), count)
        if terms is not None:
            slope = (terms.onsite * predicted.onsite.double()).sum()
            # Slope times prediction brings the gradient; its own value is taken off again.
            total = total + slope - slope.detach() - linear.detach() + terms.value
            metrics |= terms.metrics
        return LossSums(total, count, metrics)

    def _metrics(
        self, batch: GraphBatch, error: Tensor, offsite_absolute: Tensor, count: Tensor
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Sums of absolute errors of matrix elements, and how many there are.

        Args:
            error: of the on-site irreps, flat. offsite_absolute: sum over the pairs.
        """
        aos = (s.count * shells.nao(self.basis, s.first) ** 2 for s in batch.atom_segments)
        onsite_count = count.new_full((), float(sum(aos))) / batch.pair_world_size
        table = slots.atom_slots(self.basis, self.parity, error.device)
        onsite_absolute = _absolute(error, batch.atom_kinds, table) / batch.pair_world_size
        return {
            "h_mae": (onsite_absolute + offsite_absolute, count),
            "h_mae_onsite": (onsite_absolute, onsite_count),
            "h_mae_offsite": (offsite_absolute, count - onsite_count),
        }

    def _of_pairs(
        self, batch: GraphBatch, terms: Slopes | None, chunk: PairChunk, packed: Tensor
    ) -> Tensor:
        """Sums over a chunk's matrix elements: [3].

        Squared errors plus slope times prediction, absolute errors, slope times prediction. Only
        the first brings a gradient.
        """
        assert batch.offsite_target is not None
        error = packed - batch.offsite_target[chunk.flat].to(packed.dtype)
        table = slots.pair_slots(self.basis, error.device)
        absolute = _absolute(error.detach(), batch.pair_kinds(chunk), table)
        squares = error.square().sum().double()
        linear = torch.zeros_like(squares)
        if terms is not None:
            linear = (terms.offsite[chunk.flat] * packed.double()).sum()
        return torch.stack([squares + linear, absolute, linear.detach()])

    @staticmethod
    def loss(total: Tensor, count: Tensor) -> Tensor:
        """sqrt(S/N) + S/N, Hartree (the second term Hartree squared)."""
        return root_plus_mean(total, count)


def _absolute(flat: Tensor, kinds: Tensor, table: slots.Slots) -> Tensor:
    """Sum of |error| over the matrix elements of packed irreps, block after block, float64."""
    return table.absolute_sum(table.fill(flat, table.places(kinds, len(flat)), len(kinds)))
