"""Training of one property model on few labels, and its errors.

Every mode starts from the linear readout that fits best on the features it starts with (fit.py), or
from zero, and keeps the weights of the best step on the validation molecules, where there are some.

Axes: B molecules of a batch, M molecules, N atoms.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from helm_scale.config import FinetuneConfig
from helm_scale.finetuning import fit
from helm_scale.finetuning.features import EVALUATION_BATCH, FeatureSource, GraphCache
from helm_scale.finetuning.labels import ReferencedSplits
from helm_scale.finetuning.modes import ParameterGroup
from helm_scale.finetuning.targets import label_values, reference_features
from helm_scale.losses.hamiltonian import root_plus_mean
from helm_scale.model.energy import EnergyModel
from helm_scale.model.properties import PropertyModel
from helm_scale.optim.schedule import cosine_schedule
from helm_scale.types import GraphBatch, Molecule

WARMUP = 0.05  # of all steps


@dataclass(frozen=True)
class Errors:
    """Mean absolute errors in the unit of the property: over molecules and components.

    Attributes:
        mae: of the property. mae_per_atom: the same over the number of atoms.
        force_mae: of force components, Hartree/Angstrom.
    """

    mae: float
    mae_per_atom: float
    force_mae: float | None = None


@dataclass(frozen=True, kw_only=True)
class FinetuneRun:
    """One model to train.

    Attributes:
        mode: direct, frozen or finetuned. model: as `start_model` left it.
        splits: what it learns from and is tested on. graphs: of all their molecules.
        features: what the head reads of a batch: from the trunk, or kept.
    """

    mode: str
    model: PropertyModel
    splits: ReferencedSplits
    graphs: GraphCache
    features: FeatureSource

    def predict(self, batch: GraphBatch) -> Tensor:
        """The property of every molecule [B, *shape], float64."""
        return self.model.values(self.features(batch), batch)

    def energy_and_forces(
        self, batch: GraphBatch, *, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Energies [B], Hartree, and forces [N, 3], Hartree/Angstrom."""
        assert isinstance(self.model, EnergyModel)
        return self.model.energy_and_forces(batch, create_graph=create_graph)

    def batches(self, molecules: Sequence[Molecule]) -> Iterator[GraphBatch]:
        """The molecules in order, so many at once as fit without gradients."""
        for first in range(0, len(molecules), EVALUATION_BATCH):
            yield self.graphs.batch(molecules[first : first + EVALUATION_BATCH])


@dataclass(frozen=True)
class Start:
    """How the head of a run began.

    Attributes:
        strength: of the ridge, relative to the features; None: the references alone.
        reason: why the references were left alone; empty: they were not.
    """

    strength: float | None
    reason: str = ""


REFERENCES = Start(None, "references alone")


def start_head(run: FinetuneRun, config: FinetuneConfig) -> Start:
    """Set the linear maps to what fits best, or leave the references alone where that is better.

    Leave-one-out says so without validation molecules; with some, these have the last word.
    """
    if config.head_start == "zero":
        return Start(None, "head_start: zero")
    alone, before = _validation_error(run, config), _weights(run)
    strength = fit_linear_readout(run).strength
    if math.isinf(strength):
        return Start(None, "leave-one-out: no fit beats the references")
    if _validation_error(run, config) <= alone:
        return Start(strength)
    run.model.load_state_dict(before)
    return Start(None, "validation: the fit does not beat the references")


def fit_linear_readout(run: FinetuneRun) -> fit.RidgeFit:
    """Set the linear maps, and the reference, to what fits the training molecules best."""
    model, splits = run.model, run.splits
    # Solved on the CPU in float64: a few hundred columns, and badly conditioned ones
    with torch.no_grad():
        design = [
            fit.linear_design(model, run.features(batch), batch)
            for batch in run.batches(splits.train)
        ]
        counts = torch.from_numpy(reference_features(splits.train, splits.head))
        values = label_values(splits.train, splits.head.quantity).flatten()
        target = values - counts @ model.reference.cpu()
        given = list(splits.atoms)
        counts[:, given] = 0.0  # free atoms have given these energies
        found = fit.ridge(torch.cat(design).cpu(), target / splits.scale, counts)
        change = found.change.clone()
        change[given] = 0.0
        fit.set_linear_weights(model, found.weight)
        model.reference += change.to(model.reference) * splits.scale
    return found


def train(
    run: FinetuneRun, groups: Sequence[ParameterGroup], config: FinetuneConfig, *, seed: int
) -> int:
    """AdamW with a short warm-up and a cosine to zero on the loss, in an order of the seed.

    Property: zero steps change nothing; groups of rate 0 stay as they are, to the last bit.

    Returns:
        the step whose weights the model has at the end: the best one on the validation molecules,
            or the last.
    """
    optimizer = _optimizer(groups, config)
    best = BestWeights(run, config)
    order = sample_order(len(run.splits.train), config.batch_molecules, seed=seed)
    every = max(1, math.ceil(config.steps / config.evaluations))
    warmup = round(WARMUP * config.steps)
    for step in tqdm(range(config.steps), desc=run.mode, unit="step", disable=None):
        factor = cosine_schedule(step, steps=config.steps, warmup_steps=warmup)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        optimizer.zero_grad()
        batch = run.graphs.batch([run.splits.train[i] for i in next(order)])
        loss(run, batch, config.weight_of_forces).backward()
        optimizer.step()
        if (step + 1) % every == 0 and best.should_stop(step + 1):
            break
    return best.restore(config.steps)


