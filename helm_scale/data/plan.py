"""Which molecule is seen when: a deterministic order, cut into global steps, each packed into bins of equal cost.

The order is an endless row of shuffled epochs, a function of (manifest hash, seed, epoch) alone. A global step takes the
next `batch_molecules` of the row; where an epoch ends in mid-step the step carries on into the next epoch, so that every
step has the same size and nothing is dropped. A step is packed into bins whose number is fixed by the config: rank r of W
takes bins r, r+W, ..., so that neither order nor packing depends on the number of ranks, and any step is found in
constant time.
"""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np


def pack(costs: Sequence[float] | np.ndarray, bins: int) -> list[list[int]]:
    """Spread items over bins: the costliest first, each into the bin with the least load (greedy LPT).

    No bin is empty while another holds two items. Equal inputs give equal bins.

    Returns:
        positions in `costs` of every bin, ascending.
    """
    order = sorted(range(len(costs)), key=lambda i: (-costs[i], i))
    loads = [(0.0, 0, number) for number in range(bins)]  # load, items, bin
    packed: list[list[int]] = [[] for _ in range(bins)]
    for i in order:
        load, items, number = min(loads)
        loads[number] = (load + float(costs[i]), items + 1, number)
        packed[number].append(i)
    return [sorted(members) for members in packed]


def check_world_size(bins: int, world_size: int) -> None:
    """Raise ValueError unless the number of ranks divides the number of bins."""
    if bins % world_size:
        larger = -(-bins // world_size) * world_size
        raise ValueError(
            f"training.bins: got {bins}, but {world_size} ranks do not divide it;"
            f" start as many ranks as divide {bins}, or set training.bins to {larger} (the same seed then packs steps anew)"
        )


class StepPlan:
    """Samples of every global step and their bins.

    Args:
        manifest_hash: identifies the dataset. sample_indices: samples of the split. costs: work estimate of each of them.
        batch_molecules: samples per global step. bins: parts of a step. seed: seed of the order.
    Raises:
        ValueError: no samples, or fewer molecules per step than bins.
    """

    def __init__(
        self, manifest_hash: str, sample_indices: np.ndarray, costs: np.ndarray, batch_molecules: int, bins: int, seed: int
    ) -> None:
        if len(sample_indices) == 0:
            raise ValueError("data.train_split: got a split without molecules, wanted at least one")
        if batch_molecules < bins:
            raise ValueError(
                f"training.batch_molecules: got {batch_molecules}, wanted at least training.bins = {bins}: bins would be empty"
            )
        self.manifest_hash, self.batch_molecules, self.bins, self.seed = manifest_hash, batch_molecules, bins, seed
        self._samples, self._costs = np.asarray(sample_indices), np.asarray(costs, dtype=np.float64)
        self._order = functools.lru_cache(maxsize=4)(self._shuffle)

    def epoch_of(self, step: int) -> int:
        """Epoch, from 0, of the first sample of a step (from 0)."""
        return step * self.batch_molecules // len(self._samples)

    def samples_of(self, step: int) -> list[int]:
        """Sample indices of a step, in plan order; a sample may occur twice where an epoch ends."""
        return [int(i) for i in self._samples[self._positions(step)]]

    def head(self, count: int) -> list[int]:
        """The first samples of the row, each once: a random choice from the split that does not depend on the step size."""
        return [int(i) for i in self._samples[self._order(0)[:count]]]

    def bins_of(self, step: int) -> list[list[int]]:
        """Sample indices of every bin of a step."""
        positions = self._positions(step)
        return [[int(self._samples[positions[i]]) for i in members] for members in pack(self._costs[positions], self.bins)]

    def bins_of_rank(self, step: int, rank: int, world_size: int) -> list[list[int]]:
        """The bins of one rank: rank, rank + world_size, ...; equally many on every rank.

        Raises:
            ValueError: world_size does not divide the bins.
        """
        check_world_size(self.bins, world_size)
        return self.bins_of(step)[rank::world_size]

    def _positions(self, step: int) -> np.ndarray:
        """Places in the split of a step's samples."""
        row = np.arange(step * self.batch_molecules, (step + 1) * self.batch_molecules)
        epochs, places = np.divmod(row, len(self._samples))
        return np.array([self._order(int(epoch))[place] for epoch, place in zip(epochs, places, strict=True)])

    def _shuffle(self, epoch: int) -> np.ndarray:
        """Permutation of an epoch, from raw random bits, which numpy keeps the same between its versions."""
        seed = hashlib.sha256(f"{self.manifest_hash} {self.seed} {epoch}".encode()).digest()
        return np.argsort(np.random.PCG64(int.from_bytes(seed)).random_raw(len(self._samples)), kind="stable")


def validation_bins(sample_indices: np.ndarray, costs: np.ndarray, batch_molecules: int, world_size: int) -> list[list[int]]:
    """Spread a whole split over equally many micro-batches per rank; the last ones may be empty.

    Args:
        batch_molecules: molecules per micro-batch, about.
    Returns:
        sample indices of every micro-batch; rank r takes r, r + world_size, ...
    """
    wanted = -(-len(sample_indices) // batch_molecules)
    rounded = max(-(-wanted // world_size), 1) * world_size
    return [[int(sample_indices[i]) for i in members] for members in pack(costs, rounded)]
