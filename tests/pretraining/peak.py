"""Planned and measured bytes of training steps.

peak.py MODEL '[[atoms, [pair_chunk, recompute, message_chunk]], ...]'

Prints [[planned, measured], ...]: the peak of the resident memory above what is resident before the
step, whose high-water mark Linux resets through /proc/self/clear_refs.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from helm_scale.config import ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.losses.hamiltonian import HamiltonianObjective
from helm_scale.model.helm import Helm
from helm_scale.pretraining.memory.chunks import ChunkSettings
from helm_scale.pretraining.memory.footprint import StepEstimator
from helm_scale.types import Molecule
from tests.pretraining.launching import molecule


def resident(kind: str) -> int:
    """Bytes: VmRSS now, or VmHWM at most."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind)
    )
    return 1024 * int(line.split()[1])


def ball(atoms: int) -> Molecule:
    """Atoms on a grid of 1.2 Angstrom around the origin, each within a few steps of all others."""
    axis = np.arange(-2, 3)
    grid = 1.2 * np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    nearest = grid[np.argsort(np.linalg.norm(grid, axis=1), kind="stable")[:atoms]]
    return replace(
        molecule("ball", np.resize([1, 6, 8, 1], atoms).tolist(), atoms), positions=nearest
    )


def main() -> None:
    """Step by step, after a warm one of every kind."""
    model_config, cases = ModelConfig(**json.loads(sys.argv[1])), json.loads(sys.argv[2])
    model, estimator, found = Helm(model_config), StepEstimator(model_config, {"H": 1}), []
    objective = HamiltonianObjective(
        model_config.basis, model_config.parity, model.reference_onsite
    )
    for atoms, memory in cases:
        model.set_memory(*memory)
        for size in (3, atoms):
            batch = collate([ball(size)], model_config)
            model.zero_grad()
            before = resident("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")
            objective(model, batch).total.backward()
            measured = resident("VmHWM") - before
        found.append((estimator.activation_bytes_of(batch, ChunkSettings(*memory)), measured))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
