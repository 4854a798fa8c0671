"""What some molecules of a dataset say about all: pairs within the cutoffs, what block sparsity
saves, what far blocks hold.

Axes: N atoms.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helm_scale.basis import elements, layout
from helm_scale.basis.shells import nao
from helm_scale.config import ModelConfig
from helm_scale.data.graphs import neighbors
from helm_scale.data.loading.dataset import Dataset
from helm_scale.types import Molecule


@dataclass(frozen=True)
class DatasetStatistics:
    """Sums over the molecules that were read.

    Attributes:
        atom_pairs: all pairs of atoms; edges, pairs: those within the trunk's and the Hamiltonian's
            cutoff.
        numbers: of the packed targets; padded: of both triangles with every block as wide as the
            widest of the dataset.
        widest: element with most AOs, and their number. itemsize: bytes of a number.
        cutoffs: Angstrom. far: for every cutoff the pairs beyond, largest |H|, sum of |H|, sum of
            squares, Hartree, [cutoffs, 4].
        near: sum of |H| and of squares over all elements of H, and their number; H - H0 where the
            model has an H0.
    """

    molecules: int
    atom_pairs: int
    edges: int
    pairs: int
    numbers: int
    padded: int
    widest: tuple[str, int]
    itemsize: int
    cutoffs: tuple[float, ...]
    far: np.ndarray
    near: np.ndarray

    def text(self) -> str:
        """What block sparsity saves and, where cutoffs were asked for, the table of what lies
        beyond them."""
        symbol, width = self.widest
        size = self.itemsize / 1e6 / max(self.molecules, 1)
        lines = [
            f"block sparsity ({self.molecules} molecules read): targets, and outputs likewise, take {self.numbers * size:,.3f} MB"
            f" per molecule; with both triangles padded to the widest element pair ({symbol}-{symbol}, {width} x {width})"
            f" {self.padded * size:,.3f} MB,"
            f" {self.padded / max(self.numbers, 1):.1f} times as much"
        ]
        if self.cutoffs and self.near[2]:
            lines += [
                "",
                "| model.pair_cutoff, Angstrom | pairs beyond, % | largest element beyond, 1e-6 Eh | error of H MAE, 1e-6 Eh"
                " | share of sum of squares |",
                "|---|---|---|---|---|",
            ]
            lines += [
                f"| {cutoff:g} | {100 * pairs / max(self.atom_pairs, 1):.2f} | {1e6 * largest:,.2f} | {1e6 * total / self.near[2]:,.4f}"
                f" | {square / max(self.near[1], 1e-300):.2e} |"
                for cutoff, (pairs, largest, total, square) in zip(
                    self.cutoffs, self.far, strict=True
                )
            ]
        return "\n".join(lines)


def gather_statistics(
    dataset: Dataset,
    samples: Sequence[int] | np.ndarray,
    config: ModelConfig,
    cutoffs: Sequence[float] = (),
) -> DatasetStatistics:
    """Read samples and count.

    Args:
        config: cutoffs, parity, dtype and H0; the basis is the dataset's.
        cutoffs: Angstrom; setting blocks of pairs beyond to zero is what model.pair_cutoff does.
    """
    basis = dataset.method.basis
    width, symbol = max(
        (nao(basis, elements.atomic_number(symbol)), symbol) for symbol in dataset.elements
    )
    counts, far, near = np.zeros(5, dtype=np.int64), np.zeros((len(cutoffs), 4)), np.zeros(3)
    for index in samples:
        molecule = dataset.read(int(index))
        counts += _counts(molecule, config, basis, width)
        residual = _residual(molecule, config)
        if residual is not None and cutoffs:
            beyond, all_ = _far(molecule, residual, basis, cutoffs)
            largest = np.maximum(far[:, 1], beyond[:, 1])
            far, near = far + beyond, near + all_
            far[:, 1] = largest
    itemsize = 8 if config.dtype == "float64" else 4
    atom_pairs, edges, pairs, numbers, padded = counts.tolist()
    return DatasetStatistics(
        len(samples),
        atom_pairs,
        edges,
        pairs,
        numbers,
        padded,
        (symbol, width),
        itemsize,
        tuple(cutoffs),
        far,
        near,
    )


def spread_over_costs(dataset: Dataset, samples: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the samples, evenly spread over their costs."""
    ordered = samples[np.argsort(dataset.cost[samples], kind="stable")]
    return ordered[
        np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).astype(np.int64))
    ]


def _counts(molecule: Molecule, config: ModelConfig, basis: str, width: int) -> np.ndarray:
    """Pairs of atoms, edges, pairs, numbers, padded numbers."""
    numbers = molecule.atomic_numbers
    index, distance = neighbors.atom_pairs([molecule.key], [len(numbers)], molecule.positions)
    pairs = index[:, distance < config.pair_cutoff]
    sizes = np.array([nao(basis, int(z)) for z in numbers])
    onsite = sum(layout.onsite_layout(basis, int(z), config.parity).size for z in numbers)
    offsite = int((sizes[pairs[0]] * sizes[pairs[1]]).sum())
    edges, atoms, kept = int((distance < config.trunk_cutoff).sum()), len(numbers), pairs.shape[1]
    return np.array(
        [atoms * (atoms - 1) // 2, edges, kept, onsite + offsite, (atoms + 2 * kept) * width**2]
    )


def _residual(molecule: Molecule, config: ModelConfig) -> np.ndarray | None:
    """H, or H - H0 where the model takes an H0 and the molecule has it."""
    if (
        molecule.hamiltonian is None
        or config.baseline == "none"
        or molecule.baseline_hamiltonian is None
    ):
        return molecule.hamiltonian
    return molecule.hamiltonian - molecule.baseline_hamiltonian


def _far(
    molecule: Molecule, residual: np.ndarray, basis: str, cutoffs: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs, largest |H|, sum of |H| and of squares beyond every cutoff; and sums and number over
    all of H."""
    starts = layout.ao_offsets(basis, molecule.atomic_numbers)[:-1]
    size = np.abs(residual)
    absolute, square = (
        np.add.reduceat(np.add.reduceat(x, starts, axis=0), starts, axis=1) for x in (size, size**2)
    )
    largest = np.maximum.reduceat(np.maximum.reduceat(size, starts, axis=0), starts, axis=1)
    distance = np.linalg.norm(molecule.positions[:, None] - molecule.positions, axis=-1)
    rows = []
    for cutoff in cutoffs:
        beyond = distance >= cutoff
        rows.append(
            [
                beyond.sum() / 2,
                largest[beyond].max(initial=0.0),
                absolute[beyond].sum(),
                square[beyond].sum(),
            ]
        )
    return np.array(rows), np.array([absolute.sum(), square.sum(), size.size])