def loss(run: FinetuneRun, batch: GraphBatch, force_weight: float) -> Tensor:
    """sqrt(MSE) + MSE of the property over a batch, in its unit.

    With `force_weight` (Angstrom) that of the forces (Hartree/Angstrom), so weighted, is added.

    Raises:
        ValueError: a molecule has no forces.
    """
    labels = run.graphs.labels(batch)
    if not force_weight:
        return _root_plus_mean(run.predict(batch) - labels)
    if batch.forces is None:
        raise ValueError(
            f"target: got forces, but {', '.join(batch.keys)} are not all labelled with them;"
            " set it to energy"
        )
    energy, forces = run.energy_and_forces(batch, create_graph=True)
    return _root_plus_mean(energy - labels) + force_weight * _root_plus_mean(forces - batch.forces)


class BestWeights:
    """The weights of the step with the least validation error so far.

    Without validation molecules these are the last ones.
    """

    def __init__(self, run: FinetuneRun, config: FinetuneConfig) -> None:
        self._run, self._config = run, config
        self._waited, self._step = 0, 0
        self._least, self._state = math.inf, dict[str, Tensor]()
        if run.splits.validation:
            self.should_stop(0)

    def should_stop(self, step: int) -> bool:
        """Note the validation error after a step; true if it has not fallen `patience` times."""
        if not self._run.splits.validation:
            return False
        error = _validation_error(self._run, self._config)
        if error < self._least:
            self._least, self._step, self._waited = error, step, 0
            self._state = _weights(self._run)
        else:
            self._waited += 1
        return 0 < self._config.patience <= self._waited

    def restore(self, steps: int) -> int:
        """Give the model its best weights; returns their step."""
        if not self._state:
            return steps
        self._run.model.load_state_dict(self._state)
        return self._step


def _validation_error(run: FinetuneRun, config: FinetuneConfig) -> float:
    """Mean error of validation molecules, 0 where there are none.

    With forces it is that of energies plus that of forces, weighted as in the loss.
    """
    if not run.splits.validation:
        return 0.0
    found = errors(run, run.splits.validation, forces=config.weight_of_forces > 0)
    return found.mae + config.weight_of_forces * (found.force_mae or 0.0)


def _weights(run: FinetuneRun) -> dict[str, Tensor]:
    """A copy: the tensors themselves go on changing."""
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def errors(run: FinetuneRun, molecules: Sequence[Molecule], *, forces: bool = False) -> Errors:
    """Mean absolute errors of the property, and of forces where asked for and labelled."""
    absolute, atoms, force = [], [], []
    for batch in run.batches(molecules):
        if forces and batch.forces is not None:
            values, predicted = run.energy_and_forces(batch)
            force.append((predicted - batch.forces).abs().flatten())
        else:
            with torch.no_grad():
                values = run.predict(batch)
        difference = (values.detach() - run.graphs.labels(batch)).abs()
        absolute.append(difference.reshape(batch.num_molecules, -1).mean(dim=1))
        atoms.append(torch.bincount(batch.molecule))
    error, size = torch.cat(absolute), torch.cat(atoms)
    return Errors(
        mae=float(error.mean()),
        mae_per_atom=float((error / size).mean()),
        force_mae=float(torch.cat(force).mean()) if force else None,
    )


def parity(run: FinetuneRun, molecules: Sequence[Molecule]) -> np.ndarray:
    """Labels and predictions without the reference of the elements, all components: [2, M*D]."""
    head = run.splits.head
    with torch.no_grad():
        predicted = torch.cat([run.predict(batch) for batch in run.batches(molecules)]).cpu()
    reference = reference_features(molecules, head) @ run.splits.reference.cpu().numpy()
    true = label_values(molecules, head.quantity)
    return torch.stack([true.flatten(), predicted.flatten()]).numpy() - reference


def sample_order(count: int, size: int, *, seed: int) -> Iterator[list[int]]:
    """Endless batches of min(size, count) samples in an order of the seed.

    Every sample comes once per epoch.
    """
    generator = np.random.default_rng(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < min(size, count):
            waiting += generator.permutation(count).tolist()
        yield waiting[: min(size, count)]
        waiting = waiting[min(size, count) :]


def _optimizer(groups: Sequence[ParameterGroup], config: FinetuneConfig) -> torch.optim.Optimizer:
    for group in groups:
        for tensor in group.tensors:
            tensor.requires_grad_(group.rate > 0)
    learning = [{"params": list(g.tensors), "peak": g.rate} for g in groups if g.rate > 0]
    return torch.optim.AdamW(
        learning, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )


def _root_plus_mean(error: Tensor) -> Tensor:
    return root_plus_mean(error.square().sum(), error.new_tensor(float(error.numel())))
