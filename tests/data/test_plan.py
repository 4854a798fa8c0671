"""The order of training: a function of dataset, seed and step alone, fair to every sample and to every rank."""

from itertools import chain

import numpy as np
import pytest

from helm_scale.data.plan import StepPlan, check_world_size, pack, validation_bins

SAMPLES = np.array([3, 4, 7, 9, 11, 12, 20, 21, 22, 30, 41])
COSTS = np.array([5.0, 1.0, 9.0, 2.0, 2.0, 7.0, 1.0, 30.0, 4.0, 4.0, 6.0])


def plan(bins: int = 4, batch: int = 6, seed: int = 0, manifest: str = "a") -> StepPlan:
    """Plan over eleven samples of ragged cost."""
    return StepPlan(manifest, SAMPLES, COSTS, batch, bins, seed)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_same_step_whatever_their_number(world_size: int) -> None:
    for step in range(9):
        shares = [plan().bins_of_rank(step, rank, world_size) for rank in range(world_size)]
        assert {len(share) for share in shares} == {4 // world_size}
        together = [shares[number % world_size][number // world_size] for number in range(4)]
        assert together == plan().bins_of(step)
        assert sorted(chain(*together)) == sorted(plan().samples_of(step))


def test_each_sample_comes_once_per_epoch() -> None:
    steps = [plan(bins=1, batch=4).samples_of(step) for step in range(11)]
    row = list(chain(*steps))
    epochs = [row[start : start + 11] for start in range(0, 44, 11)]
    assert all(sorted(epoch) == SAMPLES.tolist() for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4, "every epoch is shuffled anew"
    assert [plan(bins=1, batch=4).epoch_of(step) for step in (0, 2, 3, 10)] == [0, 0, 1, 3]


def test_a_batch_larger_than_the_split_carries_on_through_epochs() -> None:
    samples = plan(bins=1, batch=25).samples_of(0)
    assert len(samples) == 25 and {samples.count(i) for i in SAMPLES} <= {2, 3}


def test_any_step_is_found_without_the_steps_before() -> None:
    walked = plan()
    for step in range(20):
        walked.bins_of(step)
    assert plan().bins_of(19) == walked.bins_of(19)


def test_order_depends_on_seed_and_on_the_dataset() -> None:
    orders = {tuple(plan(seed=seed, manifest=manifest).samples_of(0)) for seed in (0, 1) for manifest in ("a", "b")}
    assert len(orders) == 4


def test_the_order_is_the_same_on_every_machine_and_for_ever() -> None:
    assert plan().samples_of(0) == [12, 3, 41, 30, 22, 20]


def test_bins_are_balanced_and_none_is_empty() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs = rng.lognormal(sigma=1.0, size=int(rng.integers(8, 40)))
        loads = [costs[members].sum() for members in pack(costs, 8)]
        best = max(costs.max(), costs.sum() / 8)
        assert min(loads) > 0
        assert max(loads) <= (4 / 3) * best + costs.max() / 3, "Graham's bound for longest processing time first"
    assert [len(members) for members in pack([1, 1, 1, 1, 4], 2)] == [1, 4], "the costliest goes first"
    assert all(len(members) == 1 for members in pack(np.zeros(3), 3))


def test_validation_takes_every_sample_once_and_pads_for_all_ranks() -> None:
    bins = validation_bins(SAMPLES[:5], COSTS[:5], batch_molecules=2, world_size=4)
    assert len(bins) == 4 and sorted(chain(*bins)) == SAMPLES[:5].tolist()
    assert len(validation_bins(SAMPLES[:2], COSTS[:2], batch_molecules=2, world_size=4)) == 4


def test_a_world_size_that_does_not_divide_the_bins_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"training\.bins: got 8, but 3 ranks do not divide it.*9"):
        check_world_size(8, 3)


def test_more_bins_than_molecules_and_an_empty_split_are_refused() -> None:
    with pytest.raises(ValueError, match=r"training\.batch_molecules: got 3"):
        plan(bins=4, batch=3)
    with pytest.raises(ValueError, match="without molecules"):
        StepPlan("a", SAMPLES[:0], COSTS[:0], 4, 1, 0)
