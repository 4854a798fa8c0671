"""Shuffles the samples of one dataset, epoch after epoch, without end.

The order is a function of manifest hash, seed and epoch alone. Without windows an epoch is one
permutation of the split. With windows the shards are permuted, and the samples of every few shards,
a window, are permuted among themselves: then only the shards of a window need to be at hand, and
any place is found from the sizes of the shards, without a permutation of all samples.
"""

import functools
import hashlib

import numpy as np

LARGE = 1 << 20  # entries of a permutation that is sorted in parts


class ShuffledEpochs:
    """Samples in the order in which they are seen, epoch after epoch.

    Args:
        manifest_hash: identifies the dataset. samples: of the split, ascending. seed: of the order.
        shards: shard of each sample, given where there are windows.
        window: shards per window; 0: no windows.
    Raises:
        ValueError: no samples.
    """

    def __init__(
        self,
        manifest_hash: str,
        samples: np.ndarray,
        *,
        seed: int,
        shards: np.ndarray | None = None,
        window: int = 0,
    ) -> None:
        if len(samples) == 0:
            raise ValueError("data.train_split: got a split without molecules, wanted at least one")
        self._name, self._samples = f"{manifest_hash} {seed}", np.asarray(samples)
        self._window = window
        if shards is not None:
            by_shard = np.argsort(shards, kind="stable")
            self._samples = self._samples[by_shard]
            starts = np.unique(np.asarray(shards)[by_shard], return_index=True)[1]
            self._bounds = np.append(starts, len(samples))
        # A step seldom touches more than two epochs or windows, and the next may begin a third.
        self._epoch = functools.lru_cache(maxsize=3)(self._windows_of_epoch)
        self._members = functools.lru_cache(maxsize=3)(self._members_of_window)

    def __len__(self) -> int:
        """Samples per epoch."""
        return len(self._samples)

    def at(self, places: np.ndarray) -> np.ndarray:
        """Samples at places, which count on from epoch to epoch: int64, of the shape of places."""
        samples = np.empty(len(places), dtype=np.int64)
        epochs, inside = np.divmod(places, len(self))
        for epoch in np.unique(epochs):
            ends, _ = self._epoch(int(epoch))
            in_epoch = epochs == epoch
            windows = np.searchsorted(ends, inside, side="right")
            for window in np.unique(windows[in_epoch]):
                in_window = in_epoch & (windows == window)
                members, order = self._members(int(epoch), int(window))
                start = ends[window] - len(members)
                samples[in_window] = members[order.at(inside[in_window] - start)]
        return samples

    def _windows_of_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Place where each window of an epoch ends, and the epoch's order of the shards."""
        if not self._window:
            return np.array([len(self)]), np.zeros(1, dtype=np.int64)
        shards = len(self._bounds) - 1
        order = _Permutation(f"{self._name} {epoch} shards", shards).at(np.arange(shards))
        ends = np.cumsum(np.diff(self._bounds)[order])
        # The last window may hold fewer shards; unique drops its end where it is a full one.
        return np.unique(np.append(ends[self._window - 1 :: self._window], len(self))), order

    def _members_of_window(self, epoch: int, window: int) -> tuple[np.ndarray, "_Permutation"]:
        """Samples of a window, and the order in which they come."""
        if not self._window:
            return self._samples, _Permutation(f"{self._name} {epoch}", len(self))
        shards = self._epoch(epoch)[1][window * self._window : (window + 1) * self._window]
        members = np.concatenate(
            [self._samples[self._bounds[s] : self._bounds[s + 1]] for s in shards]
        )
        return members, _Permutation(f"{self._name} {epoch} window {window}", len(members))


class _Permutation:
    """The permutation of 0 ... count-1 that sorts random keys, sorted only where it is read.

    A large one is sorted in 256 parts, by the first byte of the keys: to sort ten million takes
    seconds, and a step needs one part. Keys are raw random bits, which numpy keeps the same between
    its versions (unlike numpy.random.Generator.permutation).
    """

    def __init__(self, name: str, count: int) -> None:
        seed = hashlib.sha256(name.encode()).digest()
        self._keys = np.random.PCG64(int.from_bytes(seed)).random_raw(count)
        self._part_of = np.zeros(count, dtype=np.uint8)
        if count >= LARGE:
            self._part_of = (self._keys >> np.uint64(56)).astype(np.uint8)
        self._ends = np.cumsum(np.bincount(self._part_of))
        self._part = functools.lru_cache(maxsize=4)(self._sorted_part)

    def at(self, places: np.ndarray) -> np.ndarray:
        """Entries at places."""
        entries = np.empty(len(places), dtype=np.int64)
        numbers = np.searchsorted(self._ends, places, side="right")
        for number in np.unique(numbers):
            part, in_part = self._part(int(number)), numbers == number
            start = self._ends[number] - len(part)
            entries[in_part] = part[places[in_part] - start]
        return entries

    def _sorted_part(self, number: int) -> np.ndarray:
        members = np.flatnonzero(self._part_of == number)
        # Stable: two equal keys of 64 bits, however unlikely, give one order on every machine.
        return members[np.argsort(self._keys[members], kind="stable")]
