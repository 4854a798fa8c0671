"""Maps features to the irreps of Hamiltonian blocks.

A head has one linear map per degree whose rows are slot pairs. It gives the irreps of all slots, a
few operations whatever the elements are; a block then takes those that its elements have (C-H:
37 x 9 of 64 x 64 matrix elements; basis/slots.py).

Axes: N atoms or pairs, K = (lmax+1)^2 degree-major coefficients, C channels, W columns of slots.
"""

import numpy as np
import torch
from torch import Tensor, nn

from helm_scale.basis.layout import head_multiplicities, transposed_rows
from helm_scale.irreps.so2 import degree_of_coefficient


class BlockHead(nn.Module):
    """Gate, then one linear map per degree (HELM, arXiv:2510.00224, Hamiltonian head).

    From the even l = 0 channels a linear map gives new scalars and one sigmoid gate per (l,
    channel) for the rest, so that equal irreps of many shells can be told apart.
    """

    gate_of_row: Tensor

    def __init__(
        self, lmax: int, channels: int, multiplicities: dict[int, int], odd_channels: int = 0
    ) -> None:
        super().__init__()
        self.lmax, self.channels = lmax, channels
        self.parities = channels - odd_channels, odd_channels
        self.gate = nn.Linear(channels - odd_channels, (lmax + 1) * channels)
        degrees = degree_of_coefficient(lmax)
        self.register_buffer("gate_of_row", degrees[1:] - 1, persistent=False)
        # Small, so that training starts near the mean Hamiltonian of every element.
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(multiplicities[degree], channels) * (0.1 * channels**-0.5))
            for degree in sorted(multiplicities)
        )

    def forward(self, x_NKC: Tensor) -> Tensor:
        """Irreps of every slot [N, W]: by degree, then M, then row."""
        # Every weight takes part for whatever elements, also for none: engines wait for its
        # gradient on every rank.
        irreps = [
            (x @ weight.T).flatten(1)
            for x, weight in zip(self._gated(x_NKC), self._rows(), strict=False)
        ]
        return torch.cat(irreps, dim=1)

    def _gated(self, x_NKC: Tensor) -> list[Tensor]:
        """Features of every degree [N, 2l+1, C] after the gate."""
        scalars, higher = x_NKC.split([1, x_NKC.shape[1] - 1], dim=1)
        even, odd = scalars.split(self.parities, dim=2)
        # Gates come from even scalars alone: odd ones change sign when the atoms change places.
        gate = self.gate(even[:, 0]).unflatten(1, (self.lmax + 1, self.channels))
        scalar_gate, gates = gate.split([1, self.lmax], dim=1)
        added, factor = scalar_gate.split(self.parities, dim=2)
        gated = torch.cat([nn.functional.silu(added) + even, torch.sigmoid(factor) * odd], dim=2)
        higher = higher * torch.sigmoid(gates).index_select(1, self.gate_of_row)
        widths = [2 * degree + 1 for degree in range(1, self.lmax + 1)]
        return [gated, *higher.split(widths, dim=1)]

    def _rows(self) -> list[Tensor]:
        """Head rows [multiplicity, C] of every degree."""
        return list(self.weights)


class PairHead(BlockHead):
    """Head of off-site blocks: exchanging the two atoms transposes the block, exactly."""

    def __init__(self, lmax: int, channels: int, basis: str) -> None:
        super().__init__(
            lmax, channels, head_multiplicities(basis, onsite=False), odd_channels=channels // 2
        )
        self.symmetrised = Symmetrised(basis, self.parities)

    def _rows(self) -> list[Tensor]:
        return self.symmetrised(list(self.weights))


class Symmetrised(nn.Module):
    """Rows [multiplicity, C] of every degree that turn over with the atoms of a pair.

    The transposed block has h(b, a; L) = (-1)^(l_a+l_b+L) h(a, b; L). So over the slot pairs (a, b)
    and (b, a) a row is made symmetric with that sign in the even channels and antisymmetric in the
    odd ones.
    """

    index: Tensor
    sign: Tensor

    def __init__(self, basis: str, parities: tuple[int, int]) -> None:
        super().__init__()
        self.parities = parities
        rows = transposed_rows(basis)
        self.counts = [len(index) for index, _ in rows]
        starts = np.cumsum([0, *self.counts])
        index = np.concatenate([i + start for (i, _), start in zip(rows, starts, strict=False)])
        sign = np.concatenate([sign for _, sign in rows])
        self.register_buffer("index", torch.from_numpy(index), persistent=False)
        self.register_buffer("sign", torch.from_numpy(sign)[:, None], persistent=False)

    def forward(self, weights: list[Tensor]) -> list[Tensor]:
        """Rows of all degrees at once, split again."""
        joined = torch.cat(weights)
        mirrored = joined.index_select(0, self.index) * self.sign.to(joined.dtype)
        even, odd = mirrored.split(self.parities, dim=1)
        return list(((joined + torch.cat([even, -odd], dim=1)) / 2).split(self.counts))
