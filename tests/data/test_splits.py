"""Like samples stay on one side of a split, and an existing split that mixes them is found."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from helm_scale.config import LeaksConfig, SplitConfig
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader, ShardWriter, verify
from helm_scale.data.tools import near_duplicates, splits
from tests.data.labels import SVP, random_molecule, same, write_dataset
from tests.rotations import random_rotation
from tests.tolerances import SHARD_MAX

NUMBERS = np.array([6, 1, 8, 1, 1, 35])


def frame(seed: int) -> np.ndarray:
    """A geometry without symmetry, [6, 3]."""
    return np.random.default_rng(seed).normal(scale=2.0, size=(6, 3))


def prints_of(frames: list[np.ndarray]) -> list[near_duplicates.Fingerprint]:
    """Fingerprints of neutral singlets."""
    return [
        near_duplicates.fingerprint(NUMBERS, positions, charge=0, spin_multiplicity=1)
        for positions in frames
    ]


def write_frames(folder: Path, shifts: list[float], splits: list[str]) -> Manifest:
    """Frames of one neutral molecule whose last atom moves by `shifts` Angstrom."""
    writer = ShardWriter(
        folder, SVP, licence="CC0-1.0", source="random numbers", molecules_per_shard=2
    )
    for number, (shift, split) in enumerate(zip(shifts, splits, strict=True)):
        molecule = replace(random_molecule(f"hof-{number}", number), charge=0)
        positions = molecule.positions.copy()
        positions[2, 0] += shift
        writer.write(replace(molecule, positions=positions), split)
    return writer.close()


def test_a_fingerprint_knows_neither_place_nor_orientation_nor_the_numbering_of_like_atoms() -> (
    None
):
    positions = frame(0)
    order = np.array([0, 4, 2, 1, 3, 5])  # hydrogens exchanged
    moved = (positions @ random_rotation(1).numpy().T + [1.0, -2.0, 3.0])[order]
    one, other = (
        near_duplicates.fingerprint(NUMBERS, positions, charge=0, spin_multiplicity=1),
        near_duplicates.fingerprint(NUMBERS[order], moved, charge=0, spin_multiplicity=1),
    )
    assert one.composition == other.composition == "H3C1O1Br1 +0 1"
    assert np.abs(one.distances - other.distances).max() < 1e-5
    assert (
        np.abs(
            one.distances
            - near_duplicates.fingerprint(
                NUMBERS, frame(1), charge=0, spin_multiplicity=1
            ).distances
        ).max()
        > 0.1
    )
    assert (
        near_duplicates.fingerprint(NUMBERS, positions, charge=1, spin_multiplicity=2).composition
        != one.composition
    )


@pytest.mark.parametrize("step", [1e-3, 0.1, 1.0])
def test_atoms_that_move_little_change_a_fingerprint_little(step: float) -> None:
    for seed in range(20):
        moves = np.random.default_rng(100 + seed).normal(size=(6, 3))
        moved = frame(seed) + step * moves / np.linalg.norm(moves, axis=1, keepdims=True)
        before, after = prints_of([frame(seed), moved])
        assert np.abs(before.distances - after.distances).max() <= 2 * step + 1e-6


def test_near_duplicates_are_those_that_all_pairs_compared_would_give() -> None:
    frames = [
        frame(seed % 7) + 0.02 * np.random.default_rng(seed).normal(size=(6, 3))
        for seed in range(60)
    ]
    prints = prints_of(frames)
    # Of another charge, and so like no other.
    prints[5] = near_duplicates.fingerprint(NUMBERS, frames[5], charge=2, spin_multiplicity=1)
    found = {(i, j) for i, j, _ in near_duplicates.find(prints, 0.1)}
    wanted = {
        (i, j)
        for i, j in combinations(range(60), 2)
        if prints[i].composition == prints[j].composition
        and np.abs(prints[i].distances - prints[j].distances).max() <= 0.1
    }
    assert found == wanted and 30 < len(wanted) < 300


def test_chains_of_near_duplicates_are_one_group() -> None:
    line = [
        frame(0) + shift * np.eye(6, 3) * (np.arange(6) == 0)[:, None]
        for shift in (0.0, 0.03, 0.06, 1.0)
    ]
    groups = splits.groups_by_geometry(prints_of(line), 0.04)
    assert groups[0] == groups[1] == groups[2] != groups[3]


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_divided_and_shares_are_kept(seed: int) -> None:
    groups = np.random.default_rng(seed).integers(0, 40, size=400)
    groups = np.unique(groups, return_inverse=True)[1]
    division = splits.assign(groups, (0.8, 0.1, 0.1), seed)
    assert all(len(set(division[groups == group])) == 1 for group in set(groups.tolist()))
    shares = [(division == name).mean() for name in splits.NAMES]
    assert np.abs(np.array(shares) - [0.8, 0.1, 0.1]).max() < 0.03
    assert np.array_equal(division, splits.assign(groups, (0.8, 0.1, 0.1), seed))
    assert not np.array_equal(division, splits.assign(groups, (0.8, 0.1, 0.1), seed + 100))


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"1 groups \(the largest 9 of 9 samples\) leave no sample for validation, test; ",
    ):
        splits.assign(np.zeros(9, dtype=int), (0.8, 0.1, 0.1), 0)
    assert set(splits.assign(np.array([0, 0, 1]), (0.6, 0.0, 0.4), 0)) == {"train", "test"}


def test_a_leaking_split_is_found_and_mended(tmp_path: Path) -> None:
    folder = tmp_path / "hof"
    # Like geometries of charges -1, 0, 1, -1, 0; the last is the test split.
    before = write_dataset(folder)
    leaky = LeaksConfig(folder=str(folder))
    with pytest.raises(
        ValueError,
        match=r"1 of 1 samples of test have a near-duplicate in train, e.g. 'hof-1' and 'hof-4' \(",
    ):
        splits.check(leaky)
    after, groups = splits.divide(SplitConfig(folder=str(folder), fractions=(0.4, 0.2, 0.4)))
    assert groups == 3 and splits.check(leaky).startswith(
        f"{folder}: no near-duplicates within 0.05 Angstrom in different splits"
    )
    assert (
        after.split_names() != before.split_names()
        and after.hash != before.hash
        and verify(folder) == []
    )
    assert Manifest.load(folder).splits[1] == Manifest.load(folder).splits[4]
    reader = ShardReader(after)
    assert all(same(reader.read(i), random_molecule(f"hof-{i}", i), SHARD_MAX) for i in range(5))
    kept = (folder / f"manifest-{before.hash[:8]}.json").read_bytes()
    (folder / "manifest.json").write_bytes(kept)
    assert Manifest.load(folder).hash == before.hash


def test_frames_of_one_molecule_are_divided_by_geometry(tmp_path: Path) -> None:
    shifts = [0.0, 0.01, 0.5, 0.51, 1.0, 1.01, 1.5, 1.51, 2.0, 2.01]
    dataset = write_frames(tmp_path / "hof", shifts, ["train", "test"] * 5)
    config = LeaksConfig(folder=str(dataset.folder), tolerance=0.02)
    with pytest.raises(ValueError, match="5 of 5 samples of test have a near-duplicate in train"):
        splits.check(config)
    with pytest.raises(ValueError, match="1 groups"):
        splits.divide(SplitConfig(folder=str(dataset.folder)))
    after, groups = splits.divide(
        SplitConfig(
            folder=str(dataset.folder), by="geometry", tolerance=0.02, fractions=(0.6, 0.2, 0.2)
        )
    )
    assert groups == 5 and np.array_equal(after.splits[::2], after.splits[1::2])
    assert [int((after.splits == name).sum()) for name in splits.NAMES] == [6, 2, 2]
    assert "train and test share 1 of 1 compositions of test" in splits.check(config)


def test_a_damaged_sample_is_named(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "hof")
    path = dataset.folder / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[: int(dataset.offset[3]) + 700])
    with pytest.raises(
        ValueError,
        match=r"shard-000001.tar, key 'hof-3': cannot be read .*; run helm-scale shards verify",
    ):
        near_duplicates.read_all(dataset)


def test_shares_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match="wanted three shares that sum to one"):
        SplitConfig(fractions=(0.8, 0.1, 0.2))
