"""Opens the data of a run, one dataset or a mixture, local or remote, as one list of samples."""

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
    """Samples of one method and one set of labels, from one folder or several.

    The samples of the second folder are numbered on from those of the first.

    Attributes:
        manifests: of the folders. readers: of their samples. config: how they are mixed.
    """

    manifests: tuple[Manifest, ...]
    readers: tuple[ShardReader, ...]
    config: DataConfig

    @classmethod
    def open(cls, config: DataConfig) -> "Dataset":
        """Open what config.path names; of remote datasets only the manifest is fetched at once.

        Raises:
            ValueError: a dataset is missing or damaged, or two of them differ in method or labels.
        """
        readers = tuple(_open(path, config) for path in _paths(config))
        manifests = tuple(reader.manifest for reader in readers)
        reference = manifests[0]
        # A Hamiltonian means nothing without its method: mixed labels would train to a mean of two.
        for manifest in manifests[1:]:
            check_same_labels(
                f"data.path: {reference.folder}",
                reference.label_kind,
                other=manifest.folder,
                wanted=manifest.label_kind,
                remedy="train on datasets of one method and one set of labels",
            )
        return cls(manifests, readers, config)

    def __len__(self) -> int:
        """Number of samples."""
        return sum(map(len, self.manifests))

    @property
    def folder(self) -> str:
        """Where the data lies, for messages."""
        return ", ".join(_paths(self.config))

    @property
    def hash(self) -> str:
        """Identify samples and their order: SHA-256 of the manifest, or of all that matters."""
        # The usual case keeps the hash that runs have recorded since there was one dataset only.
        if len(self.manifests) == 1 and not self.config.shuffle_window:
            return self.manifests[0].hash
        identity = [
            *(manifest.hash for manifest in self.manifests),
            str(self.config.weights),
            str(self.config.shuffle_window),
        ]
        return hashlib.sha256(" ".join(identity).encode()).hexdigest()

    @property
    def local(self) -> list[Manifest]:
        """Manifests of the folders that are not remote."""
        paths = zip(self.manifests, _paths(self.config), strict=True)
        return [manifest for manifest, path in paths if not cache.is_remote(path)]

    @property
    def remote(self) -> list[Manifest]:
        """Manifests of the folders that are remote."""
        paths = zip(self.manifests, _paths(self.config), strict=True)
        return [manifest for manifest, path in paths if cache.is_remote(path)]

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
        # An SPDX expression; dict.fromkeys removes repetitions and keeps the order.
        return " AND ".join(dict.fromkeys(manifest.licence for manifest in self.manifests))

    @property
    def elements(self) -> dict[str, int]:
        """Atoms per element."""
        total: Counter[str] = Counter()
        for manifest in self.manifests:
            total.update(manifest.elements)
        return {symbol: total[symbol] for symbol in sorted(total, key=elements.atomic_number)}

    @cached_property
    def cost(self) -> np.ndarray:
        """Work estimate of every sample, by number."""
        columns = [manifest.cost for manifest in self.manifests]
        # Not copied where there is one dataset, which is the rule: columns may have 1e8 entries.
        return columns[0] if len(columns) == 1 else np.concatenate(columns)

    @cached_property
    def atoms(self) -> np.ndarray:
        """Atoms of every sample, by number."""
        columns = [manifest.atoms for manifest in self.manifests]
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
        samples = [
            manifest.split(name) + offset
            for manifest, offset in zip(self.manifests, self._offsets, strict=True)
            if name in manifest.names_of_splits
        ]
        # The manifest raises the error, which names the splits that there are.
        return np.concatenate(samples) if samples else self.manifests[0].split(name)

    def sampler(
        self, *, batch_molecules: int, micro_batches: int, seed: int, ranks: int | None = None
    ) -> Sampler:
        """Make the sampler of the training split; arguments as those of Sampler.

        Raises:
            ValueError: a dataset without a training split, or weights that do not fit the datasets.
        """
        config, epochs = self.config, []
        for manifest, offset in zip(self.manifests, self._offsets, strict=True):
            samples = manifest.split(config.train_split)
            shards = manifest.shard[samples] if config.shuffle_window else None
            epochs.append(
                ShuffledEpochs(
                    manifest.hash,
                    samples + offset,
                    seed=seed,
                    shards=shards,
                    window=config.shuffle_window,
                )
            )
        return Sampler(
            epochs,
            self.cost,
            batch_molecules=batch_molecules,
            micro_batches=micro_batches,
            ranks=ranks,
            weights=config.weights,
        )

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
    def _offsets(self) -> list[int]:
        """Number of the first sample of every dataset."""
        return [0, *np.cumsum([len(manifest) for manifest in self.manifests]).tolist()][:-1]

    def _place(self, index: int) -> tuple[ShardReader, int]:
        """Reader of a sample, and its number there."""
        number = int(np.searchsorted(self._offsets, index, side="right")) - 1
        return self.readers[number], index - self._offsets[number]


class _SampleKeys(Sequence[str]):
    """Keys of a dataset, by sample number."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        reader, place = self._dataset._place(int(index))
        return reader.manifest.key[place]


def _paths(config: DataConfig) -> tuple[str, ...]:
    return (config.path,) if isinstance(config.path, str) else config.path


def _open(path: str, config: DataConfig) -> ShardReader:
    """Open a local folder, or fetch the manifest of a remote one."""
    if not cache.is_remote(path):
        return ShardReader(Manifest.load(path), missing=config.damaged == "quarantine")
    remote = cache.RemoteFolder(path)
    manifest = cache.fetch_manifest(remote, Path(config.cache))
    limit = int(config.cache_gb * 1e9)
    return ShardReader(manifest, cache.CachedShards(remote, manifest.folder, limit))
