"""Divides datasets as published into train, validation and test, and checks the sizes."""

from collections.abc import Sequence

import numpy as np

NAMES = ("train", "validation", "test")


def divide(order: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Name the split of every sample.

    Args:
        order: a permutation of the samples, [n]; train comes first, then validation, then test.
        sizes: number of samples of each.
    """
    splits = np.empty(len(order), dtype=object)
    # np.split takes the bounds between the parts, so the last sum is left out.
    for name, members in zip(NAMES, np.split(order, np.cumsum(sizes)[:-1]), strict=True):
        splits[members] = name
    return splits


def shares(count: int) -> tuple[int, int, int]:
    """80, 10 and 10 per cent as QH9 rounds them: the test split takes what is left."""
    train, validation = int(count * 0.8), int(count * 0.1)  # int cuts, where round would differ
    return train, validation, count - train - validation


def check_sizes(where: str, division: np.ndarray, wanted: Sequence[int]) -> None:
    """Raise ValueError unless the splits have their published sizes."""
    got = [int((division == name).sum()) for name in NAMES]
    if got != list(wanted):
        raise ValueError(
            f"{where}: splits of {got} samples, published are {list(wanted)};"
            " the file is not the published one: --split none"
        )


def check_count(where: str, got: int, wanted: int) -> None:
    """Raise ValueError unless a file holds as many samples as published."""
    if got != wanted:
        raise ValueError(
            f"{where}: {got} samples, published are {wanted};"
            " get the file anew, or take all as one split: --split none"
        )


def unknown(where: str, name: str, known: Sequence[str]) -> ValueError:
    """The error for a division that a dataset does not have."""
    return ValueError(f"{where}: no published split '{name}'; known: {', '.join(known)}; or none")
