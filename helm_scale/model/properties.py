"""Predicts a property of molecules from the trunk: a readout makes irreps, a head combines them.

Axes: N atoms, B molecules, Y node states read, K = (lmax+1)^2 coefficients, C channels.
"""

import torch
from torch import Tensor, nn

from helm_scale.basis.elements import MAX_Z
from helm_scale.config import HeadConfig, ModelConfig
from helm_scale.model.heads.head import Head
from helm_scale.model.heads.readouts import READOUTS
from helm_scale.model.trunk import Trunk
from helm_scale.reading.domain import TrainingDomain
from helm_scale.types import GraphBatch


class PropertyModel(nn.Module):
    """Predicts a property of every molecule of a batch: [B, *shape], float64.

    Property: it turns with the molecule, depends on neither its place nor the order of its atoms.

    Attributes:
        definition: the head as the table has it. head: its readout, which holds the weights.
        reference: what is added to the first scalar of every atom, by atomic number.
        output_scale: scale of what the readout gives, in the property's unit.
        training_domain: what the weights were trained on; None: unknown, or untrained.
    """

    reference: Tensor
    output_scale: Tensor
    training_domain: TrainingDomain | None = None

    def __init__(
        self, config: ModelConfig, definition: Head, head_config: HeadConfig | None = None
    ) -> None:
        super().__init__()
        self.config, self.head_config = config.backbone(), head_config or HeadConfig()
        self.definition = definition
        self.trunk = Trunk(config)
        self.head = READOUTS[self.head_config.kind](config, self.head_config, definition.irreps)
        self.to(getattr(torch, config.dtype))
        self.register_buffer("reference", torch.zeros(MAX_Z + 1, dtype=torch.float64))
        self.register_buffer("output_scale", torch.ones((), dtype=torch.float64))

    def forward(self, batch: GraphBatch) -> Tensor:
        """The property of every molecule: [B, *shape], float64."""
        return self.values(self.select(batch), batch)

    def features(self, batch: GraphBatch) -> Tensor:
        """Last node states [N, K, C]."""
        return self._states(batch)[-1]

    def select(self, batch: GraphBatch) -> Tensor:
        """What the head reads of the node states, atom by atom.

        While the trunk is frozen it can be kept.
        """
        states = self._states(batch)
        return self.head.select(
            torch.stack(states if self.head_config.reads == "each" else states[-1:])
        )

    def values(self, selected: Tensor, batch: GraphBatch) -> Tensor:
        """The property [B, *shape], float64, from what `select` gave."""
        irreps = self.head(selected, batch)
        # float64 from here on: an atomic energy is 1e6 times what is learned of it
        irreps = {degree: x.double() * self.output_scale for degree, x in irreps.items()}
        base = self.reference[batch.atomic_numbers].view(-1, 1, 1)
        other_scalars = irreps[0].shape[2] - 1
        irreps[0] = irreps[0] + nn.functional.pad(base, (0, other_scalars))
        return self.definition.combine(irreps, batch, self.config.trunk_cutoff)

    def _states(self, batch: GraphBatch) -> list[Tensor]:
        return self.trunk.states(batch.geometry)
