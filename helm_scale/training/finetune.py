"""Energies from few labels: reference energies per element plus a linear head on the trunk.

Three modes: direct (random backbone of the same architecture), frozen (pretrained backbone, only the head learns; its
features are computed once), finetuned (all learn, the backbone at a smaller rate). The head starts at zero, so that
before the first step every mode predicts the reference energies alone.

The least-squares references of M molecules are unique only for compositions that the training compositions span. Test
molecules outside that span have no defined reference; they are left out of the errors and named.

Axes: M molecules, N atoms, Z atomic numbers, C channels.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from helm_scale.batch import GraphBatch, Molecule
from helm_scale.config import FinetuneConfig, ModelConfig
from helm_scale.data.collate import collate
from helm_scale.model.energy import EnergyModel
from helm_scale.model.helm import Helm
from helm_scale.objective.losses import EnergyObjective
from helm_scale.objective.references import fit_atomic_energies
from helm_scale.training.optim import learning_rate_factor
from helm_scale.units import HARTREE_IN_MEV

log = logging.getLogger(__name__)

WARMUP = 0.05  # of all steps
EVALUATION_BATCH = 32  # molecules
Predict = Callable[[GraphBatch], Tensor]


@dataclass(frozen=True)
class EnergyLabels:
    """Molecules with energies, and the reference energies that the training ones define.

    Attributes:
        train, test: molecules with energies (Hartree) and without matrices. skipped: keys of test molecules left out.
        reference: [Z] float64 Hartree. scale: root mean square of the training energies minus references, Hartree.
    """

    train: tuple[Molecule, ...]
    test: tuple[Molecule, ...]
    skipped: tuple[str, ...]
    reference: Tensor
    scale: float


@dataclass(frozen=True)
class TensorCounts:
    """Tensors of the energy model: kept from the backbone and trained, kept and frozen, new."""

    kept: int
    frozen: int
    new: int


@dataclass(frozen=True)
class Errors:
    """Mean absolute errors over molecules, Hartree, and per atom of the molecule."""

    mae: float
    mae_per_atom: float


def gather_labels(train: Sequence[Molecule], test: Sequence[Molecule], config: ModelConfig) -> EnergyLabels:
    """Fit reference energies and set aside test molecules for which they are undefined.

    Raises:
        ValueError: a molecule has no energy, or no test molecule is left.
    """
    for molecule in (*train, *test):
        if molecule.energy is None:
            raise ValueError(f"molecule '{molecule.key}': no energy; generate the shards with energies")
    kept, held = (tuple(replace(m, hamiltonian=None, baseline_hamiltonian=None, overlap=None) for m in part) for part in (train, test))
    rows = EnergyModel(config).reference.shape[0]
    reference, scale = fit_atomic_energies((collate([m], config) for m in kept), rows)
    defined = _spanned(_compositions(kept, rows), _compositions(held, rows))
    skipped = tuple(m.key for m, fine in zip(held, defined, strict=True) if not fine)
    if len(skipped) == len(held):
        raise ValueError(
            f"test split: none of {len(held)} molecules has a composition that the {len(kept)} training molecules span,"
            " so no reference energy is defined; use a test split with the elements of the training split"
        )
    return EnergyLabels(kept, tuple(m for m in held if m.key not in skipped), skipped, reference, scale)


def start(mode: str, backbone: Helm, labels: EnergyLabels, seed: int) -> tuple[EnergyModel, TensorCounts]:
    """The energy model of a mode before its first step, and what became of the backbone's tensors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EnergyModel(backbone.config)
    nn.init.zeros_(model.head.linear.weight)
    if mode != "direct":
        model.trunk.load_state_dict(backbone.trunk.state_dict())
    model.trunk.requires_grad_(mode != "frozen")
    model.reference.copy_(labels.reference)
    model.output_scale.fill_(labels.scale)
    model.to(backbone.reference.device)
    trunk, head = len(list(model.trunk.parameters())), len(list(model.head.parameters()))
    counts = {"direct": (0, 0, trunk + head), "frozen": (0, trunk, head), "finetuned": (trunk, 0, head)}
    return model, TensorCounts(*counts[mode])


def train(model: EnergyModel, mode: str, labels: EnergyLabels, config: FinetuneConfig) -> None:
    """AdamW with a short warm-up and a cosine to zero on sqrt(MSE) + MSE of the energies; in order of the seed.

    Property: zero steps change nothing; mode "frozen" leaves the trunk as it was, to the last bit.
    """
    objective = EnergyObjective()
    predict: Predict = cached(model, labels.train) if mode == "frozen" else model
    rate = config.learning_rate if mode == "direct" else config.backbone_learning_rate
    groups = [{"params": list(model.head.parameters()), "peak": config.learning_rate}]
    if mode != "frozen":
        groups.append({"params": list(model.trunk.parameters()), "peak": rate})
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.0, fused=True)
    batches = sample_order(len(labels.train), config.batch_molecules, config.seed)
    bar = tqdm(range(config.steps), desc=mode, unit="step", disable=None)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate_factor(step, config.steps, round(WARMUP * config.steps))
        sums = objective(predict, _batch([labels.train[i] for i in next(batches)], model))
        optimizer.zero_grad()
        objective.loss(sums.total, sums.count).backward()
        optimizer.step()
        if step % 20 == 0:
            bar.set_postfix(mae_mev=f"{float(sums.metrics['energy_mae'][0] / sums.count) * HARTREE_IN_MEV:.1f}")


def cached(model: EnergyModel, molecules: Sequence[Molecule]) -> Predict:
    """The model on molecules whose node features are computed here, once, and kept in memory."""
    features: dict[str, Tensor] = {}
    with torch.no_grad():
        for molecule in molecules:
            features[molecule.key] = model.read(_batch([molecule], model))
    return lambda batch: model.energies(torch.cat([features[key] for key in batch.keys]), batch)


def errors(model: EnergyModel, molecules: Sequence[Molecule]) -> Errors:
    """Mean absolute error of the energies."""
    absolute, atoms = [], []
    with torch.no_grad():
        for first in range(0, len(molecules), EVALUATION_BATCH):
            batch = _batch(molecules[first : first + EVALUATION_BATCH], model)
            assert batch.energy is not None
            absolute.append((model(batch) - batch.energy).abs())
            atoms.append(torch.bincount(batch.molecule))
    error, size = torch.cat(absolute), torch.cat(atoms)
    return Errors(float(error.mean()), float((error / size).mean()))


def sample_order(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of min(size, count) samples; every sample comes once per epoch, in an order of the seed."""
    generator = np.random.default_rng(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < min(size, count):
            waiting += generator.permutation(count).tolist()
        yield waiting[: min(size, count)]
        waiting = waiting[min(size, count) :]


def _batch(molecules: Sequence[Molecule], model: EnergyModel) -> GraphBatch:
    """The molecules as one batch where the model is."""
    return collate(molecules, model.config).to(model.reference.device)


def _compositions(molecules: Sequence[Molecule], rows: int) -> np.ndarray:
    """Atoms of every element: [M, rows]."""
    return np.stack([np.bincount(m.atomic_numbers, minlength=rows) for m in molecules]).astype(np.float64)


def _spanned(known_MZ: np.ndarray, asked_MZ: np.ndarray) -> np.ndarray:
    """Whether every asked composition is a linear combination of known ones: [M] bool."""
    _, singular, basis = np.linalg.svd(known_MZ, full_matrices=False)
    basis = basis[singular > 1e-9 * singular.max()]
    return np.abs(asked_MZ - asked_MZ @ basis.T @ basis).max(axis=1) < 1e-6
