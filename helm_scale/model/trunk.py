"""The node trunk: atoms exchange messages and leave their spherical-harmonic states; energies need
it alone.

Takes plain tensors and names no batch type, so that it exports as it is; sizes come from .shape,
which stays symbolic under torch.export where len() would not.

Axes: N atoms, E edges (unordered), K = (lmax+1)^2 degree-major coefficients, R edge-frame rows, C
channels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from helm_scale.basis.elements import MAX_Z
from helm_scale.config import ModelConfig
from helm_scale.irreps.so2 import degree_of_coefficient, so2_layout
from helm_scale.irreps.wigner import edge_frames
from helm_scale.model.chunks import RECOMPUTE, sum_chunks, sum_chunks_recomputed
from helm_scale.model.edgewise import EdgewiseOperator, halves
from helm_scale.model.equivariant import DegreeNorm, FeedForward
from helm_scale.model.radial import PairScalars, RadialMLP, envelope

DEGREE_SCALE = 5.0  # the edge-degree sum is divided by this constant (HELM, arXiv:2510.00224)


class NodeLayer(nn.Module):
    """y <- y + sum_j F(norm(y)_i, norm(y)_j), then y <- y + FFN(norm(y))."""

    def __init__(self, config: ModelConfig, scalars: int) -> None:
        super().__init__()
        self.layout, degrees = (
            so2_layout(config.lmax, config.mmax),
            degree_of_coefficient(config.lmax),
        )
        channels, hidden = config.channels, config.hidden_channels
        self.norm_messages = DegreeNorm(degrees, channels)
        self.messages = EdgewiseOperator(
            self.layout, channels, hidden, channels, scalars, config.edge_channels
        )
        self.norm_update = DegreeNorm(degrees, channels)
        self.update = FeedForward(degrees, channels, hidden)
        self.recompute_update = False  # an execution setting

    def forward(self, y_NKC: Tensor, chunks: Sequence["Edges"], total: "Sum") -> Tensor:
        """Update node states from the messages of all chunks of edges, summed by `total`."""
        normed = self.norm_messages(y_NKC)
        y_NKC = y_NKC + total(lambda edges: self._collect(normed, edges), chunks)
        return y_NKC + (
            checkpoint(self._updated, y_NKC, **RECOMPUTE)
            if self.recompute_update
            else self._updated(y_NKC)
        )

    def _updated(self, y_NKC: Tensor) -> Tensor:
        return self.update(self.norm_update(y_NKC))  # type: ignore[no-any-return]

    def _collect(self, y_NKC: Tensor, edges: "Edges") -> Tensor:
        """Sum of the messages that reach every atom."""
        frames = edge_frames(edges.vector, self.layout.lmax, self.layout.mmax, y_NKC.dtype)
        messages = halves(self.messages(*ends(y_NKC, edges.ends, frames), edges.scalars))
        return collected(y_NKC.shape[0], edges, frames, messages)


class EdgeDegree(RadialMLP):
    """y <- y + sum_j of an MLP of the edge scalars, in the rows that neither a turn about the edge
    nor an exchange of its ends changes.

    A NodeLayer in form: chunks are walked inside, so an engine gathers the weights once, however
    many chunks there are.
    """

    def __init__(self, config: ModelConfig, scalars: int) -> None:
        super().__init__(scalars, config.edge_channels, (config.lmax + 1) * config.channels)
        self.layout = so2_layout(config.lmax, config.mmax)

    def forward(self, y_NKC: Tensor, chunks: Sequence["Edges"], total: "Sum") -> Tensor:  # type: ignore[override]
        """Add to node states what all chunks of edges give, summed by `total`."""
        atoms = y_NKC.shape[0]
        return y_NKC + total(lambda edges: self._collect(atoms, edges), chunks)

    def _collect(self, atoms: int, edges: "Edges") -> Tensor:
        rows = self.layout.sizes[0][:2]
        axial = super().forward(edges.scalars).unflatten(1, (sum(rows), -1)) / DEGREE_SCALE
        frames = edge_frames(edges.vector, self.layout.lmax, self.layout.mmax, axial.dtype)
        invariant = [
            frame.split([n, frame.shape[1] - n], dim=1)[0]
            for frame, n in zip(frames, rows, strict=True)
        ]
        return collected(atoms, edges, invariant, axial.split(rows, dim=1))


class Edges(NamedTuple):
    """Message edges: ends [2, E] (atoms), vector [E, 3] float64 (Angstrom), scalars [E, S],
    envelope [E]."""

    ends: Tensor
    vector: Tensor
    scalars: Tensor
    smooth: Tensor

    def split(self, length: int) -> list["Edges"]:
        """Chunks of at most `length` edges, at least one."""
        return [
            Edges(*parts)
            for parts in zip(
                self.ends.split(length, dim=1), *(x.split(length) for x in self[1:]), strict=True
            )
        ]


Sum = Callable[[Callable[[Edges], Tensor], Sequence[Edges]], Tensor]


def ends(y_NKC: Tensor, edge_index: Tensor, frames: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Sum and difference of the states of an edge's atoms, turned into its frame: [E, R, C]
    each."""
    first, second = y_NKC.index_select(0, edge_index[0]), y_NKC.index_select(0, edge_index[1])
    return torch.bmm(frames[0], first + second), torch.bmm(frames[1], first - second)


