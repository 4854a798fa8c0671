"""Encodes what the network reads beside the molecule: S, H0, a point X_t of a flow, its time t.

An encoder is a Hamiltonian head read backwards: one linear map per degree from the rows that a
block has to channels. Each atom reads its own on-site block, each pair its own off-site block, all
of a molecule the time of their molecule. Maps of pairs have the head's symmetry, so that the block
and its transpose give the same even and opposite odd channels.

Axes: N atoms, P pairs, B molecules, n blocks of one kind, K = (lmax+1)^2 degree-major coefficients,
C channels, M = 2*L+1.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from helm_scale.basis.layout import (
    BlockLayout,
    head_multiplicities,
    offsite_layout,
    onsite_layout,
)
from helm_scale.config import ModelConfig
from helm_scale.model.heads.hamiltonian import Symmetrised
from helm_scale.types import GraphBatch, PairChunk, Segment

OCTAVES = 8  # frequencies of the time encoding: half a wave over [0, 1] and seven doublings


class FlowPoint(NamedTuple):
    """A point of a flow's path.

    Attributes:
        time: [B] from 0 to 1. onsite, offsite: X_t as packed irreps over the output scale, laid out
            as targets.
    """

    time: Tensor
    onsite: Tensor
    offsite: Tensor


def conditions_of(config: ModelConfig) -> tuple[str, ...]:
    """Names of the matrices that a model reads; "point" is that of its flow."""
    return (*config.conditions, *(["point"] if config.prior != "off" else []))


class BlockEncoder(nn.Module):
    """Packed irreps of blocks -> spherical-harmonic coefficients; turns with the molecule.

    An irrep of length |h| enters as h log(1 + |h|)/|h|: core elements of H0 reach hundreds of
    Hartree.
    """

    def __init__(self, lmax: int, channels: int, multiplicities: dict[int, int]) -> None:
        super().__init__()
        self.lmax, self.channels = lmax, channels
        self.weights = nn.ParameterList(
            nn.Parameter(
                # Rows add up to channels, so this keeps their variance.
                torch.randn(multiplicities[degree], channels) * multiplicities[degree] ** -0.5
            )
            for degree in sorted(multiplicities)
        )

    def forward(
        self, flat: Tensor, segments: Sequence[Segment], layout_of: Callable[[Segment], BlockLayout]
    ) -> Tensor:
        """Flat packed irreps of consecutive segments -> [blocks, K, C]."""
        weights = self._rows()
        # Adds zero and takes in every weight: engines wait for the gradients of all of them, also
        # on a rank whose molecules lack an irrep.
        anchor = torch.stack([weight.sum() for weight in weights]).sum() * 0
        layouts = [layout_of(segment) for segment in segments]
        sizes = [s.count * layout.size for s, layout in zip(segments, layouts, strict=True)]
        runs = flat.split(sizes) if segments else ()
        encoded = [
            self._segment(run.view(-1, layout.size), weights, layout)
            for run, layout in zip(runs, layouts, strict=True)
        ]
        none = anchor.new_zeros(0, (self.lmax + 1) ** 2, self.channels)
        return torch.cat([none, *encoded]) + anchor

    def _rows(self) -> list[Tensor]:
        """Weights [multiplicity, C] of every degree."""
        return list(self.weights)

    def _segment(self, packed_nS: Tensor, weights: list[Tensor], layout: BlockLayout) -> Tensor:
        """[n, S] -> [n, K, C]; degrees that the blocks do not have are zero."""
        sizes = [(2 * degree + 1) * len(rows) for degree, rows in layout.rows.items()]
        absent = weights[0].new_zeros(len(packed_nS), 2 * self.lmax + 1, self.channels)
        by_degree = [absent[:, : 2 * degree + 1] for degree in range(self.lmax + 1)]
        irreps = zip(layout.rows.items(), packed_nS.split(sizes, dim=1), strict=True)
        for (degree, rows), packed in irreps:
            weight = weights[degree].index_select(0, torch.from_numpy(rows).to(packed.device))
            h_nMR = compressed(packed.unflatten(1, (2 * degree + 1, -1)))
            by_degree[degree] = h_nMR.to(weight) @ weight
        return torch.cat(by_degree, dim=1)


class PairBlockEncoder(BlockEncoder):
    """Encoder of off-site blocks.

    The first half of the channels is even, the second odd under exchange of the atoms.
    """

    def __init__(self, lmax: int, channels: int, basis: str) -> None:
        super().__init__(lmax, channels, head_multiplicities(basis, onsite=False))
        self.symmetrised = Symmetrised(basis, (channels - channels // 2, channels // 2))

    def _rows(self) -> list[Tensor]:
        return self.symmetrised(list(self.weights))


class TimeEncoding(nn.Module):
    """Sines and cosines of pi 2^k t, k = 0..7, mapped to channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * OCTAVES, channels)

    def forward(self, time_B: Tensor) -> Tensor:
        """[B] -> [B, C]."""
        angle = torch.pi * time_B.unsqueeze(-1) * 2.0 ** torch.arange(OCTAVES, device=time_B.device)
        waves = torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)
        return self.linear(waves.to(self.linear.weight))


