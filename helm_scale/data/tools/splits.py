"""Splits that do not leak: like samples stay on one side, and leaks of a division are found."""

import shutil
from collections.abc import Sequence

import numpy as np

from helm_scale.config import LeaksConfig, SplitConfig
from helm_scale.data.format import manifest
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.tools import near_duplicates
from helm_scale.data.tools.near_duplicates import Fingerprint

NAMES = ("train", "validation", "test")
SHOWN = 3  # examples in a message


def divide(config: SplitConfig) -> tuple[Manifest, int]:
    """Divide a dataset anew into train, validation and test; like samples stay on one side.

    Returns:
        The dataset with its new manifest, and the number of groups of like samples.
    Raises:
        ValueError: groups too large to fill every split, or a sample that cannot be read.
    """
    dataset = Manifest.load(config.folder)
    prints = near_duplicates.read_all(dataset)
    if config.by == "composition":
        groups = groups_by_composition(prints)
    else:
        groups = groups_by_geometry(prints, config.tolerance)
    splits = assign(groups, config.fractions, config.seed)
    return rewrite_splits(dataset, splits), int(groups.max()) + 1


def check(config: LeaksConfig) -> str:
    """Check that no near-duplicates lie in different splits.

    Returns:
        One line on that, and one for each two splits on the compositions that they share.
    Raises:
        ValueError: some do; one line for each two splits.
    """
    dataset = Manifest.load(config.folder)
    prints = near_duplicates.read_all(dataset)
    leaking = leaks(dataset, prints, config.tolerance)
    shared = shared_compositions(dataset, prints)
    within = f"within {config.tolerance} Angstrom"
    if leaking:
        lines = [f"{config.folder}: splits leak {within}", *leaking, *shared]
        raise ValueError("\n".join(lines))
    fine = f"{config.folder}: no near-duplicates {within} in different splits"
    return "\n".join([fine, *shared])


def groups_by_composition(prints: list[Fingerprint]) -> np.ndarray:
    """Group samples of one composition, charge and multiplicity: number of each one's group."""
    return np.unique([print_.composition for print_ in prints], return_inverse=True)[1]


def groups_by_geometry(prints: list[Fingerprint], tolerance: float) -> np.ndarray:
    """Group chains of near-duplicates (tolerance in Angstrom): number of each sample's group."""
    # Union-find: every sample points towards the first of its group, paths halved on the way.
    parent = list(range(len(prints)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for i, j, _ in near_duplicates.find(prints, tolerance):
        parent[root(j)] = root(i)
    return np.unique([root(index) for index in range(len(prints))], return_inverse=True)[1]


def assign(groups: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """Give whole groups to train, validation and test.

    The largest group comes first, and each goes to the split that lacks most.

    Args:
        groups: number of every sample's group.
        fractions: wanted shares of the samples; they sum to one.
    Returns:
        Name of every sample's split.
    Raises:
        ValueError: a split that gets nothing.
    """
    sizes = np.bincount(groups)
    # Equal sizes come in random order; the largest first, so that the small ones even out.
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    lacking = np.array(fractions) * len(groups)  # samples that each split still wants
    split_of = np.zeros(len(sizes), dtype=np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        split_of[group] = lacking.argmax()
        lacking[split_of[group]] -= sizes[group]
    splits = np.array(NAMES, dtype=object)[split_of[groups]]
    wanted = [name for name, fraction in zip(NAMES, fractions, strict=True) if fraction > 0]
    empty = [name for name in wanted if not (splits == name).any()]
    if empty:
        raise ValueError(
            f"{len(sizes)} groups (the largest {sizes.max()} of {len(groups)} samples) leave no"
            f" sample for {', '.join(empty)}; divide by geometry, with a smaller tolerance,"
            " or give it a larger share"
        )
    return splits


def rewrite_splits(dataset: Manifest, splits: np.ndarray) -> Manifest:
    """Write the manifest anew with other splits; the old one is kept under its hash."""
    old = dataset.folder / f"manifest-{dataset.hash[:8]}.json"
    shutil.copyfile(dataset.folder / manifest.NAME, old)
    head = {
        name: getattr(dataset, name)
        for name in ("method", "licence", "source", "labels", "elements")
    }
    return manifest.write(
        dataset.folder,
        head,
        shards=dataset.shards,
        samples=dataset.rows(splits),
        rejected=dataset.rejected,
    )


def leaks(dataset: Manifest, prints: list[Fingerprint], tolerance: float) -> list[str]:
    """Find near-duplicates that lie in different splits; one line for each two splits.

    Args:
        tolerance: largest difference of sorted distances, Angstrom.
    """
    by_splits: dict[tuple[str, str], _Leak] = {}
    order = {name: place for place, name in enumerate(_ordered_names(dataset))}
    splits = dataset.splits.tolist()
    for i, j, difference in near_duplicates.find(prints, tolerance):
        first, second = sorted((i, j), key=lambda index: order[splits[index]])
        if splits[first] != splits[second]:
            leak = by_splits.setdefault((splits[first], splits[second]), _Leak())
            leak.add(first, second, difference)
    return [leak.describe(dataset, *names) for names, leak in sorted(by_splits.items())]


class _Leak:
    """Near-duplicates between two splits."""

    def __init__(self) -> None:
        self._touched: set[int] = set()  # samples of the second split
        self._nearest: list[tuple[float, int, int]] = []

    def add(self, first: int, second: int, difference: float) -> None:
        """Note a pair."""
        self._touched.add(second)
        self._nearest = sorted([*self._nearest, (difference, first, second)])[:SHOWN]

    def describe(self, dataset: Manifest, first: str, second: str) -> str:
        """One line for people."""
        examples = ", ".join(
            f"'{dataset.key[i]}' and '{dataset.key[j]}' ({difference:.4f} Angstrom)"
            for difference, i, j in self._nearest
        )
        return (
            f"{len(self._touched)} of {len(dataset.split(second))} samples of {second}"
            f" have a near-duplicate in {first}, e.g. {examples}"
        )


def shared_compositions(dataset: Manifest, prints: list[Fingerprint]) -> list[str]:
    """Count the compositions that two splits share; one line for each two."""
    of_split = {
        name: {prints[i].composition for i in dataset.split(name)}
        for name in _ordered_names(dataset)
    }
    names = list(of_split)
    return [
        f"{first} and {second} share {len(of_split[first] & of_split[second])}"
        f" of {len(of_split[second])} compositions of {second}"
        for place, first in enumerate(names)
        for second in names[place + 1 :]
    ]


def _ordered_names(dataset: Manifest) -> list[str]:
    """Order the splits: train, validation, test, then others by name."""
    return sorted(
        dataset.split_names(),
        key=lambda name: (NAMES.index(name) if name in NAMES else len(NAMES), name),
    )
