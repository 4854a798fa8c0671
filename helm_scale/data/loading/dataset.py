"""The data of a run: one dataset or a mixture, local or remote, as one row of numbered samples."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from helm_scale.basis import elements
from helm_scale.config import DataConfig
from helm_scale.data.format import cache, codec
from helm_scale.data.format.compatibility import check_same_labels
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader
from helm_scale.data.loading.epochs import ShuffledEpochs
from helm_scale.data.loading.sampler import Sampler
from helm_scale.types import Method, Molecule


@dataclass(frozen=True)
class Dataset:
    """Datasets of one method and one set of labels; the samples of the second are numbered on from
    those of the first.

    Attributes:
        manifests: of the datasets. readers: of their samples. config: how they are mixed and
            ordered.
    """

    manifests: tuple[Manifest, ...]
    readers: tuple[ShardReader, ...]
    config: DataConfig

    @classmethod
    def open(cls, config: DataConfig) -> "Dataset":
        """Open the datasets at config.path; manifests of remote ones are fetched, shards when they
        are needed.

        Raises:
            ValueError: a dataset is missing or damaged, or two of them differ in method or labels.
        """
        opened = [
            _open(path, config)
            for path in ([config.path] if isinstance(config.path, str) else config.path)
        ]
        found = cls(
            tuple(manifest for manifest, _ in opened), tuple(reader for _, reader in opened), config
        )
        first = found.manifests[0]
        for other in found.manifests[1:]:
            check_same_labels(
                f"data.path: {first.folder}",
                first.label_kind,
                other=other.folder,
                wanted=other.label_kind,
                remedy="train on datasets of one method and one set of labels",
            )
        return found

    def __len__(self) -> int:
        """Number of samples."""
        return sum(map(len, self.manifests))

    @property
    def folder(self) -> str:
        """Where the data lies, for messages."""
        return (
            self.config.path if isinstance(self.config.path, str) else ", ".join(self.config.path)
        )

    @property
    def hash(self) -> str:
        """Identifies samples and order: the manifest's SHA-256, or where datasets or windows
        matter, one of all that does."""
        if len(self.manifests) == 1 and not self.config.shuffle_window:
            return self.manifests[0].hash
        parts = [
            *(one.hash for one in self.manifests),
            str(self.config.weights),
            str(self.config.shuffle_window),
        ]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @property
    def local(self) -> list[Manifest]:
        """The datasets whose shards are all at hand."""
        paths = [self.config.path] if isinstance(self.config.path, str) else self.config.path
        return [
            one
            for one, path in zip(self.manifests, paths, strict=True)
            if not cache.is_remote(path)
        ]

    @property
    def method(self) -> Method:
        """Method of all labels."""
        return self.manifests[0].method

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of all samples."""
        return self.manifests[0].labels

    @property
    def licence(self) -> str:
        """Licences of all datasets."""
        return " AND ".join(dict.fromkeys(one.licence for one in self.manifests))

    @property
    def elements(self) -> dict[str, int]:
        """Atoms per element."""
        total: Counter[str] = Counter()
        for one in self.manifests:
            total.update(one.elements)
        return {symbol: total[symbol] for symbol in sorted(total, key=elements.atomic_number)}

    @cached_property
    def cost(self) -> np.ndarray:
        """Work estimate of every sample, by number."""
        columns = [one.cost for one in self.manifests]
        return columns[0] if len(columns) == 1 else np.concatenate(columns)

    @cached_property
    def atoms(self) -> np.ndarray:
        """Atoms of every sample, by number."""
        columns = [one.atoms for one in self.manifests]
        return columns[0] if len(columns) == 1 else np.concatenate(columns)

    @property
    def key(self) -> "_SampleKeys":
        """Keys of the samples, by number."""
        return _SampleKeys(self)

    def split(self, name: str) -> np.ndarray:
        """Samples of a split, ascending: int64.

        Raises:
            ValueError: no dataset has it; names the known ones.
        """
        parts = [
            one.split(name) + first
            for one, first in zip(self.manifests, self._first, strict=True)
            if name in one.names_of_splits
        ]
        return np.concatenate(parts) if parts else self.manifests[0].split(name)

    def sampler(self, batch_molecules: int, micro_batches: int, seed: int) -> Sampler:
        """The order of training.

        Raises:
            ValueError: a dataset without a training split, or weights that do not fit the datasets.
        """
        rows = []
        for one, first in zip(self.manifests, self._first, strict=True):
            samples = one.split(self.config.train_split)
            shards = one.shard[samples] if self.config.shuffle_window else None
            rows.append(
                ShuffledEpochs(one.hash, samples + first, seed, shards, self.config.shuffle_window)
            )
        return Sampler(rows, self.cost, batch_molecules, micro_batches, self.config.weights)

    def size(self, index: int) -> int:
        """Bytes of a sample in its shard."""
        reader, place = self._place(index)
        return reader.size(place)

    def expect(self, index: int) -> None:
        """Announce a sample; see ShardReader.expect."""
        reader, place = self._place(index)
        reader.expect(place)

    def read_stored(self, index: int, memory: memoryview) -> codec.StoredSample:
        """Read a sample; see ShardReader.read_stored."""
        reader, place = self._place(index)
        return reader.read_stored(place, memory)

    def read(self, index: int) -> Molecule:
        """Read a sample; see ShardReader.read."""
        reader, place = self._place(index)
        return reader.read(place)

    @cached_property
    def _first(self) -> list[int]:
        return [0, *np.cumsum([len(one) for one in self.manifests]).tolist()][:-1]

    def _place(self, index: int) -> tuple[ShardReader, int]:
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        return self.readers[number], index - self._first[number]


class _SampleKeys(Sequence[str]):
    """Keys of a dataset, by sample number."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        reader, place = self._dataset._place(int(index))
        return reader.manifest.key[place]


def _open(path: str, config: DataConfig) -> tuple[Manifest, ShardReader]:
    skips = config.damaged == "quarantine"
    if not cache.is_remote(path):
        found = Manifest.load(path)
        return found, ShardReader(found, missing=skips)
    remote, folder = cache.RemoteFolder(path), Path(config.cache)
    found = cache.fetch_manifest(remote, folder)
    return found, ShardReader(
        found, cache.CachedShards(remote, found.folder, int(config.cache_gb * 1e9))
    )
