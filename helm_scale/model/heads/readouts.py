"""Maps node states to the irreps of every atom that the head of a property asks for.

Every readout is a linear map of an atom's features, plus nothing ("linear"), a perceptron on its
invariants ("mlp"), or one more message layer on the last states ("layer"). Invariants are the l = 0
channels, as in the paper, or these and the mean squares over the orders of every degree and
channel: pretraining on Hamiltonians puts much of what it learns into l > 0, which on-site blocks
need. Irreps of degree l > 0 are made from the channels of that degree. Readouts may read the last
node states or those of every layer.

Axes: N atoms, E edges, Y node states read, K = (lmax+1)^2 coefficients, C channels, F features,
n irreps of one degree.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from helm_scale.basis.elements import MAX_Z
from helm_scale.config import HeadConfig, ModelConfig
from helm_scale.irreps.so2 import degree_of_coefficient
from helm_scale.model.chunks import sum_chunks
from helm_scale.model.equivariant import DegreeNorm
from helm_scale.model.heads.head import Irreps
from helm_scale.model.radial import PairScalars, envelope
from helm_scale.model.trunk import Edges, NodeLayer
from helm_scale.types import GraphBatch


class LinearByDegree(nn.ModuleDict):
    """One linear map for each degree l > 0, without bias, which would not turn."""

    def __init__(self, channels_in: int, counts: Mapping[int, int]) -> None:
        super().__init__(
            {
                str(degree): nn.Linear(channels_in, count, bias=False)
                for degree, count in counts.items()
            }
        )

    def forward(self, x: Irreps) -> Irreps:
        """{degree: [N, 2l+1, C_in]} -> {degree: [N, 2l+1, n]} of the degrees that have a map."""
        return {int(degree): linear(x[int(degree)]) for degree, linear in self.items()}


class LinearReadout(nn.Module):
    """x_i = w^T y_i of invariants, and of the channels of every degree l > 0 that is wanted.

    With one scalar of the l = 0 channels it is the energy head of HELM (arXiv:2510.00224).

    Raises:
        ValueError: lmax is below a degree that is wanted.
    """

    def __init__(
        self, config: ModelConfig, head_config: HeadConfig, irreps: Mapping[int, int]
    ) -> None:
        super().__init__()
        if max(irreps) > config.lmax:
            raise ValueError(
                f"model.lmax: got {config.lmax}, but the head reads irreps up to l = {max(irreps)}"
            )
        self.lmax, self.norms = config.lmax, head_config.invariants == "norms"
        self.channels = config.channels * (config.num_layers if head_config.reads == "each" else 1)
        self.width = self.channels * (config.lmax + 2 if self.norms else 1)
        # No bias: the reference per element says what an atom gives whatever its surroundings
        self.linear = nn.Linear(self.width, irreps[0], bias=False)
        self.higher = {degree: count for degree, count in irreps.items() if degree > 0}
        self.linear_higher = LinearByDegree(self.channels, self.higher)

    def select(self, states_YNKC: Tensor) -> Tensor:
        """What of the node states is read, flat: invariants, channels of the degrees l > 0."""
        by_degree = self._by_degree(states_YNKC)
        higher = [by_degree[degree].permute(1, 2, 0, 3).flatten(1) for degree in self.higher]
        return torch.cat([self._invariants(by_degree), *higher], dim=1)

    def features(self, selected: Tensor) -> Irreps:
        """What the linear maps read: {degree: [N, 2l+1, F]}."""
        sizes = [self.channels * (2 * degree + 1) for degree in self.higher]
        invariants, *higher = selected.split([self.width, *sizes], dim=1)
        by_degree = {
            degree: x.unflatten(1, (2 * degree + 1, self.channels))
            for degree, x in zip(self.higher, higher, strict=True)
        }
        return {0: invariants.unsqueeze(1), **by_degree}

    def forward(self, selected: Tensor, batch: GraphBatch) -> Irreps:
        """Irreps of every atom in the readout's own scale: {degree: [N, 2l+1, n]}."""
        return self.linear_irreps(self.features(selected))

    def linear_irreps(self, features: Irreps) -> Irreps:
        """The part that is linear in the features."""
        return {0: self.linear(features[0]), **self.linear_higher(features)}

    def linear_weights(self) -> dict[int, Tensor]:
        """Weights [n, F] of the linear maps, by degree."""
        weights = {0: self.linear.weight}
        for degree, linear in self.linear_higher.items():
            weights[int(degree)] = cast(nn.Linear, linear).weight
        return weights

    def output_weights(self) -> list[Tensor]:
        """The weights that are zero in a readout that gives zero."""
        return [*self.linear_weights().values()]

    def _by_degree(self, states_YNKC: Tensor) -> list[Tensor]:
        """[Y, N, 2l+1, C] of every degree."""
        return list(states_YNKC.split([2 * degree + 1 for degree in range(self.lmax + 1)], dim=2))

    def _invariants(self, by_degree: list[Tensor]) -> Tensor:
        """Invariants [N, F]."""
        # The mean over orders m does not change when the molecule turns
        norms = [x.square().mean(dim=2) for x in by_degree if self.norms]
        return torch.cat([by_degree[0].squeeze(2), *norms], dim=2).transpose(0, 1).flatten(1)


