"""HELM: trunk, pair tower and Hamiltonian heads (arXiv:2510.00224).

Unlike the paper: both cutoffs are smooth; a head evaluates only the irreps that an element pair
has; each unordered pair is evaluated once, in features that are even or odd under exchange of its
atoms, so that H is Hermitian and permutes with the atoms exactly.

Axes: N atoms, P unordered pairs, K = (lmax+1)^2 coefficients, C channels, Y node states read.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from helm_scale.basis import elements, layout
from helm_scale.basis.elements import MAX_Z
from helm_scale.config import ModelConfig
from helm_scale.model import flow
from helm_scale.model.chunks import loss_over_chunks, sum_chunks
from helm_scale.model.conditioning import FlowPoint, NodeConditions, PairConditions, conditions_of
from helm_scale.model.heads.hamiltonian import BlockHead, PairHead
from helm_scale.model.pair_tower import PairTower
from helm_scale.model.radial import envelope
from helm_scale.model.trunk import NodeLayer, Trunk
from helm_scale.types import GraphBatch, PairChunk, Segment

PairMeasure = Callable[[PairChunk, Tensor], Tensor]


class Prediction(NamedTuple):
    """Packed irreps of H - H0 - reference, Hartree, laid out as GraphBatch.onsite_target and
    offsite_target.

    Where pairs are measured, `offsite` holds the sums of the measure instead, which needs the
    memory of one chunk only.
    """

    onsite: Tensor
    offsite: Tensor


class PairHalf(nn.Module):
    """Pair tower and off-site head, walked chunk by chunk: memory does not grow with the number of
    pairs."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.basis, self.cutoff = config.basis, config.pair_cutoff
        self.tower = PairTower(config)
        self.head = PairHead(config.lmax, config.pair_width * config.channels, config.basis)
        self.conditions = PairConditions(config) if conditions_of(config) else None
        self.chunk = 0  # pairs at once, an execution setting; 0: all, as one ordinary graph
        self.pair_rank, self.pair_world_size = (
            0,
            1,
        )  # whose share of the pairs; an execution setting

    def forward(
        self,
        states_YNKC: Tensor,
        scale: Tensor,
        batch: GraphBatch,
        measure: PairMeasure | None,
        point: FlowPoint | None = None,
    ) -> Tensor:
        """Packed irreps of all pairs, flat; or, with a measure, its sums over all pairs (only the
        first has a gradient)."""
        chunks = batch.pair_chunks(
            self.chunk,
            lambda s: self._layout(s).size,
            rank=self.pair_rank,
            world_size=self.pair_world_size,
        )
        if measure is None:
            assert self.pair_world_size == 1, (
                "predictions are not gathered from the processes that share a molecule"
            )
            return torch.cat(
                [self._blocks(states_YNKC, scale, batch, chunk, point) for chunk in chunks]
            )

        def sums(states_YNKC: Tensor, chunk: PairChunk) -> Tensor:
            return measure(chunk, self._blocks(states_YNKC, scale, batch, chunk, point))

        if self.chunk and torch.is_grad_enabled():
            return loss_over_chunks(sums, chunks, states_YNKC, list(self.parameters()))
        return sum_chunks(lambda chunk: sums(states_YNKC, chunk), chunks)

    def _blocks(
        self,
        states_YNKC: Tensor,
        scale: Tensor,
        batch: GraphBatch,
        chunk: PairChunk,
        point: FlowPoint | None,
    ) -> Tensor:
        """Packed irreps of a chunk, flat."""
        index = batch.pair_index[:, chunk.start : chunk.stop]
        added = self.conditions(batch, point, chunk) if self.conditions else None
        z = self.tower(states_YNKC.unbind(), batch.atomic_numbers, batch.positions, index, added)
        distance = (
            batch.positions.index_select(0, index[1]) - batch.positions.index_select(0, index[0])
        ).norm(dim=-1)
        smooth = (envelope(distance, self.cutoff) * scale).to(states_YNKC)
        blocks = self.head(z, chunk.segments, self._layout)
        cut = smooth[:, None].split([s.count for s in chunk.segments])
        parts = [(block * factor).flatten() for block, factor in zip(blocks, cut, strict=False)]
        return torch.cat(parts or [blocks[0].flatten()])

    def _layout(self, segment: Segment) -> layout.BlockLayout:
        return layout.offsite_layout(self.basis, segment.first, segment.second)


