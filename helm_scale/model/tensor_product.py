"""Couples the states of two atoms by Clebsch-Gordan products: stage II of the pair update.

The two stages are those of QHFlow2 (arXiv:2602.16897).

Stage I, the SO(2) layers of the pair tower, ends smoothly at its own cutoff; stage II reaches every
pair. With u the product of maps A y_i and B y_j and v that of A y_j and B y_i, u + v is even and u
- v odd under exchange of the atoms. Unlike the paper the stages are added and pass a gated
feed-forward instead of another tensor product.

Axes: P pairs, N atoms, K = (lmax+1)^2 degree-major coefficients, C channels of each parity, T paths
(l1, l2, L), J coupled components of paths of one l1.
"""

from functools import cache

import torch
from torch import Tensor, nn

from helm_scale.config import ModelConfig
from helm_scale.irreps.coupling import clebsch_gordan
from helm_scale.irreps.so2 import degree_of_coefficient
from helm_scale.model.equivariant import DegreeLinear, DegreeNorm
from helm_scale.model.radial import RadialMLP


class PairProduct(nn.Module):
    """Even and odd pair features from products of node states.

    The pair's scalars give the weights, one per path and channel.
    """

    def __init__(self, config: ModelConfig, scalars: int) -> None:
        super().__init__()
        self.lmax, self.channels = config.lmax, config.pair_width * config.channels // 2
        degrees = degree_of_coefficient(config.lmax)
        self.left = DegreeLinear(degrees, config.channels, self.channels)
        self.right = DegreeLinear(degrees, config.channels, self.channels)
        self.counts = [len(coupled_paths(config.lmax, l1)) for l1 in range(config.lmax + 1)]
        self.weights = RadialMLP(scalars, config.edge_channels, sum(self.counts) * self.channels)
        self.norm = DegreeNorm(torch.cat([degrees, config.lmax + 1 + degrees]), self.channels)

    def forward(self, y_NKC: Tensor, pair_index: Tensor, scalars_PS: Tensor) -> Tensor:
        """Node states -> [P, K, 2C] in the molecule's frame, normalised; even, then odd."""
        left, right = self.left(y_NKC), self.right(y_NKC)
        # Both orders of every pair in one batch: (i, j) and, rolled by the number of pairs, (j, i).
        ends = torch.cat([pair_index[0], pair_index[1]])
        weights = self.weights(scalars_PS).unflatten(1, (-1, self.channels)).repeat(2, 1, 1)
        product = self._product(
            left.index_select(0, ends),
            right.index_select(0, ends.roll(pair_index.shape[1])),
            weights,
        )
        u, v = product.unflatten(0, (2, -1)).unbind()
        z = self.norm(torch.cat([u + v, u - v], dim=1))
        return torch.cat(z.chunk(2, dim=1), dim=-1)

    def _product(self, a_PKC: Tensor, b_PKC: Tensor, weights_PTC: Tensor) -> Tensor:
        """sum over paths of w_T CG(a, b), one l1 after the other: [P, K, C]."""
        total, device = torch.zeros_like(a_PKC), a_PKC.device
        by_degree = a_PKC.split([2 * l1 + 1 for l1 in range(self.lmax + 1)], dim=1)
        by_paths = weights_PTC.split(self.counts, dim=1)
        # One l1 at a time: the outer product of all at once would be lmax + 1 times as large.
        for l1, (a, weight) in enumerate(zip(by_degree, by_paths, strict=True)):
            table, path, place = product_table(self.lmax, l1)
            outer = (a.unsqueeze(2) * b_PKC.unsqueeze(1)).flatten(1, 2)
            coupled = table.to(outer) @ outer
            weighted = coupled * weight.index_select(1, path.to(device))
            total = total.index_add(1, place.to(device), weighted)
        return total


def coupled_paths(lmax: int, l1: int) -> list[tuple[int, int]]:
    """(l2, L) that couple with l1, all up to lmax."""
    return [(l2, L) for l2 in range(lmax + 1) for L in range(abs(l1 - l2), min(l1 + l2, lmax) + 1)]


@cache
def product_table(lmax: int, l1: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clebsch-Gordan coefficients [J, (2*l1+1)*K], float64, and where their components belong.

    For every coupled component its path [J], and its coefficient k [J].
    """
    rows: list[Tensor] = []
    path: list[int] = []
    place: list[int] = []
    for number, (l2, L) in enumerate(coupled_paths(lmax, l1)):
        table = torch.zeros(2 * L + 1, 2 * l1 + 1, (lmax + 1) ** 2, dtype=torch.float64)
        # Zero outside l2, so that one product with all degrees of b serves every path.
        table[:, :, l2 * l2 : (l2 + 1) ** 2] = clebsch_gordan(l1, l2, L).permute(2, 0, 1)
        rows.append(table.flatten(1))
        path += [number] * (2 * L + 1)
        place += range(L * L, (L + 1) ** 2)
    return torch.cat(rows), torch.tensor(path), torch.tensor(place)