class NodeConditions(nn.Module):
    """What atoms read: their own on-site blocks and the time of their molecule."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.basis, self.parity = config.basis, config.parity
        multiplicities = head_multiplicities(config.basis, onsite=True)
        self.encoders = nn.ModuleDict(
            {
                name: BlockEncoder(config.lmax, config.channels, multiplicities)
                for name in conditions_of(config)
            }
        )
        self.time = TimeEncoding(config.channels) if config.prior != "off" else None

    def forward(self, batch: GraphBatch, point: FlowPoint | None) -> Tensor:
        """[N, K, C], atoms in the batch's order."""
        encoded = [
            encoder(_matrix(batch, point, "onsite", name), batch.atom_segments, self._layout)
            for name, encoder in self.encoders.items()
        ]
        sorted_NKC = torch.stack(encoded).sum(0)
        y_NKC = torch.zeros_like(sorted_NKC).index_copy(0, batch.atom_order, sorted_NKC)
        if self.time is None or point is None:
            return y_NKC
        return add_scalars(y_NKC, self.time(point.time)[batch.molecule])

    def _layout(self, segment: Segment) -> BlockLayout:
        return onsite_layout(self.basis, segment.first, self.parity)


class PairConditions(nn.Module):
    """What pairs read: their own off-site blocks and the time of their molecule."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.basis, self.channels = config.basis, config.pair_width * config.channels
        self.encoders = nn.ModuleDict(
            {
                name: PairBlockEncoder(config.lmax, self.channels, config.basis)
                for name in conditions_of(config)
            }
        )
        self.time = TimeEncoding(self.channels // 2) if config.prior != "off" else None

    def forward(self, batch: GraphBatch, point: FlowPoint | None, chunk: PairChunk) -> Tensor:
        """[P, K, C_pair] of a chunk in the molecule's frame: the even channels, then the odd."""
        encoded = [
            encoder(
                _matrix(batch, point, "offsite", name)[chunk.flat], chunk.segments, self._layout
            )
            for name, encoder in self.encoders.items()
        ]
        z_PKC = torch.stack(encoded).sum(0)
        if self.time is None or point is None:
            return z_PKC
        first_atom = batch.pair_index[0, chunk.start : chunk.stop]
        even = self.time(point.time)[batch.molecule[first_atom]]
        # A time is the same for both atoms of a pair: it has no odd part.
        return add_scalars(z_PKC, torch.cat([even, torch.zeros_like(even)], dim=1))

    def _layout(self, segment: Segment) -> BlockLayout:
        return offsite_layout(self.basis, segment.first, segment.second)


def _matrix(batch: GraphBatch, point: FlowPoint | None, blocks: str, name: str) -> Tensor:
    """Packed irreps of a matrix that the model reads; blocks: "onsite" or "offsite"."""
    packed: Tensor | None = (
        getattr(point, blocks) if name == "point" else getattr(batch, f"{blocks}_{name}")
    )
    assert packed is not None, f"{name} is collated wherever the model's settings name it"
    return packed


def add_scalars(x_NKC: Tensor, added_NC: Tensor) -> Tensor:
    """Add invariants to the l = 0 row."""
    # Not in place: autograd may still need x.
    scalar, higher = x_NKC.split([1, x_NKC.shape[1] - 1], dim=1)
    return torch.cat([scalar + added_NC.unsqueeze(1), higher], dim=1)


def compressed(h_nMR: Tensor) -> Tensor:
    """Irreps with log(1 + length) for their length; small ones keep it."""
    # The square root has an infinite slope at zero, where blocks of distant pairs are.
    length = torch.sqrt(h_nMR.square().sum(1, keepdim=True) + 1e-12)
    return h_nMR * (torch.log1p(length) / length)
