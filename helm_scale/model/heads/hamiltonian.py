"""Maps features to the packed irreps of Hamiltonian blocks.

A head has one linear map per degree whose rows are slot pairs; for a block it evaluates only the
rows that its elements have (C-H: 37 x 9 of 64 x 64 matrix elements).

Axes: N atoms or pairs, K = (lmax+1)^2 degree-major coefficients, C channels, S packed components of
a block.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from helm_scale.basis.layout import BlockLayout, head_multiplicities, transposed_rows
from helm_scale.types import Segment


class BlockHead(nn.Module):
    """Gate, then one linear map per degree (HELM, arXiv:2510.00224, Hamiltonian head).

    From the even l = 0 channels a linear map gives new scalars and one sigmoid gate per (l,
    channel) for the rest, so that equal irreps of many shells can be told apart.
    """

    def __init__(
        self, lmax: int, channels: int, multiplicities: dict[int, int], odd_channels: int = 0
    ) -> None:
        super().__init__()
        self.lmax, self.channels = lmax, channels
        self.parities = channels - odd_channels, odd_channels
        self.gate = nn.Linear(channels - odd_channels, (lmax + 1) * channels)
        # Small, so that training starts near the mean Hamiltonian of every element.
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(multiplicities[degree], channels) * (0.1 * channels**-0.5))
            for degree in sorted(multiplicities)
        )

    def forward(
        self,
        x_NKC: Tensor,
        segments: Sequence[Segment],
        layout_of: Callable[[Segment], BlockLayout],
    ) -> list[Tensor]:
        """Packed irreps [n, S] of every segment of the features."""
        gated = self._gated(x_NKC)
        weights = self._rows()
        # Engines wait for the gradient of every weight on every rank, whatever its elements are
        anchor = torch.stack([weight.sum() for weight in weights]).sum() * 0
        if not segments:
            return [(anchor + torch.cat([x.flatten() for x in gated]).sum()).reshape(1, 1)[:0]]
        by_degree = [x.split([s.count for s in segments]) for x in gated]
        return [
            self._segment([x[i] for x in by_degree], weights, layout_of(segment)) + anchor
            for i, segment in enumerate(segments)
        ]

    def _gated(self, x_NKC: Tensor) -> list[Tensor]:
        """Features of every degree [N, 2l+1, C] after the gate."""
        scalars, *higher = x_NKC.split([2 * degree + 1 for degree in range(self.lmax + 1)], dim=1)
        even, odd = scalars.split(self.parities, dim=2)
        # Gates come from even scalars alone: odd ones change sign when the atoms change places.
        gate = self.gate(even[:, 0]).unflatten(1, (self.lmax + 1, self.channels))
        scalar_gate, *gates = gate.split(1, dim=1)
        added, factor = scalar_gate.split(self.parities, dim=2)
        gated = [torch.cat([nn.functional.silu(added) + even, torch.sigmoid(factor) * odd], dim=2)]
        return gated + [x * torch.sigmoid(g) for x, g in zip(higher, gates, strict=True)]

    def _rows(self) -> list[Tensor]:
        """Head rows [multiplicity, C] of every degree."""
        return list(self.weights)

    @staticmethod
    def _segment(by_degree: list[Tensor], weights: list[Tensor], layout: BlockLayout) -> Tensor:
        irreps = []
        for degree, rows in layout.rows.items():
            weight = weights[degree].index_select(0, torch.from_numpy(rows).to(by_degree[0].device))
            # [n, M, rows] flattened is M-major, as packed vectors are.
            irreps.append((by_degree[degree] @ weight.T).flatten(1))
        return torch.cat(irreps, dim=1)


class PairHead(BlockHead):
    """Head of off-site blocks: exchanging the two atoms transposes the block, exactly.

    The transposed block has h(b, a; L) = (-1)^(l_a+l_b+L) h(a, b; L). So over the slot pairs (a, b)
    and (b, a) a row is symmetric with that sign in the even channels and antisymmetric in the odd
    ones.
    """

    def __init__(self, lmax: int, channels: int, basis: str) -> None:
        super().__init__(
            lmax, channels, head_multiplicities(basis, onsite=False), odd_channels=channels // 2
        )
        self.transposed = [
            (torch.from_numpy(index), torch.from_numpy(sign))
            for index, sign in transposed_rows(basis)
        ]

    def _rows(self) -> list[Tensor]:
        return [
            symmetrised(weight, self.parities, *turned)
            for weight, turned in zip(self.weights, self.transposed, strict=True)
        ]


def symmetrised(weight: Tensor, parities: tuple[int, int], index: Tensor, sign: Tensor) -> Tensor:
    """Rows [multiplicity, C] made symmetric in the even, antisymmetric in the odd channels.

    index, sign: of the transposed rows (layout.transposed_rows).
    """
    even, odd = weight.split(parities, dim=1)
    mirrored = weight[index.to(weight.device)] * sign.to(weight)[:, None]
    mirrored_even, mirrored_odd = mirrored.split(parities, dim=1)
    return torch.cat([even + mirrored_even, odd - mirrored_odd], dim=1) / 2
