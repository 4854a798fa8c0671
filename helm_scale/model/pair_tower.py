"""The pair tower: reads node states, never feeds them; its state lives in the frame of the pair.

All layers read the last node states (node-then-edge), so those are gathered and turned once.

Axes: P pair rows, N atoms, K degree-major coefficients, R edge-frame rows, C channels.
"""

import torch
from torch import Tensor, nn

from helm_scale.config import ModelConfig
from helm_scale.irreps.so2 import so2_layout
from helm_scale.irreps.wigner import edge_wigner
from helm_scale.model.edgewise import EdgewiseOperator
from helm_scale.model.equivariant import DegreeNorm, FeedForward
from helm_scale.model.radial import EdgeScalars, RadialMLP
from helm_scale.model.trunk import NUM_ELEMENTS


class PairLayer(nn.Module):
    """z <- z + norm(F'(y_i, y_j, s_ij)), then z <- z + FFN'(norm(z))."""

    def __init__(self, config: ModelConfig, scalars: int) -> None:
        super().__init__()
        layout = so2_layout(config.lmax, config.mmax)
        self.operator = EdgewiseOperator(layout, config.channels, config.hidden_channels, scalars, config.edge_channels)
        self.norm_operator = DegreeNorm(layout.degree_of_row, config.channels)
        self.norm_update = DegreeNorm(layout.degree_of_row, config.channels)
        self.update = FeedForward(layout.degree_of_row, config.channels, config.hidden_channels)

    def forward(self, z_PRC: Tensor, ends_PRC: Tensor, scalars_PS: Tensor) -> Tensor:
        """Update pair states from both ends' node states [P, R, 2C] in the pair's frame."""
        z_PRC = z_PRC + self.norm_operator(self.operator(ends_PRC, scalars_PS))
        return z_PRC + self.update(self.norm_update(z_PRC))


class PairTower(nn.Module):
    """States of ordered pairs from the states of their atoms."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.lmax, self.mmax, self.channels = config.lmax, config.mmax, config.channels
        self.edge_scalars = EdgeScalars(NUM_ELEMENTS, config.channels, config.pair_cutoff, config.radial_functions)
        self.start = RadialMLP(self.edge_scalars.width, config.edge_channels, (config.lmax + 1) * config.channels)
        self.layers = nn.ModuleList(PairLayer(config, self.edge_scalars.width) for _ in range(config.pair_layers))
        self.norm = DegreeNorm(so2_layout(config.lmax, config.mmax).degree_of_row, config.channels)

    def forward(self, y_NKC: Tensor, atomic_numbers: Tensor, positions: Tensor, pair_index: Tensor) -> Tensor:
        """Pair features [P, K, C], turned back into the molecule's frame.

        Args:
            y_NKC: node states. positions: [N, 3] float64, Angstrom. pair_index: [2, P] ordered pairs.
        """
        first, second = pair_index
        vector = positions.index_select(0, second) - positions.index_select(0, first)
        turn = edge_wigner(vector, self.lmax, self.mmax).to(y_NKC)
        numbers = atomic_numbers.index_select(0, first), atomic_numbers.index_select(0, second)
        scalars = self.edge_scalars(*numbers, vector.norm(dim=-1))
        ends = torch.bmm(turn, torch.cat([y_NKC.index_select(0, first), y_NKC.index_select(0, second)], dim=-1))
        z = self.start(scalars).unflatten(1, (-1, self.channels))
        z = torch.cat([z, z.new_zeros(len(z), turn.shape[1] - z.shape[1], self.channels)], dim=1)
        for layer in self.layers:
            z = layer(z, ends, scalars)
        return torch.bmm(turn.mT, self.norm(z))
