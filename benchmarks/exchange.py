"""Does the exact exchange symmetry of like pairs cost accuracy?

It is compared with the mean of both directions, at equal steps, for three seeds. The pair tower of
this package is built from features that are even or odd when the two atoms of a pair change places.
The tower that it is compared with, below, is built from directed features: maps that respect turns
about the edge alone, of the states of first and second atom side by side, as in the paper (HELM,
arXiv:2510.00224); pairs of one element are evaluated in both directions and the mean of the block
and the other's transpose is kept. Trunk, on-site head, data and steps are the same (variants.py).

    python benchmarks/exchange.py [--quick] [--sets quickstart water small] [--seeds 0 1 2]
"""

from typing import Any

import torch
from torch import Tensor, nn
from variants import TASKS, compare, parse

from helm_scale.basis import layout, slots
from helm_scale.basis.elements import MAX_Z
from helm_scale.config import ModelConfig
from helm_scale.irreps.so2 import so2_layout
from helm_scale.irreps.wigner import edge_frames
from helm_scale.model import helm
from helm_scale.model.conditioning import FlowPoint
from helm_scale.model.equivariant import DegreeNorm, FeedForward
from helm_scale.model.heads.hamiltonian import BlockHead
from helm_scale.model.radial import GaussianBasis, RadialMLP, envelope
from helm_scale.types import GraphBatch, PairChunk

SYMMETRIC = helm.PairBranch
# hidden channels that bring the exact tower to the operations of the mean
WIDER = {"quickstart": 24, "water": 64, "small": 24}
VARIANTS = {
    "mean of both directions": 1,
    "exact, half as many channels of each parity": 1,
    "exact, half as many channels, wider inside": 1,
    "exact, as many channels of each parity": 2,
}


