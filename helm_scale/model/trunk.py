"""The node trunk: atoms exchange messages and leave their spherical-harmonic states; energies need it alone.

Takes plain tensors and names no batch type, so that it exports as it is; sizes come from .shape, which stays symbolic
under torch.export where len() would not.

Axes: N atoms, E directed edges, K = (lmax+1)^2 degree-major coefficients, R edge-frame rows, C channels.
"""

import torch
from torch import Tensor, nn

from helm_scale.config import ModelConfig
from helm_scale.irreps.so2 import degree_of_coefficient, so2_layout
from helm_scale.irreps.wigner import edge_wigner
from helm_scale.model.edgewise import EdgewiseOperator
from helm_scale.model.equivariant import DegreeNorm, FeedForward
from helm_scale.model.radial import EdgeScalars, RadialMLP, envelope

NUM_ELEMENTS = 84  # atomic numbers up to 83 index the embeddings
DEGREE_SCALE = 5.0  # the edge-degree sum is divided by this constant (HELM, arXiv:2510.00224)


class NodeLayer(nn.Module):
    """y <- y + sum_j F(norm(y)_i, norm(y)_j), then y <- y + FFN(norm(y))."""

    def __init__(self, config: ModelConfig, scalars: int) -> None:
        super().__init__()
        layout, degrees = so2_layout(config.lmax, config.mmax), degree_of_coefficient(config.lmax)
        self.norm_messages = DegreeNorm(degrees, config.channels)
        self.messages = EdgewiseOperator(layout, config.channels, config.hidden_channels, scalars, config.edge_channels)
        self.norm_update = DegreeNorm(degrees, config.channels)
        self.update = FeedForward(degrees, config.channels, config.hidden_channels)

    def forward(self, y_NKC: Tensor, edge_index: Tensor, turn_ERK: Tensor, scalars_ES: Tensor, smooth_E: Tensor) -> Tensor:
        """Update node states; turn_ERK puts each edge on the polar axis, smooth_E is its envelope."""
        normed = self.norm_messages(y_NKC)
        source, target = edge_index
        ends = torch.cat([normed.index_select(0, source), normed.index_select(0, target)], dim=-1)
        messages = self.messages(torch.bmm(turn_ERK, ends), scalars_ES)
        y_NKC = y_NKC.index_add(0, target, torch.bmm(turn_ERK.mT, messages * smooth_E[:, None, None]))
        return y_NKC + self.update(self.norm_update(y_NKC))


class Trunk(nn.Module):
    """Embeddings, edge-degree term and node layers of HELM (arXiv:2510.00224); smooth at its cutoff (ours)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.lmax, self.mmax, self.cutoff, self.channels = config.lmax, config.mmax, config.trunk_cutoff, config.channels
        self.max_charge = config.max_charge
        self.element = nn.Embedding(NUM_ELEMENTS, config.channels)
        self.charge = nn.Embedding(2 * config.max_charge + 1, config.channels)
        self.spin = nn.Embedding(config.max_multiplicity + 1, config.channels)
        self.edge_scalars = EdgeScalars(NUM_ELEMENTS, config.channels, config.trunk_cutoff, config.radial_functions)
        self.edge_degree = RadialMLP(self.edge_scalars.width, config.edge_channels, (config.lmax + 1) * config.channels)
        self.layers = nn.ModuleList(NodeLayer(config, self.edge_scalars.width) for _ in range(config.num_layers))
        self.norm = DegreeNorm(degree_of_coefficient(config.lmax), config.channels)

    def forward(
        self, positions: Tensor, atomic_numbers: Tensor, edge_index: Tensor, molecule: Tensor, charge: Tensor, spin_multiplicity: Tensor
    ) -> Tensor:
        """Node features.

        Args:
            positions: [N, 3] float64, Angstrom. atomic_numbers: [N]. edge_index: [2, E] (source, target), both directions.
            molecule: [N] index of each atom's molecule. charge, spin_multiplicity: one integer per molecule.
        Returns:
            [N, K, C] in the dtype of the weights; degree l, order m at row l*l + l + m. Rotates with the molecule.
        """
        source, target = edge_index
        vector = positions.index_select(0, target) - positions.index_select(0, source)
        distance = vector.norm(dim=-1)
        dtype = self.element.weight.dtype
        turn = edge_wigner(vector, self.lmax, self.mmax).to(dtype)
        smooth = envelope(distance, self.cutoff).to(dtype)
        scalars = self.edge_scalars(atomic_numbers.index_select(0, source), atomic_numbers.index_select(0, target), distance)
        total = self.charge(charge + self.max_charge) + self.spin(spin_multiplicity)
        start = self.element(atomic_numbers) + total.index_select(0, molecule)
        y = torch.cat([start.unsqueeze(1), start.new_zeros(start.shape[0], turn.shape[2] - 1, self.channels)], dim=1)
        y = y.index_add(0, target, self._edge_degree(turn, scalars, smooth))
        for layer in self.layers:
            y = layer(y, edge_index, turn, scalars, smooth)
        return self.norm(y)

    def _edge_degree(self, turn_ERK: Tensor, scalars_ES: Tensor, smooth_E: Tensor) -> Tensor:
        """An MLP of the edge scalars in the m = 0 rows, turned back: [E, K, C]."""
        axial = self.edge_degree(scalars_ES).unflatten(1, (-1, self.channels)) * (smooth_E / DEGREE_SCALE)[:, None, None]
        zero_rows = turn_ERK.split([self.lmax + 1, turn_ERK.shape[1] - self.lmax - 1], dim=1)[0]
        return torch.bmm(zero_rows.mT, axial)
