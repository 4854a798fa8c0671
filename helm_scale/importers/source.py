"""A sample as its dataset stores it, and its way into the canonical order.

A source gives the addresses of its samples and reads one by its address, so that several processes
read one file and nothing is held but the sample at hand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from helm_scale.basis import conventions, elements
from helm_scale.basis.layout import ao_offsets
from helm_scale.basis.shells import shells_of
from helm_scale.config import ImportConfig
from helm_scale.data.graphs import neighbors
from helm_scale.types import Method, Molecule

SYMMETRY_LIMIT = 1e-6  # Hartree, beside one rounding step of the dtype in which a matrix is stored
Address = int | str


@dataclass(frozen=True)
class SourceSample:
    """A sample before reordering.

    Attributes:
        molecule: everything but matrices and method; positions in Angstrom, energies in Hartree.
        order: program whose AO order the matrices have. shells: degrees of each atom's shells as
            the source lists them.
        matrices: {"hamiltonian": [nao, nao], ...} as Molecule names them, in the dtype of the
            source, Hartree.
        other_reading: another way to read the same numbers, and what would have to be so; a proof
            that fails tries it.
    """

    molecule: Molecule
    order: str
    shells: tuple[tuple[int, ...], ...]
    matrices: dict[str, np.ndarray]
    other_reading: "tuple[str, SourceSample] | None" = None


class Source(Protocol):
    """A dataset at hand. method: of its labels, None if it does not say."""

    method: Method | None

    def addresses(self) -> Sequence[Address]:
        """Name every sample, in the dataset's own order."""

    def read(self, address: Address) -> SourceSample:
        """Read one sample."""

    def splits(self, name: str) -> np.ndarray:
        """Return the split of every sample, [samples] of str, in a published division of the
        dataset.

        Raises:
            ValueError: no such division, or the file is not of the published size.
        """


@dataclass(frozen=True)
class Importer:
    """What is known of a dataset beside its numbers.

    Attributes:
        open: makes the source; raises ValueError if the path holds something else. method: of the
            labels, where known.
        licence: SPDX name, where known. consistency: largest mean |F[P(H)] - H|, Hartree, that its
            numerics explain.
    """

    open: Callable[[Path, ImportConfig], Source]
    method: Method | None
    licence: str | None
    consistency: float


def listed_shells(
    order: str, basis: str, atomic_numbers: np.ndarray, where: str
) -> tuple[tuple[int, ...], ...]:
    """Degrees of every atom's shells as a program lists them.

    Raises:
        ValueError: an element that the basis does not cover; names `where`.
    """
    elements.check_supported(basis, atomic_numbers, where)
    return tuple(conventions.listed_shells(order, basis, int(z)) for z in atomic_numbers)


def canonical(foreign: SourceSample, method: Method) -> Molecule:
    """Reorder a sample's matrices; they come out in float64, symmetric to the last bit.

    Raises:
        ValueError: an open shell; sizes, shells or geometry that cannot be, NaN, or a matrix that
            is not symmetric to 1e-6 Hartree and one rounding step of its dtype; names the molecule.
    """
    molecule = foreign.molecule
    where = f"molecule '{molecule.key}'"
    if molecule.spin_multiplicity != 1:
        raise ValueError(
            f"{where}: multiplicity {molecule.spin_multiplicity}; only closed shells have one Hamiltonian"
        )
    neighbors.atom_pairs([molecule.key], [len(molecule.positions)], molecule.positions)
    elements.check_supported(method.basis, molecule.atomic_numbers, where)
    for z, shells in zip(molecule.atomic_numbers, foreign.shells, strict=True):
        if tuple(sorted(shells)) != shells_of(method.basis, int(z)):
            raise ValueError(
                f"{where}: shells of {elements.symbol(z)} are {shells}, wanted {shells_of(method.basis, int(z))} of"
                f" {method.basis} in any order; the matrices are in another basis"
            )
    nao = int(ao_offsets(method.basis, molecule.atomic_numbers)[-1])
    ordered = {}
    for name, matrix in foreign.matrices.items():
        _check_matrix(matrix, nao, f"{where}: {name}")
        exact = conventions.to_canonical(matrix.astype(np.float64), foreign.order, foreign.shells)
        ordered[name] = (exact + exact.T) / 2
    return replace(molecule, method=method, **ordered)


def _check_matrix(matrix: np.ndarray, nao: int, where: str) -> None:
    if matrix.shape != (nao, nao):
        raise ValueError(
            f"{where} has shape {matrix.shape}, wanted ({nao}, {nao}); the matrices are in another basis"
        )
    if not np.isfinite(matrix).all():
        raise ValueError(f"{where} holds NaN or infinity; remove the sample")
    difference = np.abs(matrix - matrix.T)
    if (difference > SYMMETRY_LIMIT + np.spacing(np.abs(matrix))).any():
        raise ValueError(
            f"{where} is not symmetric (max |M-M^T| = {difference.max():.1e}, limit {SYMMETRY_LIMIT:.0e}); it is no closed-shell"
            " Hamiltonian, or one triangle of it only"
        )


def from_triangle(values: np.ndarray, where: str) -> np.ndarray:
    """Rebuild a symmetric matrix from its upper triangle, row-major, diagonal included: [n(n+1)/2]
    -> [n, n].

    Raises:
        ValueError: a length that is not n(n+1)/2.
    """
    size = int((np.sqrt(8 * len(values) + 1) - 1) / 2)
    if size * (size + 1) // 2 != len(values):
        raise ValueError(
            f"{where}: {len(values)} values are no triangle of a matrix; wanted n(n+1)/2"
        )
    matrix = np.zeros((size, size), dtype=values.dtype)
    row, column = np.triu_indices(size)
    matrix[row, column] = values
    matrix[column, row] = values
    return matrix
