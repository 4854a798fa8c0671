"""Energies from the trunk alone: per-element reference energies plus a head on node states.

Every head is a linear one on invariants of an atom, plus nothing ("linear"), a perceptron on them
("mlp"), or one more message layer on the last states ("layer"). Invariants are the l = 0 channels,
as in the paper, or these and the mean squares
over the orders of every degree and channel: pretraining on Hamiltonians puts much of what it learns
into l > 0, which on-site blocks need. Heads may read the last node states or those of every layer.

Axes: N atoms, B molecules, E edges, Y node states read, K = (lmax+1)^2 coefficients, C channels, F
invariants.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from helm_scale.basis.elements import MAX_Z
from helm_scale.config import HeadConfig, ModelConfig
from helm_scale.irreps.so2 import degree_of_coefficient
from helm_scale.model.chunks import sum_chunks
from helm_scale.model.equivariant import DegreeNorm
from helm_scale.model.radial import PairScalars, envelope
from helm_scale.model.trunk import Edges, NodeLayer, Trunk
from helm_scale.types import GraphBatch


class EnergyHead(nn.Module):
    """E = sum_i w^T x_i of invariants x_i; with x_i = y_i,(l=0) that of HELM (arXiv:2510.00224)."""

    def __init__(self, config: ModelConfig, head: HeadConfig) -> None:
        super().__init__()
        self.lmax, self.norms = config.lmax, head.invariants == "norms"
        states = config.num_layers if head.reads == "each" else 1
        self.width = states * config.channels * (config.lmax + 2 if self.norms else 1)
        self.linear = nn.Linear(self.width, 1, bias=False)

    def read(self, states_YNKC: Tensor) -> Tensor:
        """What of the node states the head needs: invariants [N, F]."""
        return self._invariants(states_YNKC)

    def invariants(self, read: Tensor) -> Tensor:
        """Invariants [N, F] in what is read."""
        return read

    def forward(self, read: Tensor, batch: GraphBatch) -> Tensor:
        """Energy of every atom in the head's own scale: [N]."""
        return self.linear(self.invariants(read)).squeeze(-1)  # type: ignore[no-any-return]

    def outputs(self) -> list[nn.Linear]:
        """The maps whose weights are zero in a head that adds nothing."""
        return [self.linear]

    def _invariants(self, states_YNKC: Tensor) -> Tensor:
        degrees = states_YNKC.split([2 * degree + 1 for degree in range(self.lmax + 1)], dim=2)
        parts = [degrees[0].squeeze(2)] + [x.square().mean(dim=2) for x in degrees if self.norms]
        return torch.cat(parts, dim=2).transpose(0, 1).flatten(1)


class PerceptronHead(EnergyHead):
    """The linear head plus a perceptron with one hidden layer on the same invariants."""

    def __init__(self, config: ModelConfig, head: HeadConfig) -> None:
        super().__init__(config, head)
        self.hidden = nn.Linear(self.width, config.channels)
        self.out = nn.Linear(config.channels, 1, bias=False)

    def forward(self, read: Tensor, batch: GraphBatch) -> Tensor:
        """Energy of every atom in the head's own scale: [N]."""
        hidden = nn.functional.silu(self.hidden(self.invariants(read)))
        return super().forward(read, batch) + self.out(hidden).squeeze(-1)

    def outputs(self) -> list[nn.Linear]:
        """The maps whose weights are zero in a head that adds nothing."""
        return [self.linear, self.out]


