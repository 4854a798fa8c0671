"""What the network reads beside the molecule, block by block: S, H0, a point X_t of a flow and its
time t.

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
    transposed_rows,
)
from helm_scale.config import ModelConfig
from helm_scale.model.heads.hamiltonian import symmetrised
from helm_scale.types import GraphBatch, PairChunk, Segment

OCTAVES = 8  # frequencies of the time encoding: half a wave over [0, 1] and seven doublings


class FlowPoint(NamedTuple):
    """A point of a flow's path: time [B] from 0 to 1, and X_t as packed irreps, laid out as
    targets, over the output scale."""

    time: Tensor
    onsite: Tensor
    offsite: Tensor


def conditions_of(config: ModelConfig) -> tuple[str, ...]:
    """Names of the matrices that a model reads: those of its settings, and the point of its
    flow."""
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
                torch.randn(multiplicities[degree], channels) * multiplicities[degree] ** -0.5
            )
            for degree in sorted(multiplicities)
        )

    def forward(
        self, flat: Tensor, segments: Sequence[Segment], layout_of: Callable[[Segment], BlockLayout]
    ) -> Tensor:
        """Flat packed irreps of consecutive segments -> [blocks, K, C]."""
        weights = self._rows()
        anchor = (
            torch.stack([weight.sum() for weight in weights]).sum() * 0
        )  # every weight takes part on every rank
        kinds = [layout_of(segment) for segment in segments]
        counts = [segment.count for segment in segments]
        runs = (
            flat.split([count * kind.size for count, kind in zip(counts, kinds, strict=True)])
            if segments
            else ()
        )
        parts = [
            self._segment(run.view(-1, kind.size), weights, kind)
            for run, kind in zip(runs, kinds, strict=True)
        ]
        return (
            torch.cat([anchor.new_zeros(0, (self.lmax + 1) ** 2, self.channels), *parts]) + anchor
        )

    def _rows(self) -> list[Tensor]:
        """Weights [multiplicity, C] of every degree."""
        return list(self.weights)

    def _segment(self, packed_nS: Tensor, weights: list[Tensor], kind: BlockLayout) -> Tensor:
        """[n, S] -> [n, K, C]; degrees that the blocks do not have are zero."""
        sizes = [(2 * degree + 1) * len(rows) for degree, rows in kind.rows.items()]
        found: dict[int, Tensor] = {}
        for (degree, rows), part in zip(
            kind.rows.items(), packed_nS.split(sizes, dim=1), strict=True
        ):
            weight = weights[degree].index_select(0, torch.from_numpy(rows).to(part.device))
            found[degree] = _compressed(part.unflatten(1, (2 * degree + 1, -1))).to(weight) @ weight
        absent = weights[0].new_zeros(len(packed_nS), 2 * self.lmax + 1, self.channels)
        return torch.cat(
            [found.get(degree, absent[:, : 2 * degree + 1]) for degree in range(self.lmax + 1)],
            dim=1,
        )


class PairBlockEncoder(BlockEncoder):
    """Encoder of off-site blocks: the first half of the channels is even, the second odd under
    exchange of the atoms."""

    def __init__(self, lmax: int, channels: int, basis: str) -> None:
        super().__init__(lmax, channels, head_multiplicities(basis, onsite=False))
        self.transposed = [
            (torch.from_numpy(index), torch.from_numpy(sign))
            for index, sign in transposed_rows(basis)
        ]

    def _rows(self) -> list[Tensor]:
        parities = (self.channels - self.channels // 2, self.channels // 2)
        return [
            symmetrised(weight, parities, *turned)
            for weight, turned in zip(self.weights, self.transposed, strict=True)
        ]


class TimeEncoding(nn.Module):
    """Sines and cosines of pi 2^k t, k = 0..7, mapped to channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * OCTAVES, channels)

    def forward(self, time_B: Tensor) -> Tensor:
        """[B] -> [B, C]."""
        angle = torch.pi * time_B.unsqueeze(-1) * 2.0 ** torch.arange(OCTAVES, device=time_B.device)
        return self.linear(
            torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1).to(self.linear.weight)
        )  # type: ignore[no-any-return]


class NodeConditions(nn.Module):
    """What atoms read: their own on-site blocks and the time of their molecule."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.basis, self.parity = config.basis, config.parity
        multiplicities = head_multiplicities(config.basis, onsite=True)
        self.encoders = nn.ModuleDict(
            {
                n: BlockEncoder(config.lmax, config.channels, multiplicities)
                for n in conditions_of(config)
            }
        )
        self.time = TimeEncoding(config.channels) if config.prior != "off" else None

    def forward(self, batch: GraphBatch, point: FlowPoint | None) -> Tensor:
        """[N, K, C], atoms in the batch's order."""
        parts = [
            encoder(
                _matrix(batch, point, "onsite", name),
                batch.atom_segments,
                lambda s: onsite_layout(self.basis, s.first, self.parity),
            )
            for name, encoder in self.encoders.items()
        ]
        sorted_NKC = torch.stack(parts).sum(0)
        y_NKC = torch.zeros_like(sorted_NKC).index_copy(0, batch.atom_order, sorted_NKC)
        return (
            y_NKC
            if self.time is None or point is None
            else _with_scalars(y_NKC, self.time(point.time)[batch.molecule])
        )


class PairConditions(nn.Module):
    """What pairs read: their own off-site blocks and the time of their molecule."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.basis, self.channels = config.basis, config.pair_width * config.channels
        self.encoders = nn.ModuleDict(
            {
                n: PairBlockEncoder(config.lmax, self.channels, config.basis)
                for n in conditions_of(config)
            }
        )
        self.time = TimeEncoding(self.channels // 2) if config.prior != "off" else None

    def forward(self, batch: GraphBatch, point: FlowPoint | None, chunk: PairChunk) -> Tensor:
        """[P, K, C_pair] of a chunk in the molecule's frame: the even half of the channels, then
        the odd."""
        parts = [
            encoder(
                _matrix(batch, point, "offsite", name)[chunk.flat],
                chunk.segments,
                lambda s: offsite_layout(self.basis, s.first, s.second),
            )
            for name, encoder in self.encoders.items()
        ]
        z_PKC = torch.stack(parts).sum(0)
        if self.time is None or point is None:
            return z_PKC
        even = self.time(point.time)[batch.molecule[batch.pair_index[0, chunk.start : chunk.stop]]]
        return _with_scalars(z_PKC, torch.cat([even, torch.zeros_like(even)], dim=1))


def _matrix(batch: GraphBatch, point: FlowPoint | None, part: str, name: str) -> Tensor:
    """Packed irreps of a condition's on-site or off-site blocks."""
    found: Tensor | None = (
        getattr(point, part) if name == "point" else getattr(batch, f"{part}_{name}")
    )
    assert found is not None, f"{name} is collated wherever the model's settings name it"
    return found


def _with_scalars(x_NKC: Tensor, added_NC: Tensor) -> Tensor:
    scalar, rest = x_NKC.split([1, x_NKC.shape[1] - 1], dim=1)
    return torch.cat([scalar + added_NC.unsqueeze(1), rest], dim=1)


def _compressed(h_nMR: Tensor) -> Tensor:
    """Every irrep with log(1 + length) for its length."""
    length = torch.sqrt(h_nMR.square().sum(1, keepdim=True) + 1e-12)
    return h_nMR * (torch.log1p(length) / length)