class DirectedLinear(nn.Module):
    """SO(2)-equivariant map of [P, n, C_in] per order m.

    Rows of +m (U) stand before those of -m (V): U' = A U - B V, V' = A V + B U.
    """

    def __init__(self, lmax: int, channels_in: int, channels_out: int, extra: int = 0) -> None:
        super().__init__()
        self.channels_out, self.split_zero = channels_out, ((lmax + 1) * channels_out, extra)
        self.zero = nn.Linear((lmax + 1) * channels_in, sum(self.split_zero))
        both = [(n * channels_out, n * channels_in) for n in range(lmax, 0, -1)]
        self.same, self.crossed = (
            nn.ParameterList(
                nn.Parameter(
                    torch.empty(shape).uniform_(-((2 * shape[1]) ** -0.5), (2 * shape[1]) ** -0.5)
                )
                for shape in both
            )
            for _ in range(2)
        )

    def forward(self, orders: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """The same with C_out, and extra invariants [P, extra]."""
        zero, extra = self.zero(orders[0].flatten(1)).split(self.split_zero, dim=1)
        mapped = [zero]
        for piece, same, crossed in zip(orders[1:], self.same, self.crossed, strict=True):
            block = torch.cat(
                [torch.cat([same, -crossed], dim=1), torch.cat([crossed, same], dim=1)]
            )
            mapped.append(piece.flatten(1) @ block.T)
        return [rows.unflatten(1, (-1, self.channels_out)) for rows in mapped], extra


class DirectedOperator(nn.Module):
    """F(a_i, a_j, s_ij): radial weights, directed map, gate, directed map."""

    def __init__(self, config: ModelConfig, scalars: int) -> None:
        super().__init__()
        self.lmax, self.hidden = config.lmax, config.hidden_channels
        self.sizes = [config.lmax + 1, *(2 * n for n in range(config.lmax, 0, -1))]
        self.degrees = [config.lmax + 1, *range(config.lmax, 0, -1)]
        self.radial = RadialMLP(
            scalars, config.edge_channels, sum(self.degrees) * 2 * config.channels
        )
        self.first = DirectedLinear(
            config.lmax, 2 * config.channels, self.hidden, extra=config.lmax * self.hidden
        )
        self.second = DirectedLinear(config.lmax, self.hidden, config.channels)
        kept, turned = range(0, config.lmax + 1, 2), range(1, config.lmax + 1, 2)
        self.zero_degrees = [*kept, *turned]  # the rows of order 0 as the frame has them

    def forward(self, ends_PRC: Tensor, scalars_PS: Tensor) -> Tensor:
        """States of both atoms side by side [P, R, 2C] -> [P, R, C]."""
        weights = (
            self.radial(scalars_PS).unflatten(1, (-1, ends_PRC.shape[2])).split(self.degrees, dim=1)
        )
        pieces = ends_PRC.split(self.sizes, dim=1)
        weighted = [
            pieces[0] * weights[0],
            *(_twice(piece, w) for piece, w in zip(pieces[1:], weights[1:], strict=True)),
        ]
        (zero, *rest), gates = self.first(weighted)
        gate = torch.sigmoid(gates).unflatten(1, (self.lmax, self.hidden))
        scalar, others = zero.split([1, self.lmax], dim=1)
        gated = [
            torch.cat(
                [
                    nn.functional.silu(scalar),
                    others * gate[:, [degree - 1 for degree in self.zero_degrees[1:]]],
                ],
                dim=1,
            )
        ]
        gated += [_twice(piece, gate[:, m - 1 :]) for m, piece in enumerate(rest, start=1)]
        return torch.cat(self.second(gated)[0], dim=1)


def _twice(piece: Tensor, factor: Tensor) -> Tensor:
    """Multiply the U and the V half of a piece [P, 2n, C] by the same factor [P, n, C]."""
    return (piece.unflatten(1, (2, -1)) * factor.unsqueeze(1)).flatten(1, 2)


class DirectedLayer(nn.Module):
    """z <- z + norm(F'(y_i, y_j, s_ij)), then z <- z + FFN'(norm(z))."""

    def __init__(self, config: ModelConfig, scalars: int, degrees: Tensor) -> None:
        super().__init__()
        self.operator = DirectedOperator(config, scalars)
        self.norm_operator, self.norm_update = (
            DegreeNorm(degrees, config.channels) for _ in range(2)
        )
        self.update = FeedForward(degrees, config.channels, config.hidden_channels)

    def forward(self, z_PRC: Tensor, ends_PRC: Tensor, scalars_PS: Tensor) -> Tensor:
        """Update pair states."""
        z_PRC = z_PRC + self.norm_operator(self.operator(ends_PRC, scalars_PS))
        return z_PRC + self.update(self.norm_update(z_PRC))


class DirectedTower(nn.Module):
    """States [P, K, C] of ordered pairs."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.lmax, self.channels = config.lmax, config.channels
        rows, _ = so2_layout(config.lmax, config.lmax).even
        degrees = rows.double().sqrt().floor().long()
        self.source, self.target = (nn.Embedding(MAX_Z + 1, config.channels) for _ in range(2))
        self.basis = GaussianBasis(config.pair_cutoff, config.radial_functions)
        width = 2 * config.channels + config.radial_functions
        self.start = RadialMLP(width, config.edge_channels, (config.lmax + 1) * config.channels)
        self.layers = nn.ModuleList(
            DirectedLayer(config, width, degrees) for _ in range(config.pair_layers)
        )
        self.norm = DegreeNorm(degrees, config.channels)

    def forward(self, states: list[Tensor], batch: GraphBatch, pair_index: Tensor) -> Tensor:
        """Pair features in the molecule's frame."""
        first, second = pair_index
        vector = batch.positions[second] - batch.positions[first]
        frame, _ = edge_frames(vector, self.lmax, self.lmax, states[0].dtype)
        gaussians = self.basis(vector.norm(dim=-1)).to(frame)
        scalars = torch.cat(
            [
                self.source(batch.atomic_numbers[first]),
                gaussians,
                self.target(batch.atomic_numbers[second]),
            ],
            dim=1,
        )
        read = [torch.bmm(frame, torch.cat([y[first], y[second]], dim=2)) for y in states]
        z = self.start(scalars).unflatten(1, (-1, self.channels))
        z = torch.cat([z, z.new_zeros(len(z), frame.shape[1] - z.shape[1], self.channels)], dim=1)
        for number, layer in enumerate(self.layers):
            z = layer(z, read[min(number, len(read) - 1)], scalars)
        return torch.bmm(frame.mT, self.norm(z))


class DirectedPairs(SYMMETRIC):  # type: ignore[misc, valid-type]
    """Replaces PairBranch: one direction of unlike pairs, the mean of both for like ones."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tower = DirectedTower(config)
        self.head = BlockHead(
            config.lmax, config.channels, layout.head_multiplicities(config.basis, onsite=False)
        )
        self.column, self.sign = transposed_columns(config.basis)

    def _irreps(
        self,
        states_YNKC: Tensor,
        chunk: PairChunk,
        *,
        batch: GraphBatch,
        scale: Tensor,
        point: FlowPoint | None,
    ) -> Tensor:
        index = batch.pair_index[:, chunk.start : chunk.stop]
        like = torch.tensor(
            [i for s in chunk.segments if s.first == s.second for i in range(s.start, s.stop)],
            dtype=torch.int64,
        )
        ordered = torch.cat([index, index[:, like].flip(0)], dim=1)
        rows, mirrored = self.head(self.tower(list(states_YNKC.unbind()), batch, ordered)).split(
            [index.shape[1], len(like)]
        )
        mean = (rows[like] + mirrored[:, self.column] * self.sign.to(rows)) / 2
        distance = (batch.positions[index[1]] - batch.positions[index[0]]).norm(dim=-1)
        smooth = (envelope(distance, self.cutoff) * scale).to(rows)
        places = slots.pair_slots(self.basis, rows.device).places(
            batch.pair_kinds(chunk), chunk.size
        )
        scaled = rows.index_copy(0, like, mean) * smooth[:, None]
        return scaled.flatten().index_select(0, places)


def transposed_columns(basis: str) -> tuple[Tensor, Tensor]:
    """Columns of slots (basis/slots.py) that make up the transposed block, and their signs."""
    columns, signs, start = [], [], 0
    for degree, (index, sign) in enumerate(layout.transposed_rows(basis)):
        for _ in range(2 * degree + 1):
            columns.append(torch.from_numpy(index) + start)
            signs.append(torch.from_numpy(sign))
            start += len(index)
    return torch.cat(columns), torch.cat(signs)


def model(task: str, variant: str) -> dict[str, Any]:
    """Settings of a variant."""
    wider = {"hidden_channels": WIDER[task]} if variant.endswith("wider inside") else {}
    return {"pair_width": VARIANTS[variant], **wider}


def use_pairs(variant: str) -> None:
    """Have models built with the pairs of a variant."""
    pairs = DirectedPairs if variant.startswith("mean") else SYMMETRIC
    helm.PairBranch = pairs  # type: ignore[misc]


def main() -> None:
    """All variants, seed by seed; the last line is one JSON object."""
    arguments = parse(__doc__, list(TASKS))
    compare("exchange", arguments, variants=list(VARIANTS), model=model, before=use_pairs)


if __name__ == "__main__":
    main()
