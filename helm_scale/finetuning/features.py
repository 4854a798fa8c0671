"""Molecules as graphs made once, and what a frozen backbone says of them, kept on disk.

Collating anew, and running the trunk anew, is what an epoch on frozen features would otherwise
spend its time on (benchmarks/finetune_cache.py).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from helm_scale.data.graphs.collate import collate
from helm_scale.files import atomic_path
from helm_scale.finetuning.targets import label_values
from helm_scale.model.properties import PropertyModel
from helm_scale.model.weights import load_weights, save_weights
from helm_scale.types import GraphBatch, Molecule

EVALUATION_BATCH = 32  # molecules at once where no gradients of weights are kept
FeatureSource = Callable[[GraphBatch], Tensor]  # what the head reads of the atoms of a batch


class GraphCache:
    """Graphs and labels of molecules, made once, without pairs; batches of them are joined."""

    def __init__(self, molecules: Sequence[Molecule], model: PropertyModel) -> None:
        device, quantity = model.reference.device, model.definition.quantity
        self._graphs = {
            m.key: _without_pairs(collate([m], model.config).to(device)) for m in molecules
        }
        values = label_values(molecules, quantity).to(device)
        self._labels = {m.key: value for m, value in zip(molecules, values, strict=True)}

    def batch(self, molecules: Sequence[Molecule]) -> GraphBatch:
        """The molecules as one graph."""
        return join([self._graphs[m.key] for m in molecules])

    def labels(self, batch: GraphBatch) -> Tensor:
        """Labels of a batch's molecules: [B, *shape], float64."""
        return torch.stack([self._labels[key] for key in batch.keys])


def join(graphs: Sequence[GraphBatch]) -> GraphBatch:
    """One graph of several of one molecule each; energies and forces where each has them."""
    first, sizes = graphs[0], torch.tensor([len(graph.atomic_numbers) for graph in graphs])
    edges = torch.tensor([graph.edge_index.shape[1] for graph in graphs])
    device = first.molecule.device
    molecule = torch.repeat_interleave(sizes).to(device)
    shift = torch.repeat_interleave(torch.cumsum(sizes, 0) - sizes, edges).to(device)

    def cat(name: str) -> Tensor:
        return torch.cat([getattr(graph, name) for graph in graphs])

    def cat_if_all(name: str) -> Tensor | None:
        return cat(name) if all(getattr(graph, name) is not None for graph in graphs) else None

    return replace(
        first,
        keys=tuple(key for graph in graphs for key in graph.keys),
        atomic_numbers=cat("atomic_numbers"),
        positions=cat("positions"),
        charge=cat("charge"),
        spin_multiplicity=cat("spin_multiplicity"),
        molecule=molecule,
        edge_index=torch.cat([graph.edge_index for graph in graphs], dim=1) + shift,
        energy=cat_if_all("energy"),
        forces=cat_if_all("forces"),
    )


def cached_features(
    model: PropertyModel, molecules: Sequence[Molecule], folder: Path
) -> dict[str, Tensor]:
    """What the head reads of the atoms of every molecule, by key, computed once and kept on disk.

    The file's name is the SHA-256 of the trunk's weights, of what the head reads and of the
    molecules, so that nothing can be read back for another backbone or other data.
    """
    path = folder / f"{_fingerprint(model, molecules)}.safetensors"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            save_weights({"selected": _compute(model, molecules)}, partial)
    sizes = [len(m.atomic_numbers) for m in molecules]
    selected = load_weights(path, model.reference.device)["selected"].split(sizes)
    return {m.key: features for m, features in zip(molecules, selected, strict=True)}


def from_cache(features: dict[str, Tensor]) -> FeatureSource:
    """What the head reads of a batch, from kept features."""
    return lambda batch: torch.cat([features[key] for key in batch.keys])


def _compute(model: PropertyModel, molecules: Sequence[Molecule]) -> Tensor:
    selected, device = [], model.reference.device
    with torch.no_grad():
        for start in range(0, len(molecules), EVALUATION_BATCH):
            some = molecules[start : start + EVALUATION_BATCH]
            selected.append(model.select(collate(some, model.config).to(device)))
    return torch.cat(selected)


def _fingerprint(model: PropertyModel, molecules: Sequence[Molecule]) -> str:
    settings = (
        model.config.model_dump_json(),
        model.head_config.model_dump_json(),
        sorted(model.definition.irreps),
    )
    digest = hashlib.sha256(str(settings).encode())
    # The head's weights are left out: they differ from run to run and change no feature
    for name, tensor in sorted(model.trunk.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    for m in molecules:
        header = f"{m.key} {m.charge} {m.spin_multiplicity} {m.atomic_numbers.tolist()}"
        digest.update(header.encode() + m.positions.tobytes())
    return digest.hexdigest()


def _without_pairs(graph: GraphBatch) -> GraphBatch:
    return replace(graph, pair_index=graph.pair_index[:, :0], pair_segments=(), atom_segments=())
