"""HELM: trunk, pair tower and Hamiltonian heads (arXiv:2510.00224).

Unlike the paper: both cutoffs are smooth; a head evaluates only the irreps that an element pair
has; each unordered pair is evaluated once, in features that are even or odd under exchange of its
atoms, so that H is Hermitian and permutes with the atoms exactly.

Axes: N atoms, P unordered pairs, K = (lmax+1)^2 coefficients, C channels, Y node states read.
"""

from collections.abc import Callable
from functools import partial
from typing import cast, overload

import torch
from torch import Tensor, nn

from helm_scale.basis import elements, layout, shells, slots
from helm_scale.basis.elements import MAX_Z
from helm_scale.config import ModelConfig
from helm_scale.model import flow
from helm_scale.model.chunks import loss_over_chunks, sum_chunks
from helm_scale.model.conditioning import FlowPoint, NodeConditions, PairConditions, conditions_of
from helm_scale.model.heads.hamiltonian import BlockHead, PairHead
from helm_scale.model.pair_tower import PairTower
from helm_scale.model.radial import envelope
from helm_scale.model.trunk import NodeLayer, Trunk
from helm_scale.reading.domain import TrainingDomain
from helm_scale.types import GraphBatch, PairChunk, PairLoss, PairSums, Prediction


class PairBranch(nn.Module):
    """Pair tower and off-site head, evaluated chunk by chunk.

    With a loss, memory does not grow with the number of pairs.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.basis, self.cutoff = config.basis, config.pair_cutoff
        self.tower = PairTower(config)
        self.head = PairHead(config.lmax, config.pair_width * config.channels, config.basis)
        self.conditions = PairConditions(config) if conditions_of(config) else None
        # Execution settings, no number depends on them. Pairs at once; 0: all, as one graph.
        self.chunk = 0
        # Where several processes share the pairs of a batch, this one works on its share.
        self.pair_rank, self.pair_world_size = 0, 1

    def forward(
        self,
        states_YNKC: Tensor,
        batch: GraphBatch,
        *,
        scale: Tensor,
        point: FlowPoint | None,
        loss: PairLoss | None,
    ) -> Tensor:
        """Packed irreps of all pairs, flat; or, with a loss, its sums over this process's pairs.

        Args:
            scale: factor of the irreps, Hartree. point: of a flow, where there is one.
        """
        chunks = batch.pair_chunks(
            self.chunk,
            lambda s: shells.nao(self.basis, s.first) * shells.nao(self.basis, s.second),
            rank=self.pair_rank,
            world_size=self.pair_world_size,
        )
        irreps = partial(self._irreps, batch=batch, scale=scale, point=point)
        if loss is None:
            assert self.pair_world_size == 1, "predictions of shared pairs are not gathered"
            return torch.cat([irreps(states_YNKC, chunk) for chunk in chunks])

        def sums(states_YNKC: Tensor, chunk: PairChunk) -> Tensor:
            return loss(chunk, irreps(states_YNKC, chunk))

        # Without gradients nothing is kept for a backward pass, and a plain sum does the same.
        if self.chunk and torch.is_grad_enabled():
            return loss_over_chunks(sums, chunks, states_YNKC, list(self.parameters()))
        return sum_chunks(partial(sums, states_YNKC), chunks)

    def _irreps(
        self,
        states_YNKC: Tensor,
        chunk: PairChunk,
        *,
        batch: GraphBatch,
        scale: Tensor,
        point: FlowPoint | None,
    ) -> Tensor:
        """Packed irreps of a chunk, flat; smooth at the cutoff."""
        index = batch.pair_index[:, chunk.start : chunk.stop]
        added = self.conditions(batch, point, chunk) if self.conditions else None
        z = self.tower(states_YNKC.unbind(), batch.geometry, index, added)
        first, second = (batch.positions.index_select(0, atoms) for atoms in index)
        # On irreps, not on features: nothing after it can bring a jump back at the cutoff.
        smooth = (envelope((second - first).norm(dim=-1), self.cutoff) * scale).to(states_YNKC)
        rows = self.head(z) * smooth[:, None]
        table = slots.pair_slots(self.basis, rows.device)
        places = table.places(batch.pair_kinds(chunk), chunk.size)
        return rows.flatten().index_select(0, places)


class Helm(nn.Module):
    """Predicts the residual Hamiltonian of every molecule of a batch.

    Property: H(Rx) = D(R) H(x) D(R)^T, H(permuted) = permuted H, H = H^T to the last bit.

    Attributes:
        training_domain: what the weights were trained on; None: unknown, or untrained.
    Raises:
        ValueError: lmax is too low for the basis, or mmax exceeds lmax.
    """

    reference: Tensor
    output_scale: Tensor
    training_domain: TrainingDomain | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        highest = max(layout.head_multiplicities(config.basis, onsite=False))
        if highest > config.lmax:
            raise ValueError(
                f"model.lmax: got {config.lmax}, but blocks of {config.basis} have irreps up to"
                f" L = {highest}"
            )
        self.config = config
        self.trunk = Trunk(config)
        self.onsite_head = BlockHead(
            config.lmax, config.channels, layout.head_multiplicities(config.basis, onsite=True)
        )
        self.pairs = PairBranch(config)
        self.conditions = NodeConditions(config) if conditions_of(config) else None
        self.flow_steps = config.flow_steps  # of a prediction; may be changed afterwards
        self.to(getattr(torch, config.dtype))
        # References stay float64 whatever the weights are: on-site blocks of heavy atoms reach
        # hundreds of Hartree, of which float32 would lose the microhartrees.
        widest = max(len(self._onsite(z).rows[0]) for z in elements.supported(config.basis))
        self.register_buffer("reference", torch.zeros(MAX_Z + 1, widest, dtype=torch.float64))
        self.register_buffer("output_scale", torch.ones((), dtype=torch.float64))

    def set_reference(self, reference: Tensor, output_scale: float) -> None:
        """Set the on-site l = 0 reference [MAX_Z + 1, widest] and the global scale, Hartree."""
        self.reference.copy_(reference)
        self.output_scale.fill_(output_scale)

    def set_memory(self, pair_chunk: int, recompute: str, message_chunk: int) -> None:
        """Choose what is held for the backward pass; no number depends on it.

        Args:
            pair_chunk, recompute, message_chunk: as in ExecutionConfig.
        """
        self.pairs.chunk = pair_chunk
        self.trunk.set_memory(recompute, message_chunk)

    def compile_layers(self, backend: str = "inductor") -> None:
        """Compile what works on edges and pairs, for any number of them.

        One graph serves all layers of a kind; no number depends on it.
        """
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
        """Matrices between hidden features, which Muon orthogonalises.

        Embeddings, heads and vectors are left out.
        """
        # By id: `in` would compare tensors element by element.
        embeddings = {id(m.weight) for m in self.modules() if isinstance(m, nn.Embedding)}
        inside = [*self.trunk.parameters(), *self.pairs.tower.parameters()]
        return [p for p in inside if p.ndim == 2 and min(p.shape) > 1 and id(p) not in embeddings]

    @overload
    def forward(self, batch: GraphBatch) -> Prediction: ...

    @overload
    def forward(self, batch: GraphBatch, loss: PairLoss) -> PairSums: ...

    def forward(self, batch: GraphBatch, loss: PairLoss | None = None) -> Prediction | PairSums:
        """`predict`; or, given a loss over pairs, `pair_loss`.

        Wrappers (DDP, FSDP2, DeepSpeed) act on this call alone, so whatever may be wrapped is
        called here.
        """
        return self.predict(batch) if loss is None else self.pair_loss(batch, loss)

    def predict(self, batch: GraphBatch, start: FlowPoint | None = None) -> Prediction:
        """Predict packed irreps of all on-site blocks, and of all pairs within the cutoff.

        A flow takes `flow_steps` Euler steps from `start` at time 0, by default from the prior's
        noise for the molecules' keys and batch.noise_seed.
        """
        return Prediction(*self._run(batch, self._point(batch, start), None))

    def pair_loss(self, batch: GraphBatch, loss: PairLoss) -> PairSums:
        """Predict, and sum a loss over the pairs chunk by chunk, which needs memory for one."""
        return PairSums(*self._run(batch, self._point(batch, None), loss))

    def _point(self, batch: GraphBatch, start: FlowPoint | None) -> FlowPoint | None:
        """Where on its path a flow is when the network is run for a result.

        In training, where there are labels, at a random place; else after all steps but the last.
        """
        config = self.config
        if config.prior == "off":
            return None
        if self.training and batch.onsite_target is not None and batch.offsite_target is not None:
            end = batch.onsite_target - self.reference_onsite(batch), batch.offsite_target
            return flow.training_point(config, batch, *self._scaled(*end))
        # The last of the steps is the pass that the caller runs, which ends at its prediction.
        point = flow.prior_point(config, batch) if start is None else start
        for _ in range(self.flow_steps - 1):
            end = self._scaled(*self._run(batch, point, None))
            point = flow.euler(point, *end, 1 / self.flow_steps)
        return point

    def _scaled(self, onsite: Tensor, offsite: Tensor) -> tuple[Tensor, Tensor]:
        """Packed irreps over the output scale, in the dtype of the features."""
        dtype = getattr(torch, self.config.dtype)
        return (onsite / self.output_scale).to(dtype), (offsite / self.output_scale).to(dtype)

    def _run(
        self, batch: GraphBatch, point: FlowPoint | None, loss: PairLoss | None
    ) -> tuple[Tensor, Tensor]:
        """One pass of the network: irreps of on-site blocks, and irreps or sums of pairs."""
        added = self.conditions(batch, point) if self.conditions else None
        states = self.trunk.states(batch.geometry, added)
        read = torch.stack(states if self.config.pair_inputs == "each" else states[-1:])
        y_sorted = states[-1].index_select(0, batch.atom_order)
        rows = self.onsite_head(y_sorted)
        places = self._onsite_slots(batch).places(batch.atom_kinds, self._onsite_size(batch))
        # Heads write irreps of order 1 whatever the unit; the scale is that of the training labels.
        scale = self.output_scale.to(y_sorted.dtype)
        return (
            rows.flatten().index_select(0, places) * scale,
            self.pairs(read, batch, scale=scale, point=point, loss=loss),
        )

    def reference_onsite(self, batch: GraphBatch) -> Tensor:
        """Mean on-site irreps of the elements, which complete Prediction.onsite.

        Flat float64, Hartree, laid out like it.
        """
        table, kinds, total = self._onsite_slots(batch), batch.atom_kinds, self._onsite_size(batch)
        block, number = table.blocks(kinds, total)
        widest = self.reference.shape[1]
        row = kinds.index_select(0, block) * widest
        reference = self.reference.flatten().index_select(0, row + number.clamp(max=widest - 1))
        # an atom's irreps of degree 0 come first, as in the table
        scalars = layout.head_multiplicities(self.config.basis, onsite=True)[0]
        column = table.places(kinds, total) - block * table.width
        return torch.where(column < scalars, reference, 0.0)

    def _onsite_slots(self, batch: GraphBatch) -> slots.Slots:
        return slots.atom_slots(self.config.basis, self.config.parity, batch.positions.device)

    def _onsite_size(self, batch: GraphBatch) -> int:
        """Number of packed irreps of all on-site blocks."""
        return sum(s.count * self._onsite(s.first).size for s in batch.atom_segments)

    def _onsite(self, atomic_number: int) -> layout.BlockLayout:
        return layout.onsite_layout(self.config.basis, atomic_number, self.config.parity)
