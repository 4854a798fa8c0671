"""Molecules and labels with real costs and random values, for benchmarks of time and memory."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from helm_scale.basis import layout
from helm_scale.config import ModelConfig, PretrainConfig, load
from helm_scale.data.graphs.collate import collate
from helm_scale.losses.hamiltonian import HamiltonianObjective
from helm_scale.model.helm import Helm
from helm_scale.types import GraphBatch, Molecule


def molecule(atoms: int, seed: int = 0) -> Molecule:
    """Random organic composition (H, C, N, O) on a jittered grid of 1.4 Angstrom.

    The molecule grows outward from the origin.
    """
    rng = np.random.default_rng(seed)
    axis = np.arange(-4, 5)
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3) * 1.4
    nearest = grid[np.argsort(np.linalg.norm(grid, axis=1), kind="stable")[:atoms]]
    numbers = rng.choice([1, 6, 7, 8], size=atoms, p=[0.5, 0.35, 0.08, 0.07])
    return Molecule(
        f"synthetic-{atoms}", numbers, nearest + rng.normal(scale=0.1, size=nearest.shape)
    )


def batch_of(atoms: int, config: ModelConfig) -> GraphBatch:
    """One molecule with random targets of true size."""
    return labelled(collate([molecule(atoms)], config), config)


def labelled(batch: GraphBatch, config: ModelConfig) -> GraphBatch:
    """The batch with random targets of true size."""
    onsite = sum(
        s.count * layout.onsite_layout(config.basis, s.first, config.parity).size
        for s in batch.atom_segments
    )
    offsite = sum(
        s.count * layout.offsite_layout(config.basis, s.first, s.second).size
        for s in batch.pair_segments
    )
    targets = torch.randn(onsite + offsite, dtype=torch.float64).split([onsite, offsite])
    aos = layout.ao_offsets(config.basis, batch.atomic_numbers.numpy())[-1]
    return dataclasses.replace(
        batch,
        onsite_target=targets[0],
        offsite_target=targets[1],
        matrix_elements=torch.tensor([int(aos) ** 2]),
    )


def model_config(name: str, quick: bool) -> ModelConfig:
    """Model of configs/<name>.yaml; a narrow one of the same shape where quick."""
    config = load(PretrainConfig, ["--config", f"configs/{name}.yaml"]).model
    narrow = {"channels": 8, "hidden_channels": 8, "edge_channels": 8, "radial_functions": 16}
    return config.model_copy(update=narrow) if quick else config


class Step:
    """Forward and backward pass of one training step, without the optimiser."""

    def __init__(self, atoms: int, config: ModelConfig, device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.model = Helm(config).to(device)
        self.batch = batch_of(atoms, config).to(device)
        self.objective = HamiltonianObjective(
            config.basis, config.parity, self.model.reference_onsite
        )

    def __call__(self) -> float:
        """Run it; the loss."""
        return float(self.run())

    def run(self) -> Tensor:
        """Run it without waiting for the device; the loss."""
        self.model.zero_grad()
        sums = self.objective(self.model, self.batch)
        loss = self.objective.loss(sums.total, sums.count)
        loss.backward()
        return loss.detach()