class LayerHead(EnergyHead):
    """The linear head plus one more message layer on the last node states, within the trunk's
    cutoff."""

    def __init__(self, config: ModelConfig, head: HeadConfig) -> None:
        super().__init__(config, head)
        self.cutoff = config.trunk_cutoff
        self.edge_scalars = PairScalars(
            MAX_Z + 1, config.channels, config.trunk_cutoff, config.radial_functions
        )
        self.layer = NodeLayer(config, self.edge_scalars.width)
        self.norm = DegreeNorm(degree_of_coefficient(config.lmax), config.channels)
        self.out = nn.Linear(config.channels, 1, bias=False)

    def read(self, states_YNKC: Tensor) -> Tensor:
        """All degrees: [N, Y, K, C]."""
        return states_YNKC.transpose(0, 1)

    def invariants(self, read: Tensor) -> Tensor:
        """Invariants [N, F] in what is read."""
        return self._invariants(read.transpose(0, 1))

    def forward(self, read: Tensor, batch: GraphBatch) -> Tensor:
        """Energy of every atom in the head's own scale: [N]."""
        first, second = batch.edge_index
        vector = batch.positions.index_select(0, second) - batch.positions.index_select(0, first)
        distance = vector.norm(dim=-1)
        scalars = self.edge_scalars(
            batch.atomic_numbers[first], batch.atomic_numbers[second], distance
        )
        edges = Edges(
            batch.edge_index, vector, scalars, envelope(distance, self.cutoff).to(scalars)
        )
        states = self.norm(self.layer(read[:, -1], [edges], sum_chunks))
        return super().forward(read, batch) + self.out(states[:, 0]).squeeze(-1)

    def outputs(self) -> list[nn.Linear]:
        """The maps whose weights are zero in a head that adds nothing."""
        return [self.linear, self.out]


HEADS = {"linear": EnergyHead, "mlp": PerceptronHead, "layer": LayerHead}


class EnergyModel(nn.Module):
    """Total energy of every molecule; forces are its exact gradient.

    Property: E(Rx + t) = E(x), E(permuted) = E, and energies of molecules beyond the cutoff of each
    other add up.
    """

    reference: Tensor
    output_scale: Tensor

    def __init__(self, config: ModelConfig, head: HeadConfig | None = None) -> None:
        super().__init__()
        self.config, self.head_config = config.backbone(), head or HeadConfig()
        self.trunk = Trunk(config)
        self.head = HEADS[self.head_config.kind](config, self.head_config)
        self.to(getattr(torch, config.dtype))
        self.register_buffer("reference", torch.zeros(MAX_Z + 1, dtype=torch.float64))
        self.register_buffer("output_scale", torch.ones((), dtype=torch.float64))

    def forward(self, batch: GraphBatch) -> Tensor:
        """Energies [B], float64 Hartree."""
        return self.energies(self.read(batch), batch)

    def energy_and_forces(
        self, batch: GraphBatch, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Energies [B], float64 Hartree, and forces [N, 3], float64 Hartree/Angstrom, by one
        backward pass.

        Args:
            create_graph: keep what a loss on forces needs.
        """
        with torch.enable_grad():
            positions = batch.positions.detach().requires_grad_()
            energy = self(replace(batch, positions=positions))
            (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=create_graph)
        return energy, -gradient

    def features(self, batch: GraphBatch) -> Tensor:
        """Last node states [N, K, C]."""
        return self._states(batch)[-1]

    def read(self, batch: GraphBatch) -> Tensor:
        """What the head reads of the node states, atom by atom; while the trunk is frozen it can be
        kept."""
        states = self._states(batch)
        return self.head.read(
            torch.stack(states if self.head_config.reads == "each" else states[-1:])
        )

    def energies(self, read: Tensor, batch: GraphBatch) -> Tensor:
        """Energies [B], float64 Hartree, from what the head reads."""
        learned = (self.head(read, batch).double() * self.output_scale) + self.reference[
            batch.atomic_numbers
        ]
        return learned.new_zeros(batch.num_molecules).index_add(0, batch.molecule, learned)

    def _states(self, batch: GraphBatch) -> list[Tensor]:
        return self.trunk.states(
            batch.positions,
            batch.atomic_numbers,
            batch.edge_index,
            batch.molecule,
            batch.charge,
            batch.spin_multiplicity,
        )