class PerceptronReadout(LinearReadout):
    """The linear readout plus a perceptron with one hidden layer on the invariants.

    It gives scalars, and for l > 0 the weights with which an atom's channels are added up.
    """

    def __init__(
        self, config: ModelConfig, head_config: HeadConfig, irreps: Mapping[int, int]
    ) -> None:
        super().__init__(config, head_config, irreps)
        self.hidden = nn.Linear(self.width, config.channels)
        self.out = nn.Linear(config.channels, irreps[0], bias=False)
        counts = {degree: count * self.channels for degree, count in self.higher.items()}
        self.out_higher = LinearByDegree(config.channels, counts)

    def forward(self, selected: Tensor, batch: GraphBatch) -> Irreps:
        """Irreps of every atom in the readout's own scale: {degree: [N, 2l+1, n]}."""
        features = self.features(selected)
        hidden = nn.functional.silu(self.hidden(features[0]))
        added = {0: self.out(hidden)}
        for degree in self.higher:
            # One weight per channel and irrep, from invariants: products with them still turn
            weights = self.out_higher[str(degree)](hidden).unflatten(2, (self.channels, -1))
            added[degree] = features[degree] @ weights.squeeze(1)
        return added_up(self.linear_irreps(features), added)

    def output_weights(self) -> list[Tensor]:
        """The weights that are zero in a readout that gives zero."""
        return [*super().output_weights(), *self.out.parameters(), *self.out_higher.parameters()]


class LayerReadout(LinearReadout):
    """The linear readout, plus a readout of one more message layer on the last node states."""

    def __init__(
        self, config: ModelConfig, head_config: HeadConfig, irreps: Mapping[int, int]
    ) -> None:
        super().__init__(config, head_config, irreps)
        self.cutoff = config.trunk_cutoff
        self.edge_scalars = PairScalars(
            MAX_Z + 1, config.channels, config.trunk_cutoff, config.radial_functions
        )
        self.layer = NodeLayer(config, self.edge_scalars.width)
        self.norm = DegreeNorm(degree_of_coefficient(config.lmax), config.channels)
        self.out = nn.Linear(config.channels, irreps[0], bias=False)
        self.out_higher = LinearByDegree(config.channels, self.higher)

    def select(self, states_YNKC: Tensor) -> Tensor:
        """All degrees: [N, Y, K, C]."""
        return states_YNKC.transpose(0, 1)

    def features(self, selected: Tensor) -> Irreps:
        """What the linear maps read: {degree: [N, 2l+1, F]}."""
        return super().features(super().select(selected.transpose(0, 1)))

    def forward(self, selected: Tensor, batch: GraphBatch) -> Irreps:
        """Irreps of every atom in the readout's own scale: {degree: [N, 2l+1, n]}."""
        states = self.norm(self.layer(selected[:, -1], [self._edges(batch)], sum_chunks))
        by_degree = {
            degree: x.squeeze(0) for degree, x in enumerate(self._by_degree(states.unsqueeze(0)))
        }
        added = {0: self.out(by_degree[0]), **self.out_higher(by_degree)}
        return added_up(self.linear_irreps(self.features(selected)), added)

    def output_weights(self) -> list[Tensor]:
        """The weights that are zero in a readout that gives zero."""
        return [*super().output_weights(), *self.out.parameters(), *self.out_higher.parameters()]

    def _edges(self, batch: GraphBatch) -> Edges:
        first, second = batch.edge_index
        vector = batch.positions.index_select(0, second) - batch.positions.index_select(0, first)
        distance = vector.norm(dim=-1)
        scalars = self.edge_scalars(
            batch.atomic_numbers[first], batch.atomic_numbers[second], distance
        )
        smooth = envelope(distance, self.cutoff).to(scalars)
        return Edges(batch.edge_index, vector, scalars, smooth)


READOUTS = {"linear": LinearReadout, "mlp": PerceptronReadout, "layer": LayerReadout}


def added_up(first: Irreps, second: Irreps) -> Irreps:
    """Sum of irreps, degree by degree."""
    return {degree: x + second[degree] for degree, x in first.items()}
