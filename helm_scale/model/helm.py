"""HELM: trunk, pair tower and Hamiltonian heads (arXiv:2510.00224).

Unlike the paper: both cutoffs are smooth; a head evaluates only the irreps that an element pair has; each unordered
pair has one prediction, lower atomic number first, and the mean of both directions for like elements, so that H is
Hermitian and permutes with the atoms exactly.

Axes: N atoms, P unordered pairs, K = (lmax+1)^2 coefficients, C channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from helm_scale.basis import elements, layout
from helm_scale.batch import GraphBatch, Segment
from helm_scale.config import ModelConfig
from helm_scale.model.heads import BlockHead, EnergyHead
from helm_scale.model.pair_tower import PairTower
from helm_scale.model.radial import envelope
from helm_scale.model.trunk import NUM_ELEMENTS, Trunk


class Prediction(NamedTuple):
    """Packed irreps of H - H0 - reference, Hartree, laid out as GraphBatch.onsite_target and offsite_target."""

    onsite: Tensor
    offsite: Tensor


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
        multiplicities = layout.head_multiplicities(config.basis, onsite=False)
        if max(multiplicities) > config.lmax:
            raise ValueError(f"model.lmax: got {config.lmax}, but blocks of {config.basis} have irreps up to L = {max(multiplicities)}")
        self.config = config
        self.trunk = Trunk(config)
        self.tower = PairTower(config)
        self.onsite_head = BlockHead(config.lmax, config.channels, layout.head_multiplicities(config.basis, onsite=True))
        self.offsite_head = BlockHead(config.lmax, config.channels, multiplicities)
        self.to(getattr(torch, config.dtype))
        widest = max(len(self._onsite(z).rows[0]) for z in elements.supported(config.basis))
        self.register_buffer("reference", torch.zeros(NUM_ELEMENTS, widest, dtype=torch.float64))
        self.register_buffer("output_scale", torch.ones((), dtype=torch.float64))

    def set_reference(self, reference: Tensor, output_scale: float) -> None:
        """Set the on-site l = 0 reference [84, widest] (Hartree) per element and the global scale (Hartree)."""
        self.reference.copy_(reference)
        self.output_scale.fill_(output_scale)

    def sharding_units(self) -> list[nn.Module]:
        """Submodules that a sharding engine wraps one by one before the root."""
        return [*self.trunk.layers, self.tower, self.onsite_head, self.offsite_head]

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Matrices between hidden features, which Muon orthogonalises; embeddings, heads and vectors are left out."""
        skipped = {id(m.weight) for m in self.modules() if isinstance(m, nn.Embedding)}
        return [
            p for part in (self.trunk, self.tower) for p in part.parameters() if p.ndim == 2 and min(p.shape) > 1 and id(p) not in skipped
        ]

    def forward(self, batch: GraphBatch) -> Prediction:
        """Predict packed irreps of all on-site blocks and of all pairs within the Hamiltonian cutoff."""
        y = self.trunk(
            batch.positions, batch.atomic_numbers, batch.edge_index, batch.molecule, batch.charge, batch.spin_multiplicity
        )  # fmt: skip
        onsite = self.onsite_head(y.index_select(0, batch.atom_order), batch.atom_segments, lambda s: self._onsite(s.first))
        scale = self.output_scale.to(y.dtype)
        return Prediction(torch.cat([x.flatten() for x in onsite]) * scale, self._offsite(y, batch) * scale)

    def reference_onsite(self, batch: GraphBatch) -> Tensor:
        """What completes Prediction.onsite: flat float64 reference (Hartree), laid out like it."""
        parts = [self.reference.new_zeros(0)]
        for segment in batch.atom_segments:
            kind = self._onsite(segment.first)
            row = self.reference.new_zeros(kind.size)
            count = len(kind.rows[0])
            row[:count] = self.reference[segment.first, :count]
            parts.append(row.repeat(segment.stop - segment.start))
        return torch.cat(parts)

    def _onsite(self, atomic_number: int) -> layout.BlockLayout:
        return layout.onsite_layout(self.config.basis, atomic_number, self.config.parity)

    def _offsite(self, y_NKC: Tensor, batch: GraphBatch) -> Tensor:
        """Both directions of like pairs follow the single direction of all pairs; their mean is kept."""
        like = [s for s in batch.pair_segments if s.first == s.second]
        mirrored = torch.cat([batch.pair_index[:, :0], *[batch.pair_index[:, s.start : s.stop].flip(0) for s in like]], dim=1)
        start, segments = batch.pair_index.shape[1], list(batch.pair_segments)
        for s in like:
            segments.append(Segment(s.first, s.second, start, start + s.stop - s.start))
            start += s.stop - s.start
        index = torch.cat([batch.pair_index, mirrored], dim=1)
        z = self.tower(y_NKC, batch.atomic_numbers, batch.positions, index)
        blocks = self.offsite_head(z, segments, lambda s: layout.offsite_layout(self.config.basis, s.first, s.second))
        mirror_of = dict(zip((s.first for s in like), blocks[len(batch.pair_segments) :], strict=False))
        merged = []
        first, second = batch.pair_index
        distance = (batch.positions.index_select(0, second) - batch.positions.index_select(0, first)).norm(dim=-1)
        smooth = envelope(distance, self.config.pair_cutoff).to(y_NKC)
        for s, block in zip(batch.pair_segments, blocks, strict=False):
            both = self._mean(block, mirror_of[s.first], s.first) if s.first == s.second else block
            merged.append((both * smooth[s.start : s.stop, None]).flatten())
        return torch.cat(merged or [blocks[0].flatten()])

    def _mean(self, forward_BS: Tensor, backward_BS: Tensor, atomic_number: int) -> Tensor:
        index, sign = layout.transposition(self.config.basis, atomic_number)
        turned = backward_BS.index_select(1, torch.from_numpy(index).to(backward_BS.device))
        return (forward_BS + turned * torch.from_numpy(sign).to(backward_BS)) / 2


class EnergyModel(nn.Module):
    """Total energy from the trunk alone: per-element reference energies plus a linear head."""

    reference: Tensor
    output_scale: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(config)
        self.head = EnergyHead(config.channels)
        self.to(getattr(torch, config.dtype))
        self.register_buffer("reference", torch.zeros(NUM_ELEMENTS, dtype=torch.float64))
        self.register_buffer("output_scale", torch.ones((), dtype=torch.float64))

    def forward(self, batch: GraphBatch) -> Tensor:
        """Energies [B], float64 Hartree."""
        return self.energies(self.features(batch), batch)

    def features(self, batch: GraphBatch) -> Tensor:
        """Node features [N, K, C]."""
        return self.trunk(batch.positions, batch.atomic_numbers, batch.edge_index, batch.molecule, batch.charge, batch.spin_multiplicity)

    def energies(self, y_NKC: Tensor, batch: GraphBatch) -> Tensor:
        """Energies [B], float64 Hartree, from node features, of which degree 0 (row 0) counts."""
        learned = self.head(y_NKC, batch.molecule, batch.num_molecules).double() * self.output_scale
        return learned.index_add(0, batch.molecule, self.reference[batch.atomic_numbers])
