"""Energies, and forces, from few labels: reference energies per element plus a head on the trunk.

Three modes: direct (random backbone of the same architecture), frozen (pretrained backbone, only
the head learns, on features that are computed once), finetuned (all learn, the backbone at smaller
rates towards its first layer). Every mode starts from the linear head that fits best on the
features it starts with (finetune_probe.py), or from zero, and keeps the weights of the best step on
the validation molecules, where there are some.

Axes: M molecules, N atoms, F invariant features.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from helm_scale.config import FinetuneConfig
from helm_scale.finetuning.features import AT_ONCE, Read, Samples
from helm_scale.finetuning.fit import ridge
from helm_scale.finetuning.labels import EnergyLabels, compositions
from helm_scale.losses.hamiltonian import root_plus_mean
from helm_scale.model.energy import EnergyModel
from helm_scale.model.helm import Helm
from helm_scale.optim.schedule import cosine_schedule
from helm_scale.types import GraphBatch, Molecule
from helm_scale.units import HARTREE_IN_MEV

WARMUP = 0.05  # of all steps


@dataclass(frozen=True)
class Part:
    """A part of the energy model: its tensors, whence their values come, and the peak rate at which
    they learn (0: frozen)."""

    name: str
    origin: str
    tensors: tuple[nn.Parameter, ...]
    rate: float


@dataclass(frozen=True)
class Errors:
    """Mean absolute errors: energies over molecules, Hartree, also per atom; force components,
    Hartree/Angstrom."""

    mae: float
    mae_per_atom: float
    force_mae: float | None = None


@dataclass(frozen=True)
class Run:
    """One energy model to train.

    Attributes:
        mode: direct, frozen or finetuned. model: as `start` left it. labels: what it learns from.
            samples: all their graphs.
        read: what the head reads of a batch: from the trunk, or kept features.
    """

    mode: str
    model: EnergyModel
    labels: EnergyLabels
    samples: Samples
    read: Read

    def predict(self, batch: GraphBatch) -> Tensor:
        """Energies [B], float64 Hartree."""
        return self.model.values(self.read(batch), batch)


def start(
    mode: str, backbone: Helm, labels: EnergyLabels, config: FinetuneConfig, seed: int
) -> EnergyModel:
    """The energy model of a mode with a head that adds nothing: it predicts the reference
    energies."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EnergyModel(backbone.config, config.head)
    for weight in model.head.output_weights():
        nn.init.zeros_(weight)
    if mode != "direct":
        model.trunk.load_state_dict(backbone.trunk.state_dict())
    model.reference.copy_(labels.reference)
    model.output_scale.fill_(labels.scale)
    return model.to(backbone.reference.device)


def parts_of(model: EnergyModel, mode: str, config: FinetuneConfig) -> list[Part]:
    """Tensors of the model by depth with their rates: the rate of a layer is `layer_decay` times
    that of the next."""
    layers, found = len(model.trunk.layers), []
    for depth in range(layers + 1):
        tensors = tuple(
            p for name, p in model.trunk.named_parameters() if _depth(name, layers) == depth
        )
        rate = (
            config.learning_rate
            if mode == "direct"
            else config.backbone_learning_rate * config.layer_decay ** (layers - depth)
        )
        frozen = mode == "frozen" or (mode == "finetuned" and depth < config.freeze_layers)
        origin = "random" if mode == "direct" else "backbone"
        found.append(
            Part(
                f"layer {depth}" if depth else "embeddings",
                origin,
                tensors,
                0.0 if frozen else rate,
            )
        )
    return [*found, Part("head", "new", tuple(model.head.parameters()), config.learning_rate)]


def fit_linear(run: Run) -> None:
    """Set the head's linear map, and the references, to what fits the training molecules best
    (finetune_probe.ridge)."""
    model, molecules = run.model, run.labels.train
    pooled = []
    with torch.no_grad():
        for first in range(0, len(molecules), AT_ONCE):
            batch = run.samples.batch(molecules[first : first + AT_ONCE])
            x_NF = model.head.features(run.read(batch))[0].squeeze(1).double()
            pooled.append(
                x_NF.new_zeros(batch.num_molecules, x_NF.shape[1]).index_add(
                    0, batch.molecule, x_NF
                )
            )
        counts = torch.from_numpy(compositions(molecules)).to(model.reference)
        target = counts.new_tensor([m.energy for m in molecules]) - counts @ model.reference
        counts[:, list(run.labels.atoms)] = 0.0  # free atoms have given these energies
        weight, change = ridge(
            torch.cat(pooled).cpu(), target.cpu() / run.labels.scale, counts.cpu()
        )
        change[list(run.labels.atoms)] = 0.0
        model.head.linear.weight.copy_(weight.unsqueeze(0))
        model.reference += change.to(model.reference) * run.labels.scale


