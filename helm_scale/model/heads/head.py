"""Defines heads of molecular properties: the irreps of every atom, and how they are combined.

Axes: N atoms, B molecules, n irreps of one degree.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from helm_scale.types import GraphBatch, Quantity

Irreps = dict[int, Tensor]  # degree l -> [N, 2l+1, n], order m = -l..l


@dataclass(frozen=True, kw_only=True)
class Head:
    """A property of molecules that is learned from node states.

    Attributes:
        quantity: name, shape and units.
        irreps: number of irreps of each degree that are read of every atom, {0: 2, 1: 1}; at least
            one of degree 0, at most lmax.
        combine: (irreps, batch, cutoff of the edges in Angstrom) -> property [B, *shape]. Linear in
            the irreps, so that the first linear map can be fitted in closed form; it turns with
            the molecule and goes to zero smoothly where it reads edges at the cutoff.
        reference: how one value per element, added to the first scalar, enters the property:
            as sum over the atoms, as their mean, or not at all.
    """

    quantity: Quantity
    irreps: Mapping[int, int]
    combine: Callable[[Irreps, GraphBatch, float], Tensor]
    reference: Literal["sum", "mean", "none"] = "none"


def sum_over_atoms(values: Tensor, batch: GraphBatch) -> Tensor:
    """Sum values [N, ...] over the atoms of every molecule: [B, ...]."""
    total = values.new_zeros(batch.num_molecules, *values.shape[1:])
    return total.index_add(0, batch.molecule, values)
