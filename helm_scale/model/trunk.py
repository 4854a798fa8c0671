"""The node trunk: atoms exchange messages and leave their spherical-harmonic states.

Energies need nothing else. It takes a Geometry of plain tensors, so that torch.export takes it as
it is; sizes come from .shape, which stays symbolic there where len() would not.

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
from helm_scale.irreps.so2 import So2Layout, degree_of_coefficient, so2_layout
from helm_scale.irreps.wigner import edge_frames
from helm_scale.model.chunks import RECOMPUTE, sum_chunks, sum_chunks_recomputed
from helm_scale.model.edgewise import EdgewiseOperator, halves
from helm_scale.model.equivariant import DegreeNorm, FeedForward
from helm_scale.model.radial import PairScalars, RadialMLP, envelope
from helm_scale.types import Geometry

DEGREE_SCALE = 5.0  # the edge-degree sum is divided by this constant (HELM, arXiv:2510.00224)


class Edges(NamedTuple):
    """Message edges.

    Attributes:
        ends: [2, E] atoms. vector: [E, 3] from the first to the second, float64, Angstrom.
        scalars: [E, S] (radial.PairScalars). smooth: [E] envelope, 0 at the cutoff.
        frames: of even and odd features (wigner.edge_frames), shared by all layers; None: each
            layer makes its own, chunk by chunk, where memory is to be saved.
    """

    ends: Tensor
    vector: Tensor
    scalars: Tensor
    smooth: Tensor
    frames: tuple[Tensor, Tensor] | None = None

    def in_frames(self, layout: So2Layout) -> tuple[Tensor, Tensor]:
        """`frames`, made where there are none."""
        dtype = self.scalars.dtype
        return self.frames or edge_frames(self.vector, layout.lmax, layout.mmax, dtype)

    def split(self, length: int) -> list["Edges"]:
        """Chunks of at most `length` edges, at least one, without frames."""
        ends = self.ends.split(length, dim=1)
        fields = (values.split(length) for values in (self.vector, self.scalars, self.smooth))
        return [Edges(*chunk) for chunk in zip(ends, *fields, strict=True)]


# Sums what a function gives for every chunk of edges: whole, chunk by chunk, or over ranks, too.
SumOverEdges = Callable[[Callable[[Edges], Tensor], Sequence[Edges]], Tensor]


class NodeLayer(nn.Module):
    """y <- y + sum_j F(norm(y)_i, norm(y)_j), then y <- y + FFN(norm(y))."""

    def __init__(self, config: ModelConfig, scalars: int) -> None:
        super().__init__()
        self.layout = so2_layout(config.lmax, config.mmax)
        degrees = degree_of_coefficient(config.lmax)
        channels, hidden = config.channels, config.hidden_channels
        self.norm_messages = DegreeNorm(degrees, channels)
        self.messages = EdgewiseOperator(
            self.layout,
            channels_in=channels,
            hidden=hidden,
            channels_out=channels,
            scalars=scalars,
            edge_channels=config.edge_channels,
        )
        self.norm_update = DegreeNorm(degrees, channels)
        self.update = FeedForward(degrees, channels, hidden)
        self.recompute_update = False  # an execution setting

    def forward(self, y_NKC: Tensor, chunks: Sequence[Edges], total: SumOverEdges) -> Tensor:
        """Update node states from the messages of all chunks of edges, summed by `total`."""
        normed = self.norm_messages(y_NKC)  # once, not by every chunk
        y_NKC = y_NKC + total(lambda edges: self._messages(normed, edges), chunks)
        if self.recompute_update:
            return y_NKC + cast(Tensor, checkpoint(self._update, y_NKC, **RECOMPUTE))
        return y_NKC + self._update(y_NKC)

    def _update(self, y_NKC: Tensor) -> Tensor:
        return self.update(self.norm_update(y_NKC))

    def _messages(self, y_NKC: Tensor, edges: Edges) -> Tensor:
        """Sum of the messages that reach every atom over these edges: [N, K, C]."""
        frames = edges.in_frames(self.layout)
        even, odd = gather_ends(y_NKC, edges.ends, frames)
        messages = halves(self.messages(even, odd, edges.scalars))
        return scatter_messages(messages, frames, edges, atoms=y_NKC.shape[0])


class EdgeDegree(RadialMLP):
    """y <- y + sum_j of an MLP of the edge scalars, in the rows that are invariant.

    Those are the rows that neither a turn about the edge nor an exchange of its ends changes. A
    NodeLayer in form: chunks are walked inside, so that an engine gathers the weights once, however
    many chunks there are.
    """

    def __init__(self, config: ModelConfig, scalars: int) -> None:
        super().__init__(scalars, config.edge_channels, (config.lmax + 1) * config.channels)
        self.layout = so2_layout(config.lmax, config.mmax)

    def forward(  # type: ignore[override]
        self, y_NKC: Tensor, chunks: Sequence[Edges], total: SumOverEdges
    ) -> Tensor:
        """Add to node states what all chunks of edges give, summed by `total`."""
        atoms = y_NKC.shape[0]
        return y_NKC + total(lambda edges: self._messages(atoms, edges), chunks)

    def _messages(self, atoms: int, edges: Edges) -> Tensor:
        rows = self.layout.sizes[0][:2]  # invariant rows of even and of odd features
        axial = super().forward(edges.scalars).unflatten(1, (sum(rows), -1)) / DEGREE_SCALE
        frames = edges.in_frames(self.layout)
        # Slices by split: their sizes are constants in an exported program.
        invariant = [
            frame.split([count, frame.shape[1] - count], dim=1)[0]
            for frame, count in zip(frames, rows, strict=True)
        ]
        return scatter_messages(axial.split(rows, dim=1), invariant, edges, atoms=atoms)


def gather_ends(
    y_NKC: Tensor, edge_index: Tensor, frames: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Sum and difference of the states of an edge's atoms in its frame: [E, R, C] each."""
    # index_select has a faster backward pass (index_add) than indexing has (index_put).
    first, second = y_NKC.index_select(0, edge_index[0]), y_NKC.index_select(0, edge_index[1])
    return torch.bmm(frames[0], first + second), torch.bmm(frames[1], first - second)


