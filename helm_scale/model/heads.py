"""Heads: features -> packed irreps of Hamiltonian blocks, and features -> energies.

The Hamiltonian head has one linear map per degree whose rows are slot pairs; for a block it evaluates only the rows
that its elements have (C-H: 37 x 9 of 64 x 64 matrix elements).

Axes: N atoms or pairs, K = (lmax+1)^2 degree-major coefficients, C channels, S packed components of a block.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from helm_scale.basis.layout import BlockLayout
from helm_scale.batch import Segment


class BlockHead(nn.Module):
    """Gate, then one linear map per degree (HELM, arXiv:2510.00224, Hamiltonian head).

    From the l = 0 channels a linear map gives new scalars and one sigmoid gate per (l, channel) for l > 0, so that equal
    irreps of many shells can be told apart.
    """

    def __init__(self, lmax: int, channels: int, multiplicities: dict[int, int]) -> None:
        super().__init__()
        self.lmax, self.channels = lmax, channels
        self.gate = nn.Linear(channels, (lmax + 1) * channels)
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(multiplicities[degree], channels) * (0.1 * channels**-0.5)) for degree in sorted(multiplicities)
        )

    def forward(self, x_NKC: Tensor, segments: Sequence[Segment], layout_of: Callable[[Segment], BlockLayout]) -> list[Tensor]:
        """Packed irreps [n, S] of every segment of the features."""
        degrees = [2 * degree + 1 for degree in range(self.lmax + 1)]
        gates = self.gate(x_NKC[:, 0]).unflatten(1, (self.lmax + 1, self.channels)).split([1, self.lmax], dim=1)
        scalars, *rest = x_NKC.split(degrees, dim=1)
        gated = [nn.functional.silu(gates[0]) + scalars]
        gated += [x * g for x, g in zip(rest, torch.sigmoid(gates[1]).split(1, dim=1), strict=True)]
        anchor = torch.stack([weight.sum() for weight in self.weights]).sum() * 0  # every weight takes part on every rank
        if not segments:
            return [(anchor + torch.cat([x.flatten() for x in gated]).sum()).reshape(1, 1)[:0]]
        by_degree = [x.split([s.stop - s.start for s in segments]) for x in gated]
        return [self._segment([x[i] for x in by_degree], layout_of(segment)) + anchor for i, segment in enumerate(segments)]

    def _segment(self, by_degree: list[Tensor], layout: BlockLayout) -> Tensor:
        parts = []
        for degree, rows in layout.rows.items():
            weight = self.weights[degree].index_select(0, torch.from_numpy(rows).to(by_degree[0].device))
            parts.append((by_degree[degree] @ weight.T).flatten(1))
        return torch.cat(parts, dim=1)


class EnergyHead(nn.Module):
    """E = sum_i w^T y_i,(l=0) (HELM, arXiv:2510.00224)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 1, bias=False)

    def forward(self, y_NKC: Tensor, molecule: Tensor, num_molecules: int) -> Tensor:
        """Sum of atomic energies of every molecule, in the head's own scale: [B]."""
        atomic = self.linear(y_NKC[:, 0]).squeeze(-1)
        return atomic.new_zeros(num_molecules).index_add(0, molecule, atomic)
