"""Molecules with made-up energies and forces, a small backbone, and runs of finetuning on them."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from helm_scale.config import FinetuneConfig, ModelConfig
from helm_scale.finetuning import modes, train
from helm_scale.finetuning.features import GraphCache
from helm_scale.finetuning.labels import LabelledSplits, fit_reference
from helm_scale.model.helm import Helm
from helm_scale.types import Method, Molecule

MODES = ("direct", "frozen", "finetuned")
HEADS = ("linear", "mlp", "layer")
CONFIG = ModelConfig(
    basis="def2-svp",
    lmax=4,
    mmax=4,
    channels=8,
    hidden_channels=8,
    edge_channels=8,
    num_layers=2,
    radial_functions=8,
    trunk_cutoff=5.0,
)
METHOD = Method(
    xc="pbe",
    basis="def2-svp",
    ecp="def2",
    grid_level=3,
    auxbasis=None,
    conv_tol=1e-10,
    baseline="none",
    program="made up",
)
ATOMIC = {1: -0.5, 6: -37.8, 8: -75.0, 35: -2572.0}  # Hartree


def molecule(key: str, numbers: np.ndarray, x: np.ndarray, bonding: float) -> Molecule:
    """Energy: atoms plus `bonding` times a pair potential, Hartree, with its forces."""
    difference = x[:, None] - x[None]
    distance = np.linalg.norm(difference, axis=-1) + 1e9 * np.eye(len(x))
    forces = -bonding * (np.exp(-distance) / distance)[..., None] * difference
    energy = sum(ATOMIC[int(z)] for z in numbers) - bonding * float(np.exp(-distance).sum() / 2)
    return Molecule(key, numbers, x, energy=energy, forces=forces.sum(axis=1), method=METHOD)


def molecules(count: int, seed: int, bonding: float = 0.2) -> list[Molecule]:
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        size = int(rng.integers(2, 6))
        x = np.cumsum(rng.normal(size=(size, 3)) * 0.7 + 0.3, axis=0)
        made.append(molecule(f"{seed}-{index}", rng.choice(list(ATOMIC), size), x, bonding))
    return made


def backbone(config: ModelConfig = CONFIG) -> Helm:
    torch.manual_seed(5)
    return Helm(config)


def labelled(bonding: float = 0.2, validation: int = 0) -> LabelledSplits:
    held = tuple(molecules(5, 2, bonding))
    return LabelledSplits(
        train=tuple(molecules(16, 1, bonding)),
        validation=tuple(molecules(validation, 3, bonding)),
        tests={"test": held},
        method=asdict(METHOD),
    )


def started(
    mode: str,
    config: FinetuneConfig,
    source: LabelledSplits | None = None,
    model_config: ModelConfig = CONFIG,
) -> train.FinetuneRun:
    data = source or labelled()
    splits = fit_reference(data)
    model = modes.start_model(mode, backbone(model_config), splits, config, seed=0)
    graphs = GraphCache(data.all_molecules(), model)
    return train.FinetuneRun(
        mode=mode, model=model, splits=splits, graphs=graphs, features=model.select
    )


def settings(**changes: Any) -> FinetuneConfig:
    return FinetuneConfig(**{"steps": 3, "batch_molecules": 4, **changes})


def trained(
    mode: str,
    source: LabelledSplits | None = None,
    model_config: ModelConfig = CONFIG,
    **changes: Any,
) -> train.FinetuneRun:
    config = settings(**changes)
    run = started(mode, config, source, model_config)
    train.train(run, modes.parameter_groups(run.model, mode, config), config, seed=0)
    return run
