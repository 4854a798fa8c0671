"""The pair tower: reads node states, never feeds them; its state lives in the frame of the pair.

One half of the channels is even, the other odd under exchange of the two atoms, so that exchanging
them transposes the predicted block exactly. The layers read the last node states, or each those of
the node layer of its number. All orders m are kept, whatever model.mmax says of the trunk: what is
left out here could not be predicted.

Axes: P unordered pairs, N atoms, K degree-major coefficients, R rows of a feature in the pair's
frame, Q = 2R rows of even and odd halves together, C channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from helm_scale.basis.elements import MAX_Z
from helm_scale.config import ModelConfig
from helm_scale.irreps.so2 import so2_layout
from helm_scale.irreps.wigner import edge_frames
from helm_scale.model.edgewise import EdgewiseOperator, halves
from helm_scale.model.equivariant import DegreeNorm, FeedForward
from helm_scale.model.radial import PairScalars, RadialMLP, envelope
from helm_scale.model.tensor_product import PairProduct
from helm_scale.model.trunk import gather_ends
from helm_scale.types import Geometry


class PairLayer(nn.Module):
    """z <- z + norm(F'(y_i, y_j, s_ij)), then z <- z + FFN'(norm(z))."""

    def __init__(self, config: ModelConfig, scalars: int) -> None:
        super().__init__()
        layout = so2_layout(config.lmax, config.lmax)
        half = config.pair_width * config.channels // 2  # channels of each parity
        hidden = config.pair_width * config.hidden_channels
        self.operator = EdgewiseOperator(
            layout,
            channels_in=config.channels,
            hidden=hidden,
            channels_out=half,
            scalars=scalars,
            edge_channels=config.edge_channels,
        )
        self.norm_operator = DegreeNorm(layout.irrep_of_row, half)
        self.norm_update = DegreeNorm(layout.irrep_of_row, half)
        self.update = FeedForward(layout.irrep_of_row, half, hidden // 2)

    def forward(
        self, z_PQC: Tensor, even_PRC: Tensor, odd_PRC: Tensor, scalars_PS: Tensor
    ) -> Tensor:
        """Update pair states from sums (even) and differences (odd) of their atoms' states.

        All of them are in the frame of the pair.
        """
        messages = torch.cat(self.operator(even_PRC, odd_PRC, scalars_PS), dim=1)
        z_PQC = z_PQC + self.norm_operator(messages)
        return z_PQC + self.update(self.norm_update(z_PQC))


class PairTower(nn.Module):
    """States of unordered pairs from the states of their atoms."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.channels = config.pair_width * config.channels // 2  # of each parity
        self.layout = so2_layout(config.lmax, config.lmax)
        self.edge_scalars = PairScalars(
            MAX_Z + 1, config.channels, config.pair_cutoff, config.radial_functions
        )
        self.start = RadialMLP(
            self.edge_scalars.width, config.edge_channels, (config.lmax + 1) * self.channels
        )
        self.layers = nn.ModuleList(
            PairLayer(config, self.edge_scalars.width) for _ in range(config.pair_layers)
        )
        self.product = (
            PairProduct(config, self.edge_scalars.width) if config.tensor_product_stage else None
        )
        self.merge = (
            FeedForward(self.layout.irrep_of_row, self.channels, self.channels)
            if config.tensor_product_stage
            else None
        )
        self.stage_cutoff = config.stage_cutoff
        self.norm = DegreeNorm(self.layout.irrep_of_row, self.channels)

    def forward(
        self,
        states: Sequence[Tensor],
        geometry: Geometry,
        pair_index: Tensor,
        added_PKC: Tensor | None = None,
    ) -> Tensor:
        """Pair features [P, K, C_pair] in the molecule's frame: the even channels, then the odd.

        Args:
            states: node states [N, K, C] that the layers read, one for all or one for each.
            pair_index: [2, P] the two atoms of every pair.
            added_PKC: what pairs read beside the node states (conditioning.py), laid out as the
                result.
        Property: exchanging the two atoms of a pair keeps its even channels and changes the sign of
        its odd ones.
        """
        vector, scalars = self._described(geometry, pair_index)
        frames = edge_frames(vector, self.layout.lmax, self.layout.mmax, states[0].dtype)
        # Turned into the frame once, for all layers that read these states.
        read = [gather_ends(y_NKC, pair_index, frames) for y_NKC in states]
        z = self.start(scalars).unflatten(1, (-1, self.channels))  # the invariant rows come first
        others = z.new_zeros(z.shape[0], len(self.layout.irrep_of_row) - z.shape[1], self.channels)
        z = torch.cat([z, others], dim=1)
        added = 0 if added_PKC is None else self._to_frame(frames, added_PKC)
        z = z + added
        for number, layer in enumerate(self.layers):
            z = layer(z, *read[min(number, len(read) - 1)], scalars)
        if self.product is not None and self.merge is not None:
            near = envelope(vector.norm(dim=-1), self.stage_cutoff).to(z)[:, None, None]
            product = self._to_frame(frames, self.product(states[-1], pair_index, scalars))
            # Conditions reach every pair, so they are not cut off with the layers of stage I.
            z = z * near + added * (1 - near) + product
            z = z + self.merge(z)
        return self._from_frame(frames, self.norm(z))

    def _described(self, geometry: Geometry, pair_index: Tensor) -> tuple[Tensor, Tensor]:
        """Vector from the first to the second atom [P, 3] and scalars [P, S] of every pair."""
        first, second = (geometry.positions.index_select(0, atoms) for atoms in pair_index)
        numbers = (geometry.atomic_numbers.index_select(0, atoms) for atoms in pair_index)
        vector = second - first
        return vector, self.edge_scalars(*numbers, vector.norm(dim=-1))

    def _from_frame(self, frames: tuple[Tensor, Tensor], z_PQC: Tensor) -> Tensor:
        """Pair states in the frame of the pair -> even and odd channels [P, K, 2C]."""
        even_and_odd = halves(z_PQC.split(self.layout.split_sizes, dim=1))
        # Frames are orthogonal, as all orders are kept: the transpose is the inverse.
        return torch.cat(
            [torch.bmm(frame.mT, half) for frame, half in zip(frames, even_and_odd, strict=True)],
            dim=-1,
        )

    def _to_frame(self, frames: tuple[Tensor, Tensor], x_PKC: Tensor) -> Tensor:
        """Even and odd channels -> states in the frame of the pair [P, Q, C]."""
        even, odd = (
            torch.bmm(frame, half)
            for frame, half in zip(frames, x_PKC.chunk(2, dim=-1), strict=True)
        )
        rows = zip(
            even.split(self.layout.split_sizes[0::2], dim=1),
            odd.split(self.layout.split_sizes[1::2], dim=1),
            strict=True,
        )
        return torch.cat([half for even_and_odd in rows for half in even_and_odd], dim=1)
