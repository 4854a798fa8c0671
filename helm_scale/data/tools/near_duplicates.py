"""What a sample is like, whatever its place, orientation and numbering of like atoms: composition
and sorted distances.

Two frames whose atoms differ by at most e Angstrom have sorted distances that differ by at most 2e,
because sorting does not enlarge the largest difference. Mirror images count as equal. Memory: 2 N^2
bytes per sample of N atoms.
"""

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from helm_scale.basis import elements
from helm_scale.data.format.manifest import Manifest


@dataclass(frozen=True)
class Fingerprint:
    """composition: formula, charge and multiplicity. distances: sorted within each pair of
    elements, Angstrom, float32."""

    composition: str
    distances: np.ndarray


def fingerprint(
    atomic_numbers: np.ndarray, positions: np.ndarray, charge: int, spin_multiplicity: int
) -> Fingerprint:
    """Fingerprint of one geometry (positions [N, 3], Angstrom)."""
    numbers, counts = np.unique(atomic_numbers, return_counts=True)
    formula = "".join(
        f"{elements.symbol(z)}{count}" for z, count in zip(numbers, counts, strict=True)
    )
    first, second = np.triu_indices(len(atomic_numbers), k=1)
    distances = np.linalg.norm(positions[first] - positions[second], axis=-1)
    pair = np.sort(np.stack([atomic_numbers[first], atomic_numbers[second]]), axis=0)
    order = np.lexsort((distances, pair[1], pair[0]))
    return Fingerprint(
        f"{formula} {charge:+d} {spin_multiplicity}", distances[order].astype(np.float32)
    )


def read_all(dataset: Manifest) -> list[Fingerprint]:
    """Fingerprints of all samples of a local dataset, with a progress bar; matrices are not
    decoded.

    Raises:
        ValueError: a sample that cannot be read; names shard and key.
    """
    return [
        _read(dataset, index)
        for index in tqdm(
            range(len(dataset)), desc="geometries", unit="molecule", dynamic_ncols=True
        )
    ]


def find(prints: list[Fingerprint], tolerance: float) -> Iterator[tuple[int, int, float]]:
    """Yield the pairs of samples whose sorted distances differ by at most a tolerance: (i, j,
    largest difference), Angstrom."""
    members: dict[str, list[int]] = {}
    for index, one in enumerate(prints):
        members.setdefault(one.composition, []).append(index)
    for indices in members.values():
        yield from _near(
            np.array(indices), np.stack([prints[i].distances for i in indices]), tolerance
        )


def _near(
    indices: np.ndarray, distances: np.ndarray, tolerance: float
) -> Iterator[tuple[int, int, float]]:
    """Near pairs of one composition: sorted by the distance that varies most, they lie within a
    window."""
    if distances.shape[1] == 0:
        distances = np.zeros((len(indices), 1), dtype=np.float32)  # single atoms
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
    """Header and geometry of one sample."""
    path = dataset.folder / dataset.shards[dataset.shard[index]].name
    try:
        with path.open("rb") as file:
            file.seek(int(dataset.offset[index]))
            content = file.read(int(dataset.size[index]))
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            text, arrays = (
                tar.extractfile(f"{dataset.key[index]}.{ending}") for ending in ("json", "npz")
            )
            assert text is not None and arrays is not None
            header = json.loads(text.read())
            with np.load(arrays, allow_pickle=False) as stored:
                numbers, positions = stored["atomic_numbers"], stored["positions"]
        return fingerprint(
            numbers, positions, int(header["charge"]), int(header["spin_multiplicity"])
        )
    except (OSError, KeyError, ValueError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{dataset.where(index)}: cannot be read ({error}); run helm-scale shards verify"
        ) from None
