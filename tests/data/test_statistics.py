"""Statistics count what the molecules hold, and what a pair cutoff would cost."""

from pathlib import Path

import numpy as np
import pytest

from helm_scale.basis import layout
from helm_scale.config import DataConfig, ModelConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.data.loading.dataset import Dataset
from helm_scale.data.tools.statistics import gather_statistics, spread_over_costs
from tests.pretraining import launching

CONFIG = ModelConfig(basis="def2-svp", parity="full", trunk_cutoff=3.0, pair_cutoff=5.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Chains of 1 to 6 atoms."""
    folder: Path = launching.write_dataset(tmp_path_factory.mktemp("data") / "data")
    return Dataset.open(DataConfig(path=str(folder)))


def test_counts_are_those_of_the_batches(dataset: Dataset) -> None:
    found = gather_statistics(dataset, range(len(dataset)), CONFIG)
    batch = collate([dataset.read(i) for i in range(len(dataset))], CONFIG)
    assert batch.onsite_target is not None and batch.offsite_target is not None
    assert (found.edges, found.pairs) == (batch.edge_index.shape[1], batch.pair_index.shape[1])
    assert (
        found.atom_pairs == sum(n * (n - 1) // 2 for n in dataset.atoms) > found.pairs > found.edges
    )
    assert found.numbers == len(batch.onsite_target) + len(batch.offsite_target)
    assert (
        found.widest == ("Cl", 18)
        and found.padded == (len(batch.atomic_numbers) + 2 * found.pairs) * 18**2
    )
    ratio = found.padded / found.numbers
    assert (
        f"(Cl-Cl, 18 x 18) {4e-6 * found.padded / 14:,.3f} MB, {ratio:.1f} times as much"
        in found.text()
    )


def test_far_blocks_are_what_a_cutoff_sets_to_zero(dataset: Dataset) -> None:
    cutoffs = (2.0, 4.0, 1e3)
    found = gather_statistics(dataset, range(len(dataset)), CONFIG, cutoffs)
    for row, cutoff in enumerate(cutoffs):
        wanted, elements, whole = np.zeros(4), 0, 0.0
        for index in range(len(dataset)):
            molecule = dataset.read(index)
            assert molecule.hamiltonian is not None
            owner = np.repeat(
                np.arange(len(molecule.positions)),
                np.diff(layout.ao_offsets("def2-svp", molecule.atomic_numbers)),
            )
            distance = np.linalg.norm(
                molecule.positions[:, None] - molecule.positions[None], axis=-1
            )
            cut = molecule.hamiltonian * (distance[owner][:, owner] < cutoff)
            error = np.abs(molecule.hamiltonian - cut)
            wanted[[0, 2, 3]] += (distance >= cutoff).sum() / 2, error.sum(), (error**2).sum()
            wanted[1] = max(wanted[1], error.max())
            elements, whole = elements + error.size, whole + (molecule.hamiltonian**2).sum()
        assert found.beyond[row] == pytest.approx(wanted, rel=1e-12)
        line = next(
            line for line in found.text().splitlines() if line.startswith(f"| {cutoff:g} |")
        )
        assert f"| {1e6 * wanted[2] / elements:,.4f} | {wanted[3] / whole:.2e} |" in line
    assert found.beyond[0, 2] > found.beyond[1, 2] > 0 == found.beyond[2, 2]


def test_samples_are_spread_over_costs(dataset: Dataset) -> None:
    samples = np.arange(len(dataset))
    chosen = spread_over_costs(dataset, samples, 4)
    assert len(chosen) == 4 and {dataset.cost[chosen].min(), dataset.cost[chosen].max()} == {
        dataset.cost.min(),
        dataset.cost.max(),
    }
    assert sorted(spread_over_costs(dataset, samples, 99)) == list(samples)
