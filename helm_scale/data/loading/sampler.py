"""Which molecule is seen when: a deterministic row of samples, cut into global steps, each packed
into bins of equal cost.

Every dataset has an endless row of shuffled epochs (epochs.py); where several are mixed, a fixed
pattern says which of them is next, so that any stretch of the mixture holds them by their weights.
A global step takes the next `batch_molecules` of the mixture; where an epoch ends in mid-step the
step carries on into the next epoch, so that every step has the same size and nothing is dropped. A
step is packed into bins whose number is fixed by the config: rank r of W takes bins r, r+W, ..., so
that neither order nor packing depends on the number of ranks, and any step is found in constant
time.
"""

import heapq
from collections.abc import Sequence

import numpy as np

from helm_scale.data.loading.epochs import ShuffledEpochs

PATTERN = (
    10_000  # length of the pattern by which datasets are mixed: weights are kept to so many parts
)


def pack(costs: Sequence[float] | np.ndarray, bins: int) -> list[list[int]]:
    """Spread items over bins: the costliest first, each into the bin with the least load (greedy
    LPT).

    No bin is empty while another holds two items. Equal inputs give equal bins.

    Returns:
        positions in `costs` of every bin, ascending.
    """
    order = sorted(range(len(costs)), key=lambda i: (-costs[i], i))
    loads = [(0.0, 0, number) for number in range(bins)]  # load, items, bin: a heap
    packed: list[list[int]] = [[] for _ in range(bins)]
    for i in order:
        load, items, number = loads[0]
        heapq.heapreplace(loads, (load + float(costs[i]), items + 1, number))
        packed[number].append(i)
    return [sorted(members) for members in packed]


def check_world_size(bins: int, world_size: int) -> None:
    """Raise ValueError unless the number of ranks divides the number of bins."""
    if bins % world_size:
        larger = -(-bins // world_size) * world_size
        raise ValueError(
            f"training.micro_batches: got {bins}, but {world_size} ranks do not divide it;"
            f" start as many ranks as divide {bins}, or set training.micro_batches to {larger} (the same seed then packs steps anew)"
        )


class Sampler:
    """Samples of every global step and their bins.

    Args:
        rows: the samples of every dataset. costs: work estimate of all samples of all datasets, by
            sample number.
        batch_molecules: samples per global step. bins: parts of a step.
        weights: share of each dataset; none: each sample is seen equally often.
    Raises:
        ValueError: fewer molecules per step than bins, or not one positive weight per dataset.
    """

    def __init__(
        self,
        rows: Sequence[ShuffledEpochs],
        costs: np.ndarray,
        batch_molecules: int,
        bins: int,
        weights: Sequence[float] = (),
    ) -> None:
        if batch_molecules < bins:
            raise ValueError(
                f"training.batch_molecules: got {batch_molecules}, wanted at least training.micro_batches = {bins}: bins would be empty"
            )
        self.batch_molecules, self.micro_batches = batch_molecules, bins
        self._rows, self._costs, self._samples = rows, costs, sum(len(row) for row in rows)
        self._pattern = _pattern(weights or [len(row) for row in rows], len(rows))

    def epoch_of(self, step: int) -> int:
        """Epoch, from 0, of the first sample of a step (from 0): how often as many samples as there
        are were seen."""
        return step * self.batch_molecules // self._samples

    def samples_of(self, step: int) -> list[int]:
        """Sample numbers of a step, in plan order; a sample may occur twice where an epoch ends."""
        return [
            int(i)
            for i in self._at(
                np.arange(step * self.batch_molecules, (step + 1) * self.batch_molecules)
            )
        ]

    def head(self, count: int) -> list[int]:
        """The first samples of the mixture, each once: a random choice that does not depend on the
        step size."""
        return list(dict.fromkeys(int(i) for i in self._at(np.arange(min(count, self._samples)))))

    def micro_batches_of(self, step: int) -> list[list[int]]:
        """Sample numbers of every bin of a step."""
        samples = self.samples_of(step)
        return [
            [samples[i] for i in members]
            for members in pack(self._costs[samples], self.micro_batches)
        ]

    def micro_batches_of_rank(self, step: int, rank: int, world_size: int) -> list[list[int]]:
        """The bins of one rank: rank, rank + world_size, ...; equally many on every rank.

        Raises:
            ValueError: world_size does not divide the bins.
        """
        check_world_size(self.micro_batches, world_size)
        return self.micro_batches_of(step)[rank::world_size]

    def _at(self, places: np.ndarray) -> np.ndarray:
        """Samples at places of the mixture."""
        if len(self._rows) == 1:
            return self._rows[0].at(places)
        rounds, inside = np.divmod(places, len(self._pattern))
        found = np.empty(len(places), dtype=np.int64)
        for number, row in enumerate(self._rows):
            mine = self._pattern == number
            here = mine[inside]
            before = np.cumsum(mine) - mine  # how often it occurs in the pattern before each place
            found[here] = row.at(rounds[here] * int(mine.sum()) + before[inside[here]])
        return found


def _pattern(weights: Sequence[float], rows: int) -> np.ndarray:
    """Number of the dataset at every place of the pattern: each as often as its weight says, at
    least once, evenly spread."""
    if len(weights) != rows or min(weights) <= 0:
        raise ValueError(
            f"data.weights: got {list(weights)}, wanted {rows} positive numbers, one per dataset"
        )
    counts = [max(1, round(PATTERN * weight / sum(weights))) for weight in weights]
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return np.repeat(np.arange(rows), counts)[np.argsort(places, kind="stable")]


def validation_micro_batches(
    sample_indices: np.ndarray, costs: np.ndarray, batch_molecules: int, world_size: int
) -> list[list[int]]:
    """Spread a whole split over equally many micro-batches per rank; the last ones may be empty.

    Args:
        batch_molecules: molecules per micro-batch, about.
    Returns:
        sample indices of every micro-batch; rank r takes r, r + world_size, ...
    """
    wanted = -(-len(sample_indices) // batch_molecules)
    rounded = max(-(-wanted // world_size), 1) * world_size
    return [[int(sample_indices[i]) for i in members] for members in pack(costs, rounded)]
