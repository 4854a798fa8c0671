"""The endless row of one dataset's samples: shuffled epochs, a function of (manifest hash, seed, epoch) alone.

Without windows an epoch is one permutation of the split. With windows the shards are permuted, and the samples of every few
shards, a window, are permuted among themselves: then only the shards of a window need to be at hand, and a place of the
row is found from the sizes of the shards, without a permutation of all samples.
"""

import functools
import hashlib

import numpy as np


class Row:
    """Samples in the order in which they are seen.

    Args:
        manifest_hash: identifies the dataset. samples: of the split, ascending. seed: seed of the order.
        shards: shard of each sample, given where there are windows. window: shards per window; 0: no windows.
    Raises:
        ValueError: no samples.
    """

    def __init__(self, manifest_hash: str, samples: np.ndarray, seed: int, shards: np.ndarray | None = None, window: int = 0) -> None:
        if len(samples) == 0:
            raise ValueError("data.train_split: got a split without molecules, wanted at least one")
        self._name, self._samples = f"{manifest_hash} {seed}", np.asarray(samples)
        self._window = window
        if shards is not None:
            by_shard = np.argsort(shards, kind="stable")
            self._samples = self._samples[by_shard]
            starts = np.unique(np.asarray(shards)[by_shard], return_index=True)[1]
            self._bounds = np.append(starts, len(samples))
        self._epoch = functools.lru_cache(maxsize=3)(self._windows_of_epoch)
        self._members = functools.lru_cache(maxsize=3)(self._members_of_window)

    def __len__(self) -> int:
        """Samples per epoch."""
        return len(self._samples)

    def at(self, places: np.ndarray) -> np.ndarray:
        """Samples at places of the row, which counts on from epoch to epoch: int64, of the shape of places."""
        found = np.empty(len(places), dtype=np.int64)
        epochs, inside = np.divmod(places, len(self))
        for epoch in np.unique(epochs):
            ends, _ = self._epoch(int(epoch))
            here = epochs == epoch
            windows = np.searchsorted(ends, inside[here], side="right")
            starts = np.append(0, ends)[windows]
            picked = [self._members(int(epoch), int(w))[p] for w, p in zip(windows, inside[here] - starts, strict=True)]
            found[here] = picked
        return found

    def _windows_of_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Place where each window of an epoch ends, and the epoch's order of the shards."""
        if not self._window:
            return np.array([len(self)]), np.zeros(1, dtype=np.int64)
        order = _shuffled(f"{self._name} {epoch} shards", len(self._bounds) - 1)
        ends = np.cumsum(np.diff(self._bounds)[order])
        return np.unique(np.append(ends[self._window - 1 :: self._window], len(self))), order

    def _members_of_window(self, epoch: int, window: int) -> np.ndarray:
        """Samples of a window, shuffled."""
        if not self._window:
            return self._samples[_shuffled(f"{self._name} {epoch}", len(self))]
        shards = self._epoch(epoch)[1][window * self._window : (window + 1) * self._window]
        members = np.concatenate([self._samples[self._bounds[s] : self._bounds[s + 1]] for s in shards])
        return members[_shuffled(f"{self._name} {epoch} window {window}", len(members))]


def _shuffled(name: str, count: int) -> np.ndarray:
    """A permutation of 0 ... count-1, from raw random bits, which numpy keeps the same between its versions."""
    seed = hashlib.sha256(name.encode()).digest()
    return np.argsort(np.random.PCG64(int.from_bytes(seed)).random_raw(count), kind="stable")
