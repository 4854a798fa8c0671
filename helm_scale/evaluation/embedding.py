"""Maps of the atoms in the feature space of a backbone: principal components and UMAP.

Features are the l = 0 channels of the last node states. Every atom is labelled by its element and
its environment, the elements that it is bonded to. UMAP is drawn where it is installed.

Axes: N atoms of all molecules, C channels.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from helm_scale.basis import elements
from helm_scale.data.graphs.collate import collate
from helm_scale.dft.molecule import bonded
from helm_scale.model.energy import EnergyModel
from helm_scale.types import Molecule


@dataclass(frozen=True)
class EmbeddingMap:
    """Atoms as points.

    Attributes:
        components: [N, 2] principal components, each channel with mean 0 and the whole with
            variance 1.
        explained: share of the variance in either component, [2]. umap: [N, 2], or None where umap
            is not installed.
    """

    components: np.ndarray
    explained: np.ndarray
    umap: np.ndarray | None


def node_features(model: EnergyModel, molecules: Sequence[Molecule]) -> np.ndarray:
    """Invariant node features [N, C], float64, of all atoms."""
    features = []
    # One molecule at a time: the evaluated ones may be too large for one batch on a GPU.
    for molecule in molecules:
        # Collating the labels would cost more than the features, which do not read them.
        bare = replace(molecule, hamiltonian=None, baseline_hamiltonian=None)
        with torch.no_grad():
            features.append(
                model.features(collate([bare], model.config).to(model.reference.device))[:, 0]
                .double()
                .cpu()
                .numpy()
            )
    return np.concatenate(features)


def environments(molecules: Sequence[Molecule]) -> list[str]:
    """Name every atom by its element and bonded neighbours, as in O(CH), or He() for a lone one."""
    names = []
    for molecule in molecules:
        for number, row in zip(molecule.atomic_numbers, bonded(molecule), strict=True):
            near = sorted(elements.symbol(int(z)) for z in molecule.atomic_numbers[row])
            names.append(f"{elements.symbol(int(number))}({''.join(near)})")
    return names


def map_features(features_NC: np.ndarray) -> EmbeddingMap:
    """Project features on their first two principal components, and by UMAP if it is installed."""
    centred = features_NC - features_NC.mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    # The decomposition leaves the signs open; LAPACK builds differ, so the largest entry is made
    # positive.
    signs = np.sign(right[np.arange(2), np.abs(right[:2]).argmax(axis=1)])
    total = float(np.square(singular).sum()) or 1.0  # 0 where all features are equal
    components = left[:, :2] * singular[:2] * signs * (len(features_NC) / total) ** 0.5
    return EmbeddingMap(components, np.square(singular[:2]) / total, _umap(centred))


def _umap(features_NC: np.ndarray) -> np.ndarray | None:
    if importlib.util.find_spec("umap") is None:
        return None
    # Imported here: compiling UMAP's numba code takes seconds that no other command should wait.
    reducer = importlib.import_module("umap").UMAP(n_components=2, random_state=0)
    return np.asarray(reducer.fit_transform(features_NC), dtype=np.float64)


def separation(points: np.ndarray, labels: Sequence[str]) -> float:
    """Share of the variance of points [N, C] between groups of equal label, from 0 to 1.

    It is 1 if all points of a group coincide.
    """
    names, group = np.unique(np.array(labels), return_inverse=True)
    means = np.stack([points[group == g].mean(axis=0) for g in range(len(names))])
    total = np.square(points - points.mean(axis=0)).sum()
    return float(np.square(means[group] - points.mean(axis=0)).sum() / total) if total else 0.0