def scatter_messages(
    messages: Sequence[Tensor], frames: Sequence[Tensor], edges: Edges, *, atoms: int
) -> Tensor:
    """Turn even and odd messages E and O back and add them up at the atoms: [N, K, C].

    The second atom of every edge receives E + O, the first E - O.
    """
    # The envelope acts after all that is nonlinear, so that an atom at the cutoff sends nothing.
    smooth = edges.smooth[:, None, None]
    even, odd = (
        torch.bmm(frame.mT, message * smooth)
        for frame, message in zip(frames, messages, strict=True)
    )
    total = even.new_zeros(atoms, *even.shape[1:])
    return total.index_add(0, edges.ends[1], even + odd).index_add(0, edges.ends[0], even - odd)


class Trunk(nn.Module):
    """Embeddings, edge-degree term and node layers of HELM (arXiv:2510.00224).

    Ours is smooth at its cutoff.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layout = so2_layout(config.lmax, config.mmax)
        self.cutoff, self.max_charge = config.trunk_cutoff, config.max_charge
        # Execution settings, no number depends on them. Edges whose activations are held at once;
        # 0: those of all edges, and none is computed twice.
        self.chunk = 0
        # Where several processes share the edges of a batch, this one works on every n-th of them.
        self.pair_rank, self.pair_world_size = 0, 1
        self.all_reduce: Callable[[Tensor], Tensor] = _of_one_process
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

    def forward(self, geometry: Geometry) -> Tensor:
        """Node features [N, K, C]: the last of `states`."""
        return self.states(geometry)[-1]

    def states(self, geometry: Geometry, added_NKC: Tensor | None = None) -> list[Tensor]:
        """Node states after every layer, normalised.

        Args:
            added_NKC: what atoms read beside the molecule (conditioning.py).
        Returns:
            [N, K, C] each, in the dtype of the weights; degree l, order m at row l*l + l + m. They
            turn with the molecule.
        """
        edges = self._edges(geometry)
        y = self._embedded(geometry)
        y = y if added_NKC is None else y + added_NKC
        if self.chunk:
            chunks = edges.split(self.chunk)
        else:
            chunks = [edges._replace(frames=edges.in_frames(self.layout))]
        y, states = self.edge_degree(y, chunks, self._total), []
        for layer in self.layers:
            y = layer(y, chunks, self._total)
            states.append(self.norm(y))
        return states

    def set_memory(self, recompute: str, message_chunk: int) -> None:
        """Choose what is held for the backward pass.

        Args:
            recompute: "none", "messages" in chunks of `message_chunk` edges, or "full", which takes
                in the updates of atoms.
        """
        self.chunk = 0 if recompute == "none" else message_chunk
        for layer in self.layers:
            cast(NodeLayer, layer).recompute_update = recompute == "full"

    def _embedded(self, geometry: Geometry) -> Tensor:
        """States before any message [N, K, C]: element, charge and multiplicity at l = 0."""
        charge = self.charge(geometry.charge + self.max_charge)  # from -max_charge, rows from 0
        of_molecule = charge + self.spin(geometry.spin_multiplicity)
        by_atom = of_molecule.index_select(0, geometry.molecule)
        scalar = self.element(geometry.atomic_numbers) + by_atom
        higher = scalar.new_zeros(scalar.shape[0], (self.layout.lmax + 1) ** 2 - 1, scalar.shape[1])
        return torch.cat([scalar.unsqueeze(1), higher], dim=1)

    def _edges(self, geometry: Geometry) -> Edges:
        """This process's share of the edges."""
        index, numbers = geometry.edge_index, geometry.atomic_numbers
        if self.pair_world_size > 1:
            # Every n-th, not a block: edges are listed molecule by molecule.
            index = index[:, self.pair_rank :: self.pair_world_size]
        first, second = index
        positions = geometry.positions
        vector = positions.index_select(0, second) - positions.index_select(0, first)
        distance = vector.norm(dim=-1)
        scalars = self.edge_scalars(
            numbers.index_select(0, first), numbers.index_select(0, second), distance
        )
        return Edges(index, vector, scalars, envelope(distance, self.cutoff).to(scalars.dtype))

    def _total(self, function: Callable[[Edges], Tensor], chunks: Sequence[Edges]) -> Tensor:
        """Sum over all edges of a batch, those of other processes included."""
        over_chunks = sum_chunks_recomputed if self.chunk else sum_chunks
        return self.all_reduce(over_chunks(function, chunks))


def _of_one_process(total: Tensor) -> Tensor:
    """Sum over processes where there is one; a function with a name, so that models pickle."""
    return total
