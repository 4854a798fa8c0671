"""Energies from the trunk alone: per-element reference energies plus a head on node states.

Every head is the paper's linear one on the l = 0 channels, plus nothing ("linear"), a perceptron on them ("mlp"), or one
more message layer on the last states ("layer"). Heads may read the last node states or those of every layer.

Axes: N atoms, B molecules, E edges, Y node states read, K = (lmax+1)^2 coefficients (1 where only degree 0 is read), C channels.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from helm_scale.batch import GraphBatch
from helm_scale.config import EnergyHeadConfig, ModelConfig
from helm_scale.irreps.so2 import degree_of_coefficient
from helm_scale.model.chunks import kept_sum
from helm_scale.model.equivariant import DegreeNorm
from helm_scale.model.radial import PairScalars, envelope
from helm_scale.model.trunk import NUM_ELEMENTS, Edges, NodeLayer, Trunk


class EnergyHead(nn.Module):
    """E = sum_i w^T y_i,(l=0) (HELM, arXiv:2510.00224)."""

    def __init__(self, config: ModelConfig, states: int) -> None:
        super().__init__()
        self.linear = nn.Linear(states * config.channels, 1, bias=False)

    def read(self, states_YNKC: Tensor) -> Tensor:
        """What of the node states the head needs: degree 0, [N, Y, 1, C]."""
        return states_YNKC[:, :, :1].transpose(0, 1)

    def forward(self, read_NYKC: Tensor, batch: GraphBatch) -> Tensor:
        """Energy of every atom in the head's own scale: [N]."""
        return self.linear(invariants(read_NYKC)).squeeze(-1)  # type: ignore[no-any-return]

    def outputs(self) -> list[nn.Linear]:
        """The maps whose weights are zero in a head that adds nothing."""
        return [self.linear]


class PerceptronHead(EnergyHead):
    """The linear head plus a perceptron with one hidden layer on the same channels."""

    def __init__(self, config: ModelConfig, states: int) -> None:
        super().__init__(config, states)
        self.hidden = nn.Linear(states * config.channels, config.channels)
        self.out = nn.Linear(config.channels, 1, bias=False)

    def forward(self, read_NYKC: Tensor, batch: GraphBatch) -> Tensor:
        """Energy of every atom in the head's own scale: [N]."""
        hidden = nn.functional.silu(self.hidden(invariants(read_NYKC)))
        return super().forward(read_NYKC, batch) + self.out(hidden).squeeze(-1)

    def outputs(self) -> list[nn.Linear]:
        """The maps whose weights are zero in a head that adds nothing."""
        return [self.linear, self.out]


class LayerHead(EnergyHead):
    """The linear head plus one more message layer on the last node states, within the trunk's cutoff."""

    def __init__(self, config: ModelConfig, states: int) -> None:
        super().__init__(config, states)
        self.cutoff = config.trunk_cutoff
        self.edge_scalars = PairScalars(NUM_ELEMENTS, config.channels, config.trunk_cutoff, config.radial_functions)
        self.layer = NodeLayer(config, self.edge_scalars.width)
        self.norm = DegreeNorm(degree_of_coefficient(config.lmax), config.channels)
        self.out = nn.Linear(config.channels, 1, bias=False)

    def read(self, states_YNKC: Tensor) -> Tensor:
        """All degrees: [N, Y, K, C]."""
        return states_YNKC.transpose(0, 1)

    def forward(self, read_NYKC: Tensor, batch: GraphBatch) -> Tensor:
        """Energy of every atom in the head's own scale: [N]."""
        first, second = batch.edge_index
        vector = batch.positions.index_select(0, second) - batch.positions.index_select(0, first)
        distance = vector.norm(dim=-1)
        scalars = self.edge_scalars(batch.atomic_numbers[first], batch.atomic_numbers[second], distance)
        edges = Edges(batch.edge_index, vector, scalars, envelope(distance, self.cutoff).to(scalars))
        states = self.norm(self.layer(read_NYKC[:, -1], [edges], kept_sum))
        return super().forward(read_NYKC, batch) + self.out(states[:, 0]).squeeze(-1)

    def outputs(self) -> list[nn.Linear]:
        """The maps whose weights are zero in a head that adds nothing."""
        return [self.linear, self.out]


HEADS = {"linear": EnergyHead, "mlp": PerceptronHead, "layer": LayerHead}


def invariants(read_NYKC: Tensor) -> Tensor:
    """Degree 0 of all node states that are read: [N, Y * C]."""
    return read_NYKC[:, :, 0].flatten(1)


class EnergyModel(nn.Module):
    """Total energy of every molecule; forces are its exact gradient.

    Property: E(Rx + t) = E(x), E(permuted) = E, and energies of molecules beyond the cutoff of each other add up.
    """

    reference: Tensor
    output_scale: Tensor

    def __init__(self, config: ModelConfig, head: EnergyHeadConfig | None = None) -> None:
        super().__init__()
        self.config, self.head_config = config.backbone(), head or EnergyHeadConfig()
        self.trunk = Trunk(config)
        self.head = HEADS[self.head_config.kind](config, config.num_layers if self.head_config.reads == "each" else 1)
        self.to(getattr(torch, config.dtype))
        self.register_buffer("reference", torch.zeros(NUM_ELEMENTS, dtype=torch.float64))
        self.register_buffer("output_scale", torch.ones((), dtype=torch.float64))

    def forward(self, batch: GraphBatch) -> Tensor:
        """Energies [B], float64 Hartree."""
        return self.energies(self.read(batch), batch)

    def energy_and_forces(self, batch: GraphBatch, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Energies [B], float64 Hartree, and forces [N, 3], float64 Hartree/Angstrom, by one backward pass.

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
        """What the head reads of the node states, [N, Y, K, C]; while the trunk is frozen it can be kept."""
        states = self._states(batch)
        return self.head.read(torch.stack(states if self.head_config.reads == "each" else states[-1:]))

    def energies(self, read_NYKC: Tensor, batch: GraphBatch) -> Tensor:
        """Energies [B], float64 Hartree, from what the head reads."""
        learned = (self.head(read_NYKC, batch).double() * self.output_scale) + self.reference[batch.atomic_numbers]
        return learned.new_zeros(batch.num_molecules).index_add(0, batch.molecule, learned)

    def _states(self, batch: GraphBatch) -> list[Tensor]:
        return self.trunk.states(
            batch.positions, batch.atomic_numbers, batch.edge_index, batch.molecule, batch.charge, batch.spin_multiplicity
        )
