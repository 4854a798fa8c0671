"""Find near-duplicate geometries, whatever their place, orientation and numbering of like atoms.

A geometry's fingerprint is its composition and the sorted distances of each pair of elements.
Two frames whose atoms differ by at most e Angstrom have sorted distances that differ by at most 2e,
because sorting does not enlarge the largest difference. Mirror images count as equal. Memory: 2 N^2
bytes per sample of N atoms.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from helm_scale.basis import elements
from helm_scale.data.format.heads import read_head
from helm_scale.data.format.manifest import Manifest


@dataclass(frozen=True)
class Fingerprint:
    """What near-duplicates have in common.

    Attributes:
        composition: formula, charge and multiplicity.
        distances: sorted within each pair of elements, Angstrom, float32 [N(N-1)/2].
    """

    composition: str
    distances: np.ndarray


def fingerprint(
    atomic_numbers: np.ndarray, positions: np.ndarray, *, charge: int, spin_multiplicity: int
) -> Fingerprint:
    """Take the fingerprint of one geometry (positions [N, 3], Angstrom)."""
    counts = zip(*np.unique(atomic_numbers, return_counts=True), strict=True)
    formula = "".join(f"{elements.symbol(z)}{count}" for z, count in counts)
    first, second = np.triu_indices(len(atomic_numbers), k=1)
    distances = np.linalg.norm(positions[first] - positions[second], axis=-1)
    pair = np.sort(np.stack([atomic_numbers[first], atomic_numbers[second]]), axis=0)
    order = np.lexsort((distances, pair[1], pair[0]))
    return Fingerprint(
        f"{formula} {charge:+d} {spin_multiplicity}", distances[order].astype(np.float32)
    )


def read_all(dataset: Manifest) -> list[Fingerprint]:
    """Take the fingerprints of a local dataset, with a progress bar; matrices are not decoded.

    Raises:
        ValueError: a sample that cannot be read; names shard and key.
    """
    bar = tqdm(range(len(dataset)), desc="geometries", unit="molecule", dynamic_ncols=True)
    return [_read(dataset, index) for index in bar]


def find(prints: list[Fingerprint], tolerance: float) -> Iterator[tuple[int, int, float]]:
    """Yield the pairs of samples whose sorted distances differ by at most a tolerance, Angstrom.

    Returns:
        (i, j, largest difference), i < j.
    """
    members: dict[str, list[int]] = {}
    for index, one in enumerate(prints):
        members.setdefault(one.composition, []).append(index)
    for indices in members.values():
        distances = np.stack([prints[i].distances for i in indices])
        yield from _near(np.array(indices), distances, tolerance)


def _near(
    indices: np.ndarray, distances: np.ndarray, tolerance: float
) -> Iterator[tuple[int, int, float]]:
    """Find the near pairs of one composition.

    Sorted by the distance that varies most, they lie within a short window of each other.
    """
    if distances.shape[1] == 0:
        distances = np.zeros((len(indices), 1), dtype=np.float32)  # single atoms
    # The distance that varies most comes first: it makes the windows short.
    distances = distances[:, np.argsort(-distances.std(axis=0), kind="stable")]
    order = np.argsort(distances[:, 0], kind="stable")
    indices, distances = indices[order], distances[order]
    ends = np.searchsorted(distances[:, 0], distances[:, 0] + np.float32(tolerance), side="right")
    for place, end in enumerate(ends):
        window = slice(place + 1, end)
        largest = np.abs(distances[window] - distances[place]).max(axis=1, initial=0.0)
        for offset in np.flatnonzero(largest <= tolerance):
            pair = sorted((int(indices[place]), int(indices[place + 1 + offset])))
            yield pair[0], pair[1], float(largest[offset])


def _read(dataset: Manifest, index: int) -> Fingerprint:
    """The fingerprint of one sample."""
    molecule = read_head(dataset, index)
    return fingerprint(
        molecule.atomic_numbers,
        molecule.positions,
        charge=molecule.charge,
        spin_multiplicity=molecule.spin_multiplicity,
    )
