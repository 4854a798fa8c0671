"""Packs molecules into batches by their number of atoms, in order, with a progress bar."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

ItemT = TypeVar("ItemT")
ATOMS = 256  # of a batch: enough to keep a core busy, few enough for the memory of a laptop


def packed(
    items: Iterable[ItemT], atoms: int, *, size: Callable[[ItemT], int]
) -> Iterator[list[ItemT]]:
    """Lists of consecutive items of at most `atoms` atoms together, but at least one item.

    size: atoms of an item. Items are drawn only as batches are asked for.
    """
    batch: list[ItemT] = []
    total = 0
    for item in items:
        if batch and total + size(item) > atoms:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size(item)
    if batch:
        yield batch


def with_progress(items: Iterable[ItemT], shown: bool) -> Iterable[ItemT]:
    """The items, counted by a progress bar where it is wanted."""
    return tqdm(items, unit="molecule", dynamic_ncols=True) if shown else items