class Helm(nn.Module):
    """Predicts the residual Hamiltonian of every molecule of a batch.

    Property: H(Rx) = D(R) H(x) D(R)^T, H(permuted) = permuted H, H = H^T to the last bit.

    Raises:
        ValueError: lmax is too low for the basis, or mmax exceeds lmax.
    """

    reference: Tensor
    output_scale: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        highest = max(layout.head_multiplicities(config.basis, onsite=False))
        if highest > config.lmax:
            raise ValueError(
                f"model.lmax: got {config.lmax}, but blocks of {config.basis} have irreps up to L = {highest}"
            )
        self.config = config
        self.trunk = Trunk(config)
        self.onsite_head = BlockHead(
            config.lmax, config.channels, layout.head_multiplicities(config.basis, onsite=True)
        )
        self.pairs = PairHalf(config)
        self.conditions = NodeConditions(config) if conditions_of(config) else None
        self.flow_steps = config.flow_steps  # of a prediction; may be changed afterwards
        self.to(getattr(torch, config.dtype))
        widest = max(len(self._onsite(z).rows[0]) for z in elements.supported(config.basis))
        self.register_buffer("reference", torch.zeros(MAX_Z + 1, widest, dtype=torch.float64))
        self.register_buffer("output_scale", torch.ones((), dtype=torch.float64))

    def set_reference(self, reference: Tensor, output_scale: float) -> None:
        """Set the on-site l = 0 reference [84, widest] (Hartree) per element and the global scale
        (Hartree)."""
        self.reference.copy_(reference)
        self.output_scale.fill_(output_scale)

    def set_memory(self, pair_chunk: int, recompute: str, message_chunk: int) -> None:
        """Choose what is held for the backward pass (see ExecutionConfig); no number depends on
        it."""
        self.pairs.chunk = pair_chunk
        self.trunk.set_memory(recompute, message_chunk)

    def compile_layers(self, backend: str = "inductor") -> None:
        """Compile what works on edges and pairs, for any number of them: one graph per kind of
        layer; no number depends on it."""
        for layer in self.trunk.layers:
            cast(NodeLayer, layer).messages.compile(dynamic=True, fullgraph=True, backend=backend)
        for layer in self.pairs.tower.layers:
            layer.compile(dynamic=True, fullgraph=True, backend=backend)

    def set_pair_shard(
        self, rank: int, world_size: int, *, all_reduce: Callable[[Tensor], Tensor]
    ) -> None:
        """Work on one rank's share of the edges and pairs of every batch.

        Sums over pairs are then those of the share; node states are whole.

        Args:
            all_reduce: sum of a tensor over the ranks that share a batch, and the same sum of its
                gradients in the backward pass.
        """
        self.pairs.pair_rank, self.pairs.pair_world_size = rank, world_size
        self.trunk.pair_rank, self.trunk.pair_world_size = rank, world_size
        self.trunk.all_reduce = all_reduce

    def sharding_units(self) -> list[nn.Module]:
        """Submodules that a sharding engine wraps one by one before the root."""
        return [self.trunk.edge_degree, *self.trunk.layers, self.onsite_head, self.pairs]

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Matrices between hidden features, which Muon orthogonalises; embeddings, heads and
        vectors are left out."""
        skipped = {id(m.weight) for m in self.modules() if isinstance(m, nn.Embedding)}
        inside = [
            p
            for part in (self.trunk, self.pairs.tower)
            for p in part.parameters()
            if id(p) not in skipped
        ]
        return [p for p in inside if p.ndim == 2 and min(p.shape) > 1]

    def forward(
        self,
        batch: GraphBatch,
        pair_measure: PairMeasure | None = None,
        start: FlowPoint | None = None,
    ) -> Prediction:
        """Predict packed irreps of all on-site blocks, and of all pairs within the Hamiltonian
        cutoff or a measure of them.

        With a prior: in training mode, where there are labels, from a random point of the path to
        them; otherwise by `flow_steps` Euler steps from `start` at time 0, by default the prior's
        draw for the molecules' keys and batch.noise_seed.
        """
        if self.config.prior == "off":
            return self._predict(batch, pair_measure, None)
        if self.training and batch.onsite_target is not None and batch.offsite_target is not None:
            end = batch.onsite_target - self.reference_onsite(batch), batch.offsite_target
            return self._predict(
                batch, pair_measure, flow.training_point(self.config, batch, *self._scaled(*end))
            )
        point = flow.prior_point(self.config, batch) if start is None else start
        for _ in range(self.flow_steps - 1):
            point = flow.euler(
                point, *self._scaled(*self._predict(batch, None, point)), 1 / self.flow_steps
            )
        return self._predict(batch, pair_measure, point)

    def _scaled(self, onsite: Tensor, offsite: Tensor) -> tuple[Tensor, Tensor]:
        """Packed irreps over the output scale, in the dtype of the features."""
        dtype = getattr(torch, self.config.dtype)
        return (onsite / self.output_scale).to(dtype), (offsite / self.output_scale).to(dtype)

    def _predict(
        self, batch: GraphBatch, pair_measure: PairMeasure | None, point: FlowPoint | None
    ) -> Prediction:
        """One pass of the network, from a point of a flow where there is one."""
        states = self.trunk.states(
            batch.positions, batch.atomic_numbers, batch.edge_index, batch.molecule, batch.charge, batch.spin_multiplicity,
            self.conditions(batch, point) if self.conditions else None,
        )  # fmt: skip
        y, read = (
            states[-1],
            torch.stack(states if self.config.pair_inputs == "each" else states[-1:]),
        )
        onsite = self.onsite_head(
            y.index_select(0, batch.atom_order),
            batch.atom_segments,
            lambda s: self._onsite(s.first),
        )
        scale = self.output_scale.to(y.dtype)
        return Prediction(
            torch.cat([x.flatten() for x in onsite]) * scale,
            self.pairs(read, scale, batch, pair_measure, point),
        )

    def reference_onsite(self, batch: GraphBatch) -> Tensor:
        """What completes Prediction.onsite: flat float64 reference (Hartree), laid out like it."""
        parts = [self.reference.new_zeros(0)]
        for segment in batch.atom_segments:
            kind = self._onsite(segment.first)
            row = self.reference.new_zeros(kind.size)
            count = len(kind.rows[0])
            row[:count] = self.reference[segment.first, :count]
            parts.append(row.repeat(segment.count))
        return torch.cat(parts)

    def _onsite(self, atomic_number: int) -> layout.BlockLayout:
        return layout.onsite_layout(self.config.basis, atomic_number, self.config.parity)
