"""Batches: exact targets, one orientation per pair, and clear refusals."""

import dataclasses

import numpy as np
import pytest
import torch

from helm_scale.basis.assembly import assemble
from helm_scale.basis.layout import ao_offsets
from helm_scale.data.format import codec
from helm_scale.data.graphs.collate import collate, collate_stored
from helm_scale.types import BlockBatch, GraphBatch, Molecule, couple_labels
from tests.data.labels import TZVPD
from tests.model.test_physics import NUMBERS, SMALL, build, hamiltonians, molecule, positions

CONFIG = SMALL(dtype="float64")


def labelled() -> Molecule:
    (matrix,) = hamiltonians(build(CONFIG), [molecule(NUMBERS, positions())])
    return dataclasses.replace(molecule(NUMBERS, positions()), hamiltonian=matrix)


def test_targets_rebuild_the_hamiltonian() -> None:
    label = labelled()
    batch = collate([label, label], CONFIG)
    targets = (batch.onsite_target, batch.offsite_target)
    for matrix in assemble(batch, *targets, basis=CONFIG.basis, parity=CONFIG.parity):
        assert np.abs(matrix.numpy() - label.hamiltonian).max() < 1e-12
    assert batch.matrix_elements.tolist() == [label.hamiltonian.size] * 2


def test_pairs_put_the_lower_atomic_number_first_and_are_sorted() -> None:
    batch = collate(
        [molecule(NUMBERS, positions()), molecule(NUMBERS[::-1].copy(), positions())], CONFIG
    )
    first, second = batch.atomic_numbers[batch.pair_index]
    assert (first <= second).all()
    kinds = list(zip(first.tolist(), second.tolist(), strict=True))
    assert kinds == sorted(kinds) and len(kinds) == 2 * 21
    assert [(s.first, s.second) for s in batch.pair_segments] == sorted(set(kinds))


@pytest.mark.parametrize("swap", [False, True])
def test_messages_and_pairs_have_a_cutoff_each(swap: bool) -> None:
    line = np.array([[0.0, 0, 0], [1.0, 0, 0], [2.5, 0, 0], [4.5, 0, 0]])
    short, long = [(0, 1), (1, 2)], [(0, 1), (0, 2), (1, 2), (2, 3)]  # closer than 2 and than 3
    config = SMALL(trunk_cutoff=2.0, pair_cutoff=3.0)
    if swap:
        config = SMALL(trunk_cutoff=3.0, pair_cutoff=2.0)
        short, long = long, short
    batch = collate([molecule(np.array([1, 6, 6, 8]), line)], config)
    found = [sorted(map(tuple, index.T.tolist())) for index in (batch.edge_index, batch.pair_index)]
    assert found == [short, long]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"atomic_numbers": np.array([6, 1, 26])}, "Z = 26 is not among the 58 elements"),
        ({"positions": np.zeros((3, 3))}, "atoms 0 and 1 coincide"),
        ({"positions": np.full((3, 3), np.nan)}, "NaN or infinity"),
        ({"positions": np.diag([0.0, 1.0, -1e300])}, r"a position is -1\.0e\+300 Angstrom"),
        ({"charge": 9}, r"charge \+9, wanted at most model.max_charge = 6"),
        ({"spin_multiplicity": 0}, "multiplicity 0, wanted 1 to"),
        ({"hamiltonian": np.zeros((7, 7))}, r"hamiltonian has shape \(7, 7\), wanted \(55, 55\)"),
    ],
)
def test_bad_molecules_are_refused_by_name(change: dict, message: str) -> None:
    good = Molecule("mol-17", np.array([6, 1, 1]), positions()[:3])
    with pytest.raises(ValueError, match=f"(?s)mol-17.*{message}"):
        collate([dataclasses.replace(good, **change)], CONFIG)


def test_exact_exchange_under_the_semilocal_rule_is_refused() -> None:
    label = labelled()
    size = int(ao_offsets(CONFIG.basis, NUMBERS)[-1])
    noise = np.random.default_rng(0).normal(size=(size, size)) * 1e-4
    with pytest.raises(ValueError, match=r"model\.parity: full"):
        collate(
            [dataclasses.replace(label, hamiltonian=label.hamiltonian + noise + noise.T)], CONFIG
        )


def test_a_baseline_that_the_data_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="the data holds no H0"):
        collate([labelled()], SMALL(baseline="minao"))


def test_further_matrices_are_packed_as_targets_are_from_molecules_and_from_shards() -> None:
    label = labelled()
    rng = np.random.default_rng(3)
    scales = {"overlap": rng.uniform(0.1, 0.4), "baseline_hamiltonian": rng.uniform(0.5, 0.9)}
    whole = dataclasses.replace(
        label, method=TZVPD, **{name: scale * label.hamiltonian for name, scale in scales.items()}
    )
    asked = {
        "config": CONFIG.model_copy(update={"conditions": ("overlap",)}),
        "matrices": ("baseline_hamiltonian",),
    }
    dense = collate([whole, whole], **asked)
    samples = [codec.parse(codec.encode(whole), "here")] * 2
    stored = couple_labels(collate_stored(samples, **asked), "cpu")
    for batch in (dense, stored):
        for name, scale in scales.items():
            for part in ("onsite", "offsite"):
                difference = getattr(batch, f"{part}_{name}") - scale * getattr(
                    batch, f"{part}_target"
                )
                assert difference.abs().max() < 1e-7, (part, name)
    assert collate([whole], CONFIG).offsite_overlap is None


def test_blocks_stay_blocks_until_they_are_coupled() -> None:
    stored = codec.parse(codec.encode(dataclasses.replace(labelled(), method=TZVPD)), "here")
    blocks = dataclasses.replace(collate_stored([stored], CONFIG), noise_seed=7)
    moved = blocks.to("meta")
    assert isinstance(moved, BlockBatch) and moved.labels.hamiltonian.offsite.is_meta
    batch = couple_labels(blocks, "cpu")
    assert isinstance(batch, GraphBatch) and batch.noise_seed == 7
    again = couple_labels(batch, "cpu")
    assert torch.equal(again.onsite_target, batch.onsite_target)
    assert couple_labels(batch, "meta").onsite_target.is_meta


def test_a_matrix_that_the_data_lacks_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"molecule 'm': no overlap.*--overlap true"):
        collate([labelled()], CONFIG, ("overlap",))
    stored = codec.parse(codec.encode(dataclasses.replace(labelled(), method=TZVPD)), "here")
    with pytest.raises(
        ValueError, match=r"molecule 'm': no baseline_hamiltonian.*--baseline minao"
    ):
        collate_stored([stored], CONFIG, matrices=("baseline_hamiltonian",))


@pytest.mark.parametrize("part", ["onsite", "offsite"])
def test_a_stored_matrix_that_holds_nan_is_refused_by_name(part: str) -> None:
    good = codec.parse(
        codec.encode(dataclasses.replace(labelled(), method=TZVPD)), "shard.tar, key 'm'"
    )
    values = good.matrices["hamiltonian"][part].copy()
    values[7] = np.nan
    bad = dataclasses.replace(
        good, matrices={"hamiltonian": {**good.matrices["hamiltonian"], part: values}}
    )
    with pytest.raises(ValueError, match=f"shard.tar, key 'm': hamiltonian_{part} holds NaN"):
        collate_stored([good, bad], CONFIG)
