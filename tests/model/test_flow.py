"""The flow: noise that a key fixes, isotropic priors, straight paths, no labels in a prediction."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helm_scale.data.graphs.collate import collate
from helm_scale.model import flow
from helm_scale.types import GraphBatch, Molecule
from tests.model.test_conditioning import SMALL
from tests.model.test_physics import build

FLOW = SMALL(prior="irreps")


def labelled(keys: str) -> GraphBatch:
    """Molecules of four atoms with random labels."""
    rng = np.random.default_rng(0)
    numbers, matrices = np.array([8, 1, 6, 1]), rng.normal(size=(len(keys), 38, 38))
    molecules = [
        Molecule(key, numbers, rng.normal(size=(4, 3)) * 1.5, hamiltonian=m + m.T)
        for key, m in zip(keys, matrices, strict=True)
    ]
    return collate(molecules, FLOW)


def test_a_key_and_the_number_of_the_draw_fix_it() -> None:
    one, same, other = labelled("a"), labelled("a"), replace(labelled("a"), noise_seed=7)
    first, again, differs = (flow.prior_point(FLOW, batch) for batch in (one, same, other))
    assert torch.equal(first.offsite, again.offsite) and torch.equal(first.onsite, again.onsite)
    assert (first.offsite - differs.offsite).abs().max() > 0.1
    two = flow.prior_point(FLOW, labelled("ba"))
    assert set(first.offsite.tolist()) < set(two.offsite.tolist()) and set(
        first.onsite.tolist()
    ) < set(two.onsite.tolist())


@pytest.mark.parametrize("prior", ["irreps", "goe", "tensor"])
def test_priors_prefer_no_direction(prior: str) -> None:
    config = SMALL(prior=prior)
    x = np.random.default_rng(1).normal(size=(70, 3)) * 4.0
    batch = collate([Molecule("m", np.full(70, 1), x)], config)
    point = flow.prior_point(config, batch)
    blocks = point.offsite.view(
        -1, 25
    )  # degree 0: 5 rows, degree 1: 5 rows (s-p, p-s, p-p), degree 2: 1 row
    for degree, start, rows in ((1, 5, 5), (2, 20, 1)):
        w = blocks[:, start : start + (2 * degree + 1) * rows].unflatten(1, (2 * degree + 1, rows))
        covariance = torch.einsum("nar,nbr->ab", w, w) / (len(w) * rows)
        norm = {"irreps": 2.0, "tensor": 2.0, "goe": 2.0 * (2 * degree + 1)}[prior]
        assert float(covariance.trace()) == pytest.approx(norm, rel=0.15)
        ideal = torch.eye(2 * degree + 1, dtype=w.dtype) * covariance.trace() / (2 * degree + 1)
        assert (covariance - ideal).abs().max() < 0.15 * covariance.trace()
    assert blocks.mean(0).abs().max() < 0.2


def test_the_path_is_straight_and_euler_steps_stay_on_it() -> None:
    batch = labelled("abc")
    end = batch.onsite_target, batch.offsite_target
    begin, point = flow.prior_point(FLOW, batch), flow.training_point(FLOW, batch, *end)
    time = point.time[batch.molecule[batch.pair_index[0]]].repeat_interleave(
        flow.blocks_of(FLOW, batch)[1].sizes()
    )
    assert torch.allclose(
        point.offsite, begin.offsite + time * (end[1] - begin.offsite), rtol=0, atol=1e-12
    )
    assert (
        len(set(point.time.tolist())) == 3 and 0.01 <= point.time.min() <= point.time.max() <= 0.99
    )
    for _ in range(4):
        begin = flow.euler(begin, *end, 0.25)
    assert torch.allclose(begin.offsite, end[1], rtol=0, atol=1e-12) and torch.allclose(
        begin.onsite, end[0], rtol=0, atol=1e-12
    )


def test_the_flow_to_a_fixed_end_is_the_same_in_any_number_of_steps() -> None:
    model = build(FLOW).eval()
    bare = replace(labelled("ab"), onsite_target=None, offsite_target=None)
    with torch.no_grad():
        one = model(bare)
        model.flow_steps = 3
        three = model(bare)
        model.conditions, model.pairs.conditions = (
            None,
            None,
        )  # the network now sees no point: its end is fixed
        blind = model(bare)
        model.flow_steps = 1
        assert torch.allclose(model(bare).offsite, blind.offsite, rtol=0, atol=1e-14)
    assert (one.offsite - three.offsite).abs().max() > 1e-9


def test_predictions_see_no_labels_and_training_does() -> None:
    model, batch = build(FLOW), labelled("ab")
    bare = replace(batch, onsite_target=None, offsite_target=None)
    with torch.no_grad():
        assert torch.equal(model.eval()(batch).offsite, model(bare).offsite)
        learning = model.train()(batch).offsite
        assert torch.equal(learning, model(batch).offsite)  # computed again, a batch draws the same
        assert (learning - model(replace(batch, noise_seed=1)).offsite).abs().max() > 1e-9


def test_regression_is_the_flow_from_zero_at_time_zero() -> None:
    config, batch = SMALL(prior="zero"), labelled("ab")
    for point in (
        flow.prior_point(config, batch),
        flow.training_point(config, batch, batch.onsite_target, batch.offsite_target),
    ):
        assert not point.time.any() and not point.onsite.any() and not point.offsite.any()
        assert (
            point.offsite.shape == batch.offsite_target.shape
            and point.onsite.shape == batch.onsite_target.shape
        )
