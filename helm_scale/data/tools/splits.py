"""Splits that do not leak: like samples stay on one side, and what an existing division mixes is
found."""

from collections.abc import Sequence

import numpy as np

from helm_scale.config import LeaksConfig, SplitConfig
from helm_scale.data.format import manifest
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.tools import merge, near_duplicates
from helm_scale.data.tools.near_duplicates import Fingerprint

NAMES = ("train", "validation", "test")
SHOWN = 3  # examples in a message


def divide(config: SplitConfig) -> tuple[Manifest, int]:
    """Divide a dataset anew into train, validation and test, like samples on one side.

    Returns:
        The dataset with its new manifest, and the number of groups of like samples.
    Raises:
        ValueError: groups too large to fill every split, or a sample that cannot be read.
    """
    dataset = Manifest.load(config.folder)
    prints = near_duplicates.read_all(dataset)
    groups = (
        groups_by_composition(prints)
        if config.by == "composition"
        else groups_by_geometry(prints, config.tolerance)
    )
    return rewrite_splits(dataset, assign(groups, config.fractions, config.seed)), int(
        groups.max()
    ) + 1


def check(config: LeaksConfig) -> str:
    """Check that no near-duplicates lie in different splits.

    Returns:
        One line on that, and one for each two splits on the compositions that they share.
    Raises:
        ValueError: some do; one line for each two splits.
    """
    dataset = Manifest.load(config.folder)
    prints = near_duplicates.read_all(dataset)
    found, shared = leaks(dataset, prints, config.tolerance), shared_compositions(dataset, prints)
    if found:
        raise ValueError(
            "\n".join(
                [
                    f"{config.folder}: splits leak within {config.tolerance} Angstrom",
                    *found,
                    *shared,
                ]
            )
        )
    return "\n".join(
        [
            f"{config.folder}: no near-duplicates within {config.tolerance} Angstrom in different splits",
            *shared,
        ]
    )


def groups_by_composition(prints: list[Fingerprint]) -> np.ndarray:
    """Number of every sample's group, [samples]: one group per composition, charge and
    multiplicity."""
    return np.unique([one.composition for one in prints], return_inverse=True)[1]


def groups_by_geometry(prints: list[Fingerprint], tolerance: float) -> np.ndarray:
    """Number of every sample's group, [samples]: chains of near-duplicates (Angstrom) are one
    group."""
    parent = list(range(len(prints)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for i, j, _ in near_duplicates.find(prints, tolerance):
        parent[root(j)] = root(i)
    return np.unique([root(index) for index in range(len(prints))], return_inverse=True)[1]


def assign(groups: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """Give whole groups to train, validation and test, the largest first, each to the split that
    lacks most.

    Args:
        groups: number of every sample's group. fractions: wanted shares of the samples; they sum to
            one.
    Returns:
        Name of every sample's split.
    Raises:
        ValueError: a split that gets nothing.
    """
    sizes = np.bincount(groups)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    lacking = np.array(fractions) * len(groups)
    split_of = np.zeros(len(sizes), dtype=np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        split_of[group] = lacking.argmax()
        lacking[split_of[group]] -= sizes[group]
    found = np.array(NAMES, dtype=object)[split_of[groups]]
    empty = [
        name
        for name, fraction in zip(NAMES, fractions, strict=True)
        if fraction > 0 and not (found == name).any()
    ]
    if empty:
        raise ValueError(
            f"{len(sizes)} groups (the largest {sizes.max()} of {len(groups)} samples) leave no sample for {', '.join(empty)};"
            " divide by geometry, with a smaller tolerance, or give it a larger share"
        )
    return found


def rewrite_splits(dataset: Manifest, splits: np.ndarray) -> Manifest:
    """Write the manifest anew with other splits; shards stay as they are, the old manifest is kept
    under its hash."""
    (dataset.folder / f"manifest-{dataset.hash[:8]}.json").write_bytes(
        (dataset.folder / manifest.NAME).read_bytes()
    )
    head = {
        name: getattr(dataset, name)
        for name in ("method", "licence", "source", "labels", "elements")
    }
    return manifest.write(
        dataset.folder, head, dataset.shards, merge.rows_of(dataset, splits), dataset.rejected
    )


def leaks(dataset: Manifest, prints: list[Fingerprint], tolerance: float) -> list[str]:
    """Near-duplicates that lie in different splits, one line for each two splits; nothing if there
    are none.

    Args:
        tolerance: largest difference of sorted distances, Angstrom.
    """
    found: dict[tuple[str, str], _Leak] = {}
    order = {name: place for place, name in enumerate(_ordered_names(dataset))}
    splits = dataset.splits.tolist()
    for i, j, difference in near_duplicates.find(prints, tolerance):
        first, second = sorted((i, j), key=lambda index: order[splits[index]])
        if splits[first] != splits[second]:
            found.setdefault((splits[first], splits[second]), _Leak()).add(
                first, second, difference
            )
    return [leak.describe(dataset, *names) for names, leak in sorted(found.items())]


class _Leak:
    """Near-duplicates between two splits: which samples of the second are touched, and the nearest
    pairs."""

    def __init__(self) -> None:
        self._touched: set[int] = set()
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
        return f"{len(self._touched)} of {len(dataset.split(second))} samples of {second} have a near-duplicate in {first}, e.g. {examples}"


def shared_compositions(dataset: Manifest, prints: list[Fingerprint]) -> list[str]:
    """How many compositions of each split occur in an earlier one, one line for each two splits."""
    of_split = {
        name: {prints[i].composition for i in dataset.split(name)}
        for name in _ordered_names(dataset)
    }
    names = list(of_split)
    return [
        f"{first} and {second} share {len(of_split[first] & of_split[second])} of {len(of_split[second])} compositions of {second}"
        for place, first in enumerate(names)
        for second in names[place + 1 :]
    ]


def _ordered_names(dataset: Manifest) -> list[str]:
    """Names of the splits: train, validation, test, then others by name."""
    return sorted(
        dataset.split_names(),
        key=lambda name: (NAMES.index(name) if name in NAMES else len(NAMES), name),
    )
