"""The order of training depends on dataset, seed and step alone.

It is fair to every sample and to every rank.
"""

import time
from itertools import chain

import numpy as np
import pytest

from helm_scale.data.loading import epochs
from helm_scale.data.loading.ahead import ahead
from helm_scale.data.loading.epochs import ShuffledEpochs
from helm_scale.data.loading.sampler import (
    Sampler,
    pack,
    validation_micro_batches,
)

SAMPLES = np.array([3, 4, 7, 9, 11, 12, 20, 21, 22, 30, 41])
COSTS = np.array([5.0, 1.0, 9.0, 2.0, 2.0, 7.0, 1.0, 30.0, 4.0, 4.0, 6.0])

COST_OF = np.zeros(42)
COST_OF[SAMPLES] = COSTS


def sampler(micro_batches: int = 4, batch: int = 6, seed: int = 0, manifest: str = "a") -> Sampler:
    """Sampler over eleven samples of ragged cost."""
    return Sampler(
        [ShuffledEpochs(manifest, SAMPLES, seed=seed)],
        COST_OF,
        batch_molecules=batch,
        micro_batches=micro_batches,
    )


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_same_step_whatever_their_number(world_size: int) -> None:
    for step in range(9):
        shares = [
            sampler().micro_batches_of_rank(step, rank, world_size) for rank in range(world_size)
        ]
        assert {len(share) for share in shares} == {4 // world_size}
        together = [shares[number % world_size][number // world_size] for number in range(4)]
        assert together == sampler().micro_batches_of(step)
        assert sorted(chain(*together)) == sorted(sampler().samples_of(step))


def test_each_sample_comes_once_per_epoch() -> None:
    steps = [sampler(micro_batches=1, batch=4).samples_of(step) for step in range(11)]
    row = list(chain(*steps))
    epochs = [row[start : start + 11] for start in range(0, 44, 11)]
    assert all(sorted(epoch) == SAMPLES.tolist() for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4, "every epoch is shuffled anew"
    assert [sampler(micro_batches=1, batch=4).epoch_of(step) for step in (0, 2, 3, 10)] == [
        0,
        0,
        1,
        3,
    ]


def test_a_batch_larger_than_the_split_carries_on_through_epochs() -> None:
    samples = sampler(micro_batches=1, batch=25).samples_of(0)
    assert len(samples) == 25 and {samples.count(i) for i in SAMPLES} <= {2, 3}


def test_any_step_is_found_without_the_steps_before() -> None:
    walked = sampler()
    for step in range(20):
        walked.micro_batches_of(step)
    assert sampler().micro_batches_of(19) == walked.micro_batches_of(19)


def test_order_depends_on_seed_and_on_the_dataset() -> None:
    orders = {
        tuple(sampler(seed=seed, manifest=manifest).samples_of(0))
        for seed in (0, 1)
        for manifest in ("a", "b")
    }
    assert len(orders) == 4


def test_the_order_is_the_same_on_every_machine_and_for_ever() -> None:
    assert sampler().samples_of(0) == [12, 3, 41, 30, 22, 20]


def test_bins_are_balanced_and_none_is_empty() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs = rng.lognormal(sigma=1.0, size=int(rng.integers(8, 40)))
        loads = [costs[members].sum() for members in pack(costs, 8)]
        best = max(costs.max(), costs.sum() / 8)
        assert min(loads) > 0
        assert max(loads) <= (4 / 3) * best + costs.max() / 3, (
            "Graham's bound for longest processing time first"
        )
    assert [len(members) for members in pack([1, 1, 1, 1, 4], 2)] == [1, 4], (
        "the costliest goes first"
    )
    assert all(len(members) == 1 for members in pack(np.zeros(3), 3))


def test_a_large_step_is_packed_as_item_by_item() -> None:
    """The rule in plain words, against the arrays that follow it: ties go by position."""
    costs = np.random.default_rng(0).integers(1, 9, size=300).astype(np.float64)
    loads, plain = [[0.0, 0, number] for number in range(32)], [[] for _ in range(32)]
    for i in sorted(range(300), key=lambda i: (-costs[i], i)):
        least = min(loads)
        least[0], least[1] = least[0] + costs[i], least[1] + 1
        plain[least[2]].append(i)
    assert pack(costs, 32) == [sorted(members) for members in plain]


def test_steps_are_planned_ahead_in_order_and_errors_come_in_their_turn() -> None:
    asked: list[int] = []

    def plan(step: int) -> int:
        asked.append(step)
        if step == 4:
            raise ValueError("step 4")
        return 10 * step

    plans = ahead(plan, range(9))
    assert [next(plans) for _ in range(2)] == [0, 10]
    deadline = time.monotonic() + 10
    while len(asked) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert asked == [0, 1, 2, 3], "two more than were taken, and no more"
    assert [next(plans) for _ in range(2)] == [20, 30]
    with pytest.raises(ValueError, match="step 4"):
        next(plans)


def test_validation_takes_every_sample_once_and_pads_for_all_ranks() -> None:
    micro_batches = validation_micro_batches(
        SAMPLES[:5], COSTS[:5], batch_molecules=2, world_size=4
    )
    assert len(micro_batches) == 4 and sorted(chain(*micro_batches)) == SAMPLES[:5].tolist()
    assert (
        len(validation_micro_batches(SAMPLES[:2], COSTS[:2], batch_molecules=2, world_size=4)) == 4
    )


def test_more_bins_than_molecules_leave_some_empty() -> None:
    packed = sampler(micro_batches=4, batch=3).micro_batches_of(5)
    assert sorted(map(len, packed)) == [0, 1, 1, 1]
    assert sorted(chain(*packed)) == sorted(sampler(micro_batches=1, batch=3).samples_of(5))


def test_where_ranks_are_to_be_even_each_divides_its_own_share() -> None:
    divided = Sampler(
        [ShuffledEpochs("a", SAMPLES, seed=0)],
        COST_OF,
        batch_molecules=9,
        micro_batches=6,
        ranks=3,
    )
    shares = sampler(micro_batches=3, batch=9).micro_batches_of(2)
    of_ranks = [divided.micro_batches_of_rank(2, rank, 3) for rank in range(3)]
    assert [sorted(chain(*parts)) for parts in of_ranks] == [sorted(share) for share in shares]
    assert all(len(parts) == 2 for parts in of_ranks)


def test_weights_that_do_not_fit_and_an_empty_split_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.weights: got \[0\.5\], wanted 2 positive numbers"):
        mixture([0.5])
    with pytest.raises(ValueError, match="without molecules"):
        ShuffledEpochs("a", SAMPLES[:0], seed=0)


def mixture(weights: list[float], batch: int = 8, micro_batches: int = 4) -> Sampler:
    """Sampler over two datasets, of 11 and 100 samples."""
    return Sampler(
        [ShuffledEpochs("a", SAMPLES, seed=0), ShuffledEpochs("b", np.arange(100, 200), seed=0)],
        np.ones(200),
        batch_molecules=batch,
        micro_batches=micro_batches,
        weights=weights,
    )


def test_datasets_are_mixed_by_weight_in_any_stretch_and_each_in_its_own_order() -> None:
    row = list(chain(*(mixture([0.3, 0.7]).samples_of(step) for step in range(500))))
    first = np.array(row) < 100
    for start in (0, 137, 2500):
        assert abs(first[start : start + 1000].mean() - 0.3) < 0.002
    alone = [i for i in row if i < 100]
    assert alone == list(
        chain(*(sampler(micro_batches=1, batch=1).samples_of(n) for n in range(len(alone))))
    )
    assert all(sorted(alone[e * 11 : e * 11 + 11]) == SAMPLES.tolist() for e in range(100))


def test_without_weights_each_sample_is_seen_equally_often() -> None:
    row = list(chain(*(mixture([]).samples_of(step) for step in range(111 * 10))))
    counts = np.bincount(row, minlength=200)[[*SAMPLES, *range(100, 200)]]
    assert counts.min() >= 79 and counts.max() <= 81
    rare = Sampler(
        [ShuffledEpochs("a", SAMPLES, seed=0), ShuffledEpochs("b", np.arange(100, 200), seed=0)],
        np.ones(200),
        batch_molecules=1000,
        micro_batches=1,
        weights=[1e-9, 1.0],
    )
    assert sum(sum(i < 100 for i in rare.samples_of(step)) for step in range(11)) > 0, (
        "the least weight is not none"
    )


def windowed(
    epoch_shards: int = 3, per_shard: int = 7, shards: int = 10, seed: int = 0
) -> ShuffledEpochs:
    """A row over shards of equal size, shuffled in windows."""
    samples = np.arange(per_shard * shards)
    return ShuffledEpochs("a", samples, seed=seed, shards=samples // per_shard, window=epoch_shards)


def test_a_permutation_sorted_in_parts_is_that_sorted_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = np.array([0, 1, 9_999, 5_000, 5_001, 137, 3])
    at_once = ShuffledEpochs("a", np.arange(10_000), seed=0).at(places)
    monkeypatch.setattr(epochs, "LARGE", 1)
    in_parts = ShuffledEpochs("a", np.arange(10_000), seed=0)
    assert np.array_equal(in_parts.at(places), at_once)
    assert sorted(in_parts.at(np.arange(10_000))) == list(range(10_000))


def test_a_window_holds_whole_shards_and_an_epoch_every_sample() -> None:
    row = windowed().at(np.arange(140))
    assert sorted(row[:70]) == sorted(row[70:]) == list(range(70))
    shards = [set(part // 7) for part in np.split(row[:70], [21, 42, 63])]
    assert [len(part) for part in shards] == [3, 3, 3, 1] and set().union(*shards) == set(range(10))
    assert len(set(row[:7] // 7)) > 1, "shuffled within the window"
    assert set(row[70:91] // 7) != shards[0] and len(set(row[70:91] // 7)) == 3, (
        "other shards go together in the next epoch"
    )
    assert (
        row[:70].tolist() != row[70:].tolist()
        and row.tolist() != windowed(seed=1).at(np.arange(140)).tolist()
    )


def test_any_place_of_a_windowed_row_is_found_without_those_before() -> None:
    walked = windowed().at(np.arange(700))
    for place in (699, 3, 350, 69, 70):
        assert windowed().at(np.array([place]))[0] == walked[place]


def test_windows_follow_the_shards_that_a_split_really_has() -> None:
    samples, shards = np.array([0, 1, 5, 6, 8, 20]), np.array([0, 0, 2, 2, 2, 9])
    row = ShuffledEpochs("a", samples, seed=0, shards=shards, window=1).at(np.arange(6))
    assert sorted(row) == samples.tolist()
    runs = [shards[samples.tolist().index(i)] for i in row]
    assert [shard for n, shard in enumerate(runs) if n == 0 or runs[n - 1] != shard] == list(
        dict.fromkeys(runs)
    )
