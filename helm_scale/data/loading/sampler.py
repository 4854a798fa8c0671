"""Chooses the molecules of every training step and packs them into micro-batches of equal cost.

Every dataset has an endless row of shuffled epochs (epochs.py); where several are mixed, a fixed
pattern says which of them is next, so that any stretch of the mixture holds them by their weights.
A global step takes the next `batch_molecules` of the mixture; where an epoch ends in mid-step the
step carries on into the next epoch, so that every step has the same size and nothing is dropped. A
step is packed into micro-batches: rank r of W takes r, r+W, ... Any step is found in constant time.
Its samples do not depend on the number of ranks, nor does the packing where the config fixes the
number of micro-batches and the ranks divide it.
"""

import heapq
from collections.abc import Sequence

import numpy as np

from helm_scale.data.loading.epochs import ShuffledEpochs

PATTERN = 10_000  # length of the pattern by which datasets are mixed: weights to so many parts


def pack(costs: Sequence[float] | np.ndarray, bins: int) -> list[list[int]]:
    """Spread items over bins of about equal cost; no bin is empty while another holds two items.

    The costliest comes first, each into the bin with the least load (longest processing time
    first; Graham 1969): at most 4/3 of the best. Equal inputs give equal bins.

    Returns:
        positions in `costs` of every bin, ascending.
    """
    # Ties go by position, so that the packing is the same on every rank and machine.
    order = np.argsort(-np.asarray(costs, dtype=np.float64), kind="stable")
    loads = [(0.0, 0, number) for number in range(bins)]  # load, items, bin: a heap
    packed: list[list[int]] = [[] for _ in range(bins)]
    for i, cost in zip(order.tolist(), np.asarray(costs)[order].tolist(), strict=True):
        load, items, number = loads[0]
        heapq.heapreplace(loads, (load + cost, items + 1, number))
        packed[number].append(i)
    return [sorted(members) for members in packed]


class Sampler:
    """The samples of every global step, and how they are packed into micro-batches.

    Args:
        datasets: the samples of every dataset. costs: work estimate of all samples of all
            datasets, by sample number.
        batch_molecules: samples per global step.
        micro_batches: parts of a step; some are empty where they are more than the samples.
        ranks: that are to be loaded evenly, a divisor of micro_batches; each divides its share
            evenly, too. None: every micro-batch is as costly as any other.
        weights: share of each dataset; none: each sample is seen equally often.
    Raises:
        ValueError: not one positive weight per dataset.
    """

    def __init__(
        self,
        datasets: Sequence[ShuffledEpochs],
        costs: np.ndarray,
        *,
        batch_molecules: int,
        micro_batches: int,
        ranks: int | None = None,
        weights: Sequence[float] = (),
    ) -> None:
        self._ranks = ranks or micro_batches
        assert micro_batches % self._ranks == 0
        self.batch_molecules, self.micro_batches = batch_molecules, micro_batches
        self._datasets, self._costs = datasets, costs
        self._samples = sum(len(dataset) for dataset in datasets)
        sizes = [len(dataset) for dataset in datasets]
        self._pattern = _pattern(weights or sizes, len(datasets))

    def epoch_of(self, step: int) -> int:
        """Epoch, from 0, in which a step (from 0) begins: passes over all samples."""
        return step * self.batch_molecules // self._samples

    def samples_of(self, step: int) -> list[int]:
        """Sample numbers of a step, in order; a sample may occur twice where an epoch ends."""
        first = step * self.batch_molecules
        return self._at(np.arange(first, first + self.batch_molecules)).tolist()

    def head(self, count: int) -> list[int]:
        """First samples of the mixture, each once: a random choice that no step size changes."""
        return list(dict.fromkeys(self._at(np.arange(min(count, self._samples))).tolist()))

    def micro_batches_of(self, step: int) -> list[list[int]]:
        """Sample numbers of every micro-batch of a step."""
        samples = np.array(self.samples_of(step))
        costs, per_rank = self._costs[samples], self.micro_batches // self._ranks
        shares = pack(costs, self._ranks)
        if per_rank == 1:
            return [samples[share].tolist() if share else [] for share in shares]
        divided = [
            [samples[share][part].tolist() if part else [] for part in pack(costs[share], per_rank)]
            for share in (np.array(share, dtype=np.int64) for share in shares)
        ]
        # rank r finds its own at r, r + ranks, ...
        return [of_rank[number] for number in range(per_rank) for of_rank in divided]

    def micro_batches_of_rank(self, step: int, rank: int, world_size: int) -> list[list[int]]:
        """Micro-batches rank, rank + world_size, ... of a step; equally many on every rank."""
        assert self.micro_batches % world_size == 0
        return self.micro_batches_of(step)[rank::world_size]

    def _at(self, places: np.ndarray) -> np.ndarray:
        """Samples at places of the mixture: int64, of the shape of places."""
        if len(self._datasets) == 1:
            return self._datasets[0].at(places)
        rounds, inside = np.divmod(places, len(self._pattern))
        samples = np.empty(len(places), dtype=np.int64)
        for number, dataset in enumerate(self._datasets):
            in_pattern = self._pattern == number
            chosen = in_pattern[inside]
            # How often the dataset occurs in the pattern before each place.
            before = np.cumsum(in_pattern) - in_pattern
            per_round = int(in_pattern.sum())
            samples[chosen] = dataset.at(rounds[chosen] * per_round + before[inside[chosen]])
        return samples


def _pattern(weights: Sequence[float], datasets: int) -> np.ndarray:
    """Number of the dataset at every place of the pattern, evenly spread by weight.

    Each dataset occurs at least once, however small its weight.
    """
    if len(weights) != datasets or min(weights) <= 0:
        raise ValueError(
            f"data.weights: got {list(weights)}, wanted {datasets} positive numbers,"
            " one per dataset"
        )
    counts = [max(1, round(PATTERN * weight / sum(weights))) for weight in weights]
    # Each dataset takes equidistant places of [0, 1); sorted together they are the pattern.
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return np.repeat(np.arange(datasets), counts)[np.argsort(places, kind="stable")]


def validation_micro_batches(
    sample_indices: np.ndarray, costs: np.ndarray, *, batch_molecules: int, world_size: int
) -> list[list[int]]:
    """Pack a whole split into equally many micro-batches per rank; the last ones may be empty.

    Args:
        batch_molecules: molecules per micro-batch, about.
    Returns:
        sample indices of every micro-batch; rank r takes r, r + world_size, ...
    """
    count = -(-len(sample_indices) // batch_molecules)
    # Equally many on every rank, if only of empty ones: a collective waits for all ranks.
    rounded = max(-(-count // world_size), 1) * world_size
    return [[int(sample_indices[i]) for i in members] for members in pack(costs, rounded)]