def collected(
    atoms: int, edges: Edges, frames: Sequence[Tensor], messages: Sequence[Tensor]
) -> Tensor:
    """Turn even and odd messages back; E + O goes to the second atom of every edge, E - O to the
    first: [N, K, C]."""
    smooth = edges.smooth[:, None, None]
    even, odd = (
        torch.bmm(frame.mT, message * smooth)
        for frame, message in zip(frames, messages, strict=True)
    )
    total = even.new_zeros(atoms, *even.shape[1:])
    return total.index_add(0, edges.ends[1], even + odd).index_add(0, edges.ends[0], even - odd)


class Trunk(nn.Module):
    """Embeddings, edge-degree term and node layers of HELM (arXiv:2510.00224); smooth at its cutoff
    (ours)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layout, self.cutoff, self.max_charge = (
            so2_layout(config.lmax, config.mmax),
            config.trunk_cutoff,
            config.max_charge,
        )
        self.chunk = 0  # edges whose activations are held at once, an execution setting; 0: all, and none computed twice
        # Execution settings where several processes share the edges of a batch:
        self.pair_rank, self.pair_world_size = 0, 1  # this process works on every n-th edge
        self.all_reduce: Callable[[Tensor], Tensor] = lambda total: total
        self.element = nn.Embedding(MAX_Z + 1, config.channels)
        self.charge = nn.Embedding(2 * config.max_charge + 1, config.channels)
        self.spin = nn.Embedding(config.max_multiplicity + 1, config.channels)
        self.edge_scalars = PairScalars(
            MAX_Z + 1, config.channels, config.trunk_cutoff, config.radial_functions
        )
        self.edge_degree = EdgeDegree(config, self.edge_scalars.width)
        self.layers = nn.ModuleList(
            NodeLayer(config, self.edge_scalars.width) for _ in range(config.num_layers)
        )
        self.norm = DegreeNorm(degree_of_coefficient(config.lmax), config.channels)

    def forward(
        self,
        positions: Tensor,
        atomic_numbers: Tensor,
        edge_index: Tensor,
        molecule: Tensor,
        charge: Tensor,
        spin_multiplicity: Tensor,
    ) -> Tensor:
        """Node features: the last of `states`."""
        return self.states(
            positions, atomic_numbers, edge_index, molecule, charge, spin_multiplicity
        )[-1]

    def states(
        self, positions: Tensor, atomic_numbers: Tensor, edge_index: Tensor, molecule: Tensor, charge: Tensor, spin_multiplicity: Tensor,
        added_NKC: Tensor | None = None,
    ) -> list[Tensor]:  # fmt: skip
        """Node states after every layer, normalised.

        Args:
            positions: [N, 3] float64, Angstrom. atomic_numbers: [N].
            edge_index: [2, E] the two atoms of every edge, each edge once, in either order.
            molecule: [N] index of each atom's molecule. charge, spin_multiplicity: one integer per
                molecule.
            added_NKC: what atoms read beside the molecule (conditioning.py).
        Returns:
            [N, K, C] each, in the dtype of the weights; degree l, order m at row l*l + l + m. They
            turn with the molecule.
        """
        own = edge_index
        if self.pair_world_size > 1:
            own = edge_index[:, self.pair_rank :: self.pair_world_size]
        edges = self._edges(positions, atomic_numbers, own)
        whole = self.charge(charge + self.max_charge) + self.spin(spin_multiplicity)
        start = self.element(atomic_numbers) + whole.index_select(0, molecule)
        y = torch.cat(
            [
                start.unsqueeze(1),
                start.new_zeros(start.shape[0], (self.layout.lmax + 1) ** 2 - 1, start.shape[1]),
            ],
            dim=1,
        )
        y = y if added_NKC is None else y + added_NKC
        chunks, total_over = (
            (edges.split(self.chunk), sum_chunks_recomputed)
            if self.chunk
            else ([edges], sum_chunks)
        )
        total: Sum = lambda function, chunks: self.all_reduce(total_over(function, chunks))  # noqa: E731
        y, states = self.edge_degree(y, chunks, total), []
        for layer in self.layers:
            y = layer(y, chunks, total)
            states.append(self.norm(y))
        return states

    def set_memory(self, recompute: str, message_chunk: int) -> None:
        """Choose what is held for the backward pass: recompute "none", "messages" in chunks of so
        many edges, or "full"."""
        self.chunk = 0 if recompute == "none" else message_chunk
        for layer in self.layers:
            cast(NodeLayer, layer).recompute_update = recompute == "full"

    def _edges(self, positions: Tensor, atomic_numbers: Tensor, edge_index: Tensor) -> Edges:
        first, second = edge_index
        vector = positions.index_select(0, second) - positions.index_select(0, first)
        distance = vector.norm(dim=-1)
        scalars = self.edge_scalars(
            atomic_numbers.index_select(0, first), atomic_numbers.index_select(0, second), distance
        )
        return Edges(edge_index, vector, scalars, envelope(distance, self.cutoff).to(scalars.dtype))