def train(run: Run, parts: Sequence[Part], config: FinetuneConfig, seed: int) -> int:
    """AdamW with a short warm-up and a cosine to zero on sqrt(MSE) + MSE of energies (and forces),
    in an order of the seed.

    Property: zero steps change nothing; parts of rate 0 stay as they are, to the last bit.

    Returns:
        the step whose weights the model has at the end: the best one on the validation molecules,
            or the last.
    """
    optimizer = _optimizer(parts, config)
    best = Best(run, config)
    batches = sample_order(len(run.labels.train), config.batch_molecules, seed)
    every = max(1, math.ceil(config.steps / config.evaluations))
    for step in tqdm(range(config.steps), desc=run.mode, unit="step", disable=None):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * cosine_schedule(
                step, steps=config.steps, warmup_steps=round(WARMUP * config.steps)
            )
        optimizer.zero_grad()
        loss(
            run,
            run.samples.batch([run.labels.train[i] for i in next(batches)]),
            config.force_weight,
        ).backward()
        optimizer.step()
        if (step + 1) % every == 0 and best.is_enough(step + 1):
            break
    return best.restore(config.steps)


def loss(run: Run, batch: GraphBatch, force_weight: float) -> Tensor:
    """sqrt(MSE) + MSE of the energies of a batch (Hartree), plus `force_weight` times that of the
    forces (Hartree/Angstrom)."""
    assert batch.energy is not None
    if not force_weight:
        return _root(run.predict(batch) - batch.energy)
    if batch.forces is None:
        raise ValueError(
            f"force_weight: got {force_weight}, but {', '.join(batch.keys)} are not all labelled with forces; set it to 0"
        )
    energy, forces = run.model.energy_and_forces(batch, create_graph=True)
    return _root(energy - batch.energy) + force_weight * _root(forces - batch.forces)


class Best:
    """The weights of the step with the least validation error so far; without validation molecules,
    the last ones."""

    def __init__(self, run: Run, config: FinetuneConfig) -> None:
        self._run, self._patience, self._waited, self._step = run, config.patience, 0, 0
        self._least, self._state = math.inf, dict[str, Tensor]()
        if run.labels.validation:
            self.is_enough(0)

    def is_enough(self, step: int) -> bool:
        """Look at the validation error after a step; true where it has not fallen for `patience`
        looks."""
        if not self._run.labels.validation:
            return False
        error = errors(self._run, self._run.labels.validation).mae
        if error < self._least:
            self._least, self._step, self._waited = error, step, 0
            self._state = {
                name: tensor.clone() for name, tensor in self._run.model.state_dict().items()
            }
        else:
            self._waited += 1
        return 0 < self._patience <= self._waited

    def restore(self, steps: int) -> int:
        """Give the model its best weights; returns their step."""
        if not self._state:
            return steps
        self._run.model.load_state_dict(self._state)
        return self._step


def errors(run: Run, molecules: Sequence[Molecule], forces: bool = False) -> Errors:
    """Mean absolute errors of energies, and of forces where asked for and labelled."""
    absolute, atoms, force = [], [], []
    for first in range(0, len(molecules), AT_ONCE):
        batch = run.samples.batch(molecules[first : first + AT_ONCE])
        assert batch.energy is not None
        if forces and batch.forces is not None:
            energy, predicted = run.model.energy_and_forces(batch)
            force.append((predicted - batch.forces).abs().flatten())
        else:
            with torch.no_grad():
                energy = run.predict(batch)
        absolute.append((energy.detach() - batch.energy).abs())
        atoms.append(torch.bincount(batch.molecule))
    error, size = torch.cat(absolute), torch.cat(atoms)
    return Errors(
        float(error.mean()),
        float((error / size).mean()),
        float(torch.cat(force).mean()) if force else None,
    )


def parity(run: Run, molecules: Sequence[Molecule]) -> np.ndarray:
    """Labels and predictions without the reference energies of the elements, meV: [2, M]."""
    found = []
    for first in range(0, len(molecules), AT_ONCE):
        batch = run.samples.batch(molecules[first : first + AT_ONCE])
        assert batch.energy is not None
        with torch.no_grad():
            atomic = run.labels.reference.to(batch.energy)[batch.atomic_numbers]
            base = torch.zeros_like(batch.energy).index_add(0, batch.molecule, atomic)
            found.append(torch.stack([batch.energy - base, run.predict(batch) - base]))
    return torch.cat(found, dim=1).cpu().numpy() * HARTREE_IN_MEV


def sample_order(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of min(size, count) samples; every sample comes once per epoch, in an order
    of the seed."""
    generator = np.random.default_rng(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < min(size, count):
            waiting += generator.permutation(count).tolist()
        yield waiting[: min(size, count)]
        waiting = waiting[min(size, count) :]


def _optimizer(parts: Sequence[Part], config: FinetuneConfig) -> torch.optim.Optimizer:
    for part in parts:
        for tensor in part.tensors:
            tensor.requires_grad_(part.rate > 0)
    groups = [{"params": list(part.tensors), "peak": part.rate} for part in parts if part.rate > 0]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )


def _depth(name: str, layers: int) -> int:
    """0 for embeddings and edges, k for the k-th layer; the last norm goes with the last layer."""
    first, second, *_ = name.split(".")
    return int(second) + 1 if first == "layers" else layers if first == "norm" else 0


def _root(error: Tensor) -> Tensor:
    return root_plus_mean(error.square().sum(), error.new_tensor(float(error.numel())))
