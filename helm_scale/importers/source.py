"""Defines importers: a dataset is opened as a source, whose samples come to canonical order.

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

# What is assumed of labels that do not say how they were made.
UNSTATED = Method(
    xc="",
    basis="",
    ecp="def2",
    grid_level=3,
    auxbasis=None,
    conv_tol=1e-9,
    baseline="none",
    program="unknown",
)


@dataclass(frozen=True, kw_only=True)
class SourceSample:
    """A sample as its dataset stores it.

    Attributes:
        molecule: everything but matrices and method; positions in Angstrom, energies in Hartree.
        order: program whose AO order the matrices have.
        shells: degrees of each atom's shells, in the order of the matrices.
        matrices: {"hamiltonian": [nao, nao], ...} by the names of Molecule, Hartree, in the dtype
            of the source.
        other_reading: (what would have to be so, the same numbers read that way); tried when a
            proof fails.
    """

    molecule: Molecule
    order: str
    shells: tuple[tuple[int, ...], ...]
    matrices: dict[str, np.ndarray]
    other_reading: "tuple[str, SourceSample] | None" = None


class Source(Protocol):
    """An open dataset. method: how its labels were made, None if it does not say."""

    method: Method | None

    def addresses(self) -> Sequence[Address]:
        """Name every sample, in the dataset's own order."""

    def read(self, address: Address) -> SourceSample:
        """Read one sample."""

    def splits(self, name: str) -> np.ndarray:
        """Return the split of every sample, [samples] of str, in a published division.

        Raises:
            ValueError: no such division, or the file is not of the published size.
        """


def _as_it_is(config: ImportConfig) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Importer:
    """A dataset that can be imported; registry.py lists all.

    Attributes:
        open: opens the dataset at a path; raises ValueError if something else is there.
        licence: SPDX name, None where the user has to say.
        consistency: largest mean |F[P(H)] - H| that the dataset's numerics explain, Hartree.
        variant: how the config has the dataset read, where there is a choice; a part of what
            identifies the input.
    """

    open: Callable[[Path, ImportConfig], Source]
    licence: str | None
    consistency: float
    variant: Callable[[ImportConfig], str] = _as_it_is


def listed_shells(
    order: str, basis: str, atomic_numbers: np.ndarray, where: str
) -> tuple[tuple[int, ...], ...]:
    """Degrees of every atom's shells as a program lists them.

    Raises:
        ValueError: an element that the basis does not cover; names `where`.
    """
    elements.check_supported(basis, atomic_numbers, where)
    return tuple(conventions.listed_shells(order, basis, int(z)) for z in atomic_numbers)


def canonical(sample: SourceSample, method: Method) -> Molecule:
    """Reorder a sample's matrices; they come out in float64, symmetric to the last bit.

    Raises:
        ValueError: an open shell; sizes, shells or geometry that cannot be, NaN, or a matrix that
            is not symmetric to 1e-6 Hartree and one rounding step of its dtype; names the molecule.
    """
    molecule = sample.molecule
    where = f"molecule '{molecule.key}'"
    if molecule.spin_multiplicity != 1:
        raise ValueError(
            f"{where}: multiplicity {molecule.spin_multiplicity};"
            " only closed shells have one Hamiltonian"
        )
    # Refuses coincident atoms, of which no program had a Hamiltonian.
    neighbors.atom_pairs([molecule.key], [len(molecule.positions)], molecule.positions)
    elements.check_supported(method.basis, molecule.atomic_numbers, where)
    # Before the matrices: a wrong basis would show there as a size, which says less.
    for z, shells in zip(molecule.atomic_numbers, sample.shells, strict=True):
        if tuple(sorted(shells)) != shells_of(method.basis, int(z)):
            raise ValueError(
                f"{where}: shells of {elements.symbol(z)} are {shells}, wanted"
                f" {shells_of(method.basis, int(z))} of {method.basis} in any order;"
                " the matrices are in another basis"
            )
    nao = int(ao_offsets(method.basis, molecule.atomic_numbers)[-1])
    ordered = {}
    for name, matrix in sample.matrices.items():
        _check_matrix(matrix, nao, f"{where}: {name}")
        # float64 before averaging: the sum of two float32 numbers would round once more.
        exact = conventions.to_canonical(matrix.astype(np.float64), sample.order, sample.shells)
        ordered[name] = (exact + exact.T) / 2
    return replace(molecule, method=method, **ordered)


def _check_matrix(matrix: np.ndarray, nao: int, where: str) -> None:
    if matrix.shape != (nao, nao):
        raise ValueError(
            f"{where} has shape {matrix.shape}, wanted ({nao}, {nao});"
            " the matrices are in another basis"
        )
    if not np.isfinite(matrix).all():
        raise ValueError(f"{where} holds NaN or infinity; remove the sample")
    # spacing: the distance of an element to the next number of its dtype, 2e-6 for -20 in float32.
    difference = np.abs(matrix - matrix.T)
    if (difference > SYMMETRY_LIMIT + np.spacing(np.abs(matrix))).any():
        raise ValueError(
            f"{where} is not symmetric (max |M-M^T| = {difference.max():.1e}, limit"
            f" {SYMMETRY_LIMIT:.0e}); it is no closed-shell Hamiltonian, or one triangle of it only"
        )


def from_triangle(values: np.ndarray, where: str) -> np.ndarray:
    """Rebuild a symmetric matrix [n, n] from its upper triangle [n(n+1)/2], row-major.

    Raises:
        ValueError: a length that is not n(n+1)/2.
    """
    size = int((np.sqrt(8 * len(values) + 1) - 1) / 2)  # the positive root of n(n+1)/2 = length
    if size * (size + 1) // 2 != len(values):
        raise ValueError(
            f"{where}: {len(values)} values are no triangle of a matrix; wanted n(n+1)/2"
        )
    matrix = np.zeros((size, size), dtype=values.dtype)
    row, column = np.triu_indices(size)
    matrix[row, column] = values  # both from one number, so symmetric to the last bit
    matrix[column, row] = values
    return matrix
