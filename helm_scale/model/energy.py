"""Energies, and forces as their exact gradient."""

from dataclasses import replace

import torch
from torch import Tensor

from helm_scale.config import HeadConfig, ModelConfig
from helm_scale.model.heads.energy import ENERGY
from helm_scale.model.properties import PropertyModel
from helm_scale.types import GraphBatch


class EnergyModel(PropertyModel):
    """Total energy of every molecule [B], float64 Hartree; forces are its exact gradient.

    Property: E(Rx + t) = E(x), E(permuted) = E, and energies of molecules beyond the cutoff of each
    other add up.
    """

    def __init__(self, config: ModelConfig, head_config: HeadConfig | None = None) -> None:
        super().__init__(config, ENERGY, head_config)

    def energy_and_forces(
        self, batch: GraphBatch, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Energies [B], Hartree, and forces [N, 3], Hartree/Angstrom, in float64.

        Args:
            create_graph: keep what a loss on forces needs.
        """
        with torch.enable_grad():  # forces are derivatives, also where the caller evaluates only
            # A leaf of its own: the caller's positions stay without gradient.
            positions = batch.positions.detach().requires_grad_()
            energy = self(replace(batch, positions=positions))
            (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=create_graph)
        return energy, -gradient
