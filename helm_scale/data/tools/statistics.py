"""Statistics of a dataset from some of its molecules: pairs, block sparsity, far blocks.

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


@dataclass(frozen=True, kw_only=True)
class DatasetStatistics:
    """Sums over the molecules that were read.

    Attributes:
        atom_pairs: all pairs of atoms. edges, pairs: those within the trunk's and the
            Hamiltonian's cutoff.
        numbers: entries of the packed targets. padded: entries of both triangles if every block
            were as wide as the widest of the dataset.
        widest: element with most AOs, and their number. itemsize: bytes of a number.
        cutoffs: Angstrom. beyond: for every cutoff the pairs beyond it, their largest |H|, sum of
            |H| and sum of squares, Hartree, [cutoffs, 4]; H - H0 where the model has an H0.
        total: sum of |H|, sum of squares and number of elements over all of H.
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
    beyond: np.ndarray
    total: np.ndarray

    def text(self) -> str:
        """Say what block sparsity saves and, where cutoffs were given, what lies beyond them."""
        symbol, width = self.widest
        size = self.itemsize / 1e6 / max(self.molecules, 1)
        saved = (
            f"block sparsity ({self.molecules} molecules read): targets, and outputs likewise, take"
            f" {self.numbers * size:,.3f} MB per molecule; with both triangles padded to the widest"
            f" element pair ({symbol}-{symbol}, {width} x {width}) {self.padded * size:,.3f} MB,"
            f" {self.padded / max(self.numbers, 1):.1f} times as much"
        )
        return "\n".join([saved, *self._table()])

    def _table(self) -> list[str]:
        """Tabulate what setting the blocks beyond each cutoff to zero costs."""
        _, squares, elements_of_h = self.total
        if not self.cutoffs or not elements_of_h:
            return []
        lines = [
            "",
            "| model.pair_cutoff, Angstrom | pairs beyond, % | largest element beyond, 1e-6 Eh"
            " | error of H MAE, 1e-6 Eh | share of sum of squares |",
            "|---|---|---|---|---|",
        ]
        for cutoff, (pairs, largest, absolute, square) in zip(
            self.cutoffs, self.beyond, strict=True
        ):
            lines.append(
                f"| {cutoff:g} | {100 * pairs / max(self.atom_pairs, 1):.2f}"
                f" | {1e6 * largest:,.2f} | {1e6 * absolute / elements_of_h:,.4f}"
                f" | {square / max(squares, 1e-300):.2e} |"
            )
        return lines


def gather_statistics(
    dataset: Dataset,
    samples: Sequence[int] | np.ndarray,
    config: ModelConfig,
    cutoffs: Sequence[float] = (),
) -> DatasetStatistics:
    """Read samples and count.

    Args:
        config: of the model; its cutoffs, parity, dtype and H0. The basis is the dataset's.
        cutoffs: Angstrom; model.pair_cutoff sets the blocks of pairs beyond it to zero.
    """
    basis = dataset.method.basis
    # Layouts that pad do so to the widest element of the dataset, not of the molecule.
    width, symbol = max(
        (nao(basis, elements.atomic_number(symbol)), symbol) for symbol in dataset.elements
    )
    counts = np.zeros(5, dtype=np.int64)
    beyond, total = np.zeros((len(cutoffs), 4)), np.zeros(3)
    for index in samples:
        molecule = dataset.read(int(index))
        counts += _counts(molecule, config, basis, width)
        residual = _residual(molecule, config)
        if residual is not None and cutoffs:
            far, everything = _beyond(molecule, residual, basis=basis, cutoffs=cutoffs)
            largest = np.maximum(beyond[:, 1], far[:, 1])  # all other columns are sums
            beyond, total = beyond + far, total + everything
            beyond[:, 1] = largest
    atom_pairs, edges, pairs, numbers, padded = counts.tolist()
    return DatasetStatistics(
        molecules=len(samples),
        atom_pairs=atom_pairs,
        edges=edges,
        pairs=pairs,
        numbers=numbers,
        padded=padded,
        widest=(symbol, width),
        itemsize=8 if config.dtype == "float64" else 4,
        cutoffs=tuple(cutoffs),
        beyond=beyond,
        total=total,
    )


def spread_over_costs(dataset: Dataset, samples: np.ndarray, count: int) -> np.ndarray:
    """Choose at most `count` of the samples, evenly spread over their costs."""
    ordered = samples[np.argsort(dataset.cost[samples], kind="stable")]
    places = np.linspace(0, len(ordered) - 1, min(count, len(ordered)))
    return ordered[np.unique(places.astype(np.int64))]


def _counts(molecule: Molecule, config: ModelConfig, basis: str, width: int) -> np.ndarray:
    """Count pairs of atoms, edges, pairs, numbers, and padded numbers."""
    numbers = molecule.atomic_numbers
    index, distance = neighbors.atom_pairs([molecule.key], [len(numbers)], molecule.positions)
    pairs = index[:, distance < config.pair_cutoff]
    sizes = np.array([nao(basis, int(z)) for z in numbers])
    onsite = sum(layout.onsite_layout(basis, int(z), config.parity).size for z in numbers)
    offsite = int((sizes[pairs[0]] * sizes[pairs[1]]).sum())
    edges, atoms, near = int((distance < config.trunk_cutoff).sum()), len(numbers), pairs.shape[1]
    return np.array(
        [atoms * (atoms - 1) // 2, edges, near, onsite + offsite, (atoms + 2 * near) * width**2]
    )


def _residual(molecule: Molecule, config: ModelConfig) -> np.ndarray | None:
    """Return H, or H - H0 where the model takes an H0 and the molecule has it."""
    if (
        molecule.hamiltonian is None
        or config.baseline == "none"
        or molecule.baseline_hamiltonian is None
    ):
        return molecule.hamiltonian
    return molecule.hamiltonian - molecule.baseline_hamiltonian


def _beyond(
    molecule: Molecule, residual: np.ndarray, *, basis: str, cutoffs: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Sum over the blocks beyond every cutoff, and over all of H; see DatasetStatistics."""
    starts = layout.ao_offsets(basis, molecule.atomic_numbers)[:-1]
    size = np.abs(residual)
    absolute, square = (
        np.add.reduceat(np.add.reduceat(x, starts, axis=0), starts, axis=1) for x in (size, size**2)
    )
    largest = np.maximum.reduceat(np.maximum.reduceat(size, starts, axis=0), starts, axis=1)
    distance = np.linalg.norm(molecule.positions[:, None] - molecule.positions, axis=-1)
    rows = []
    for cutoff in cutoffs:
        far = distance >= cutoff
        pairs, maximum = far.sum() / 2, largest[far].max(initial=0.0)
        rows.append([pairs, maximum, absolute[far].sum(), square[far].sum()])
    return np.array(rows), np.array([absolute.sum(), square.sum(), size.size])
