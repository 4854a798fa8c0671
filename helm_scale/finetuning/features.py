"""Molecules as graphs made once, and what a frozen backbone says of them, kept on disk.

Collating anew, and running the trunk anew, is what an epoch on frozen features would otherwise
spend its time on (benchmarks/finetune_cache.py).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from helm_scale.data.graphs.collate import collate
from helm_scale.files import atomic_path
from helm_scale.model.energy import EnergyModel
from helm_scale.model.weights import load_weights, save_weights
from helm_scale.types import GraphBatch, Molecule

AT_ONCE = 32  # molecules
Read = Callable[[GraphBatch], Tensor]


class Samples:
    """Graphs of molecules, without pairs; batches of them are joined."""

    def __init__(self, molecules: Iterable[Molecule], model: EnergyModel) -> None:
        self._graphs = {
            m.key: _without_pairs(collate([m], model.config).to(model.reference.device))
            for m in molecules
        }

    def batch(self, molecules: Sequence[Molecule]) -> GraphBatch:
        """The molecules as one graph."""
        return joined([self._graphs[m.key] for m in molecules])


def joined(graphs: Sequence[GraphBatch]) -> GraphBatch:
    """One graph of several of one molecule each; forces where each has them."""
    first, sizes = graphs[0], torch.tensor([len(graph.atomic_numbers) for graph in graphs])
    edges = torch.tensor([graph.edge_index.shape[1] for graph in graphs])
    device = first.molecule.device
    molecule = torch.repeat_interleave(sizes).to(device)
    shift = torch.repeat_interleave(torch.cumsum(sizes, 0) - sizes, edges).to(device)

    def cat(name: str) -> Tensor:
        return torch.cat([getattr(graph, name) for graph in graphs])

    return replace(
        first,
        keys=tuple(key for graph in graphs for key in graph.keys),
        atomic_numbers=cat("atomic_numbers"),
        positions=cat("positions"),
        charge=cat("charge"),
        spin_multiplicity=cat("spin_multiplicity"),
        energy=cat("energy"),
        molecule=molecule,
        edge_index=torch.cat([graph.edge_index for graph in graphs], dim=1) + shift,
        forces=cat("forces") if all(graph.forces is not None for graph in graphs) else None,
    )


def kept_features(
    model: EnergyModel, molecules: Sequence[Molecule], folder: Path
) -> dict[str, Tensor]:
    """What the head reads of the atoms of every molecule, by key; computed once per backbone, head
    and molecules.

    The file's name is the SHA-256 of the trunk's weights, of what the head reads and of the
    molecules, so that nothing can be read back for another backbone or other data.
    """
    path = folder / f"{_fingerprint(model, molecules)}.safetensors"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            save_weights(_computed(model, molecules), partial)
    sizes = [len(m.atomic_numbers) for m in molecules]
    read = load_weights(path, model.reference.device)["read"].split(sizes)
    return {m.key: one for m, one in zip(molecules, read, strict=True)}


def reading(features: dict[str, Tensor]) -> Read:
    """What the head reads of a batch, from kept features."""
    return lambda batch: torch.cat([features[key] for key in batch.keys])


def _computed(model: EnergyModel, molecules: Sequence[Molecule]) -> dict[str, Tensor]:
    found = []
    with torch.no_grad():
        for start in range(0, len(molecules), AT_ONCE):
            found.append(
                model.select(
                    collate(molecules[start : start + AT_ONCE], model.config).to(
                        model.reference.device
                    )
                )
            )
    return {"read": torch.cat(found)}


def _fingerprint(model: EnergyModel, molecules: Sequence[Molecule]) -> str:
    digest = hashlib.sha256(
        f"{model.config.model_dump_json()} {model.head_config.model_dump_json()}".encode()
    )
    for name, tensor in sorted(model.trunk.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    for m in molecules:
        digest.update(
            f"{m.key} {m.charge} {m.spin_multiplicity} {m.atomic_numbers.tolist()}".encode()
            + m.positions.tobytes()
        )
    return digest.hexdigest()


def _without_pairs(graph: GraphBatch) -> GraphBatch:
    return replace(graph, pair_index=graph.pair_index[:, :0], pair_segments=(), atom_segments=())
