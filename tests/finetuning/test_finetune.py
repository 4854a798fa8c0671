"""Finetuning changes what it says and nothing else, and its energies keep the physics of the trunk.

Labels are atomic energies plus a made-up pair potential: additive where a test says so, learnable
where it trains.
"""

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from helm_scale.config import HeadConfig
from helm_scale.data.graphs.collate import collate
from helm_scale.finetuning import fit, modes, tables, train
from helm_scale.finetuning.features import cached_features, from_cache, join
from helm_scale.finetuning.labels import LabelledSplits, fit_reference
from helm_scale.model.energy import EnergyModel
from tests.finetuning.made_up import (
    ATOMIC,
    CONFIG,
    HEADS,
    MODES,
    backbone,
    labelled,
    molecule,
    molecules,
    settings,
    started,
    trained,
)
from tests.rotations import random_rotation
from tests.tolerances import MODEL


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Bitwise equality of all weights."""
    theirs = second.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("mode", MODES)
def test_zero_steps_change_nothing(mode: str, kind: str) -> None:
    run = trained(mode, steps=0, head=HeadConfig(kind=kind))
    assert same(run.model.trunk, backbone().trunk) == (mode != "direct")
    batch = collate(run.splits.tests["test"], CONFIG)
    features = EnergyModel(CONFIG)
    features.trunk.load_state_dict(backbone().trunk.state_dict())
    assert torch.equal(run.model.features(batch), features.features(batch)) == (mode != "direct")
    wanted = torch.zeros(5, dtype=torch.float64).index_add(
        0, batch.molecule, run.splits.reference[batch.atomic_numbers]
    )
    assert torch.equal(run.model(batch), wanted)
    train.fit_linear_readout(run)
    assert same(run.model.trunk, backbone().trunk) == (mode != "direct") and not torch.equal(
        run.model(batch), wanted
    )


@pytest.mark.parametrize("kind", HEADS)
def test_frozen_leaves_the_backbone_as_it_was_to_the_last_bit(kind: str) -> None:
    run = trained("frozen", steps=4, head=HeadConfig(kind=kind))
    assert same(run.model.trunk, backbone().trunk)
    assert all(w.abs().max() > 0 for w in run.model.head.output_weights())


def test_finetuned_trains_every_tensor_that_energies_depend_on() -> None:
    config = settings()
    run, before = trained("finetuned"), backbone().trunk.state_dict()
    seen = {int(z) for m in run.splits.train for z in m.atomic_numbers}
    for name, parameter in run.model.trunk.named_parameters():
        changed = (
            (parameter != before[name]).flatten(1).any(1)
            if parameter.ndim > 1
            else parameter != before[name]
        )
        if name.startswith(("element", "edge_scalars")):
            assert set(changed.nonzero().flatten().tolist()) <= seen and changed.any(), name
        else:
            assert changed.any() or parameter.grad is None or not parameter.grad.any(), name
    rates = [part.rate for part in modes.parameter_groups(run.model, "finetuned", config)]
    assert rates == pytest.approx([5e-4 * 0.49, 5e-4 * 0.7, 5e-4, 2e-3])


def test_frozen_layers_stay_and_every_tensor_belongs_to_one_part() -> None:
    run, before = trained("finetuned", freeze_layers=2), backbone().trunk.state_dict()
    changed = {
        name for name, p in run.model.trunk.named_parameters() if not torch.equal(p, before[name])
    }
    assert changed and all(name.startswith(("layers.1.", "norm.")) for name in changed)
    parts = modes.parameter_groups(run.model, "finetuned", settings(freeze_layers=2))
    assert [part.rate > 0 for part in parts] == [False, False, True, True]
    assert sorted(id(p) for part in parts for p in part.tensors) == sorted(
        map(id, run.model.parameters())
    )


def test_a_random_backbone_depends_on_the_seed_alone_and_disturbs_no_other_draw() -> None:
    helm, splits, config = backbone(), fit_reference(labelled()), settings()
    first, state = modes.start_model("direct", helm, splits, config, seed=0), torch.get_rng_state()
    torch.rand(1)
    assert same(first, modes.start_model("direct", helm, splits, config, seed=0))
    assert not same(first, modes.start_model("direct", helm, splits, config, seed=1))
    torch.set_rng_state(state)
    modes.start_model("direct", helm, splits, config, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mode", ["direct", "finetuned"])
def test_training_learns_what_references_cannot(mode: str) -> None:
    run = started(mode, settings())
    alone = train.errors(run, run.splits.train)
    after = trained(
        mode, steps=80, learning_rate=5e-3, backbone_learning_rate=5e-3, layer_decay=1.0
    )
    error = train.errors(after, after.splits.train)
    assert error.mae < 0.4 * alone.mae and error.mae_per_atom < 0.4 * alone.mae_per_atom


def test_a_loss_on_forces_teaches_the_backbone() -> None:
    run = started("finetuned", settings())
    train.fit_linear_readout(run)
    batch = run.graphs.batch(run.splits.train)

    def of_forces() -> torch.Tensor:
        return train.loss(run, batch, 2.0) - train.loss(run, batch, 0.0)

    before, (_, forces) = of_forces(), run.model.energy_and_forces(batch)
    assert batch.forces is not None
    mean = (forces - batch.forces).square().mean()
    assert before.item() == pytest.approx(2 * (mean.sqrt() + mean).item(), rel=1e-4)
    trunk = list(run.model.trunk.parameters())
    slopes = torch.autograd.grad(before, trunk, allow_unused=True)
    size = sum(float(slope.square().sum()) for slope in slopes if slope is not None) ** 0.5
    with torch.no_grad():
        for parameter, slope in zip(trunk, slopes, strict=True):
            if slope is not None:
                parameter -= 1e-3 / size * slope
    assert of_forces().item() == pytest.approx(before.item() - 1e-3 * size, abs=3e-4 * size)
    with pytest.raises(
        ValueError, match=r"target: got forces, but .* are not all labelled with them"
    ):
        bare = replace(labelled(), train=tuple(replace(m, forces=None) for m in molecules(16, 1)))
        trained("finetuned", bare, target="forces", force_weight=1.0)


def test_forces_are_the_gradient_of_the_energy() -> None:
    run = trained(
        "finetuned",
        model_config=CONFIG.model_copy(update={"dtype": "float64"}),
        head=HeadConfig(kind="layer"),
    )
    still, step = molecules(1, 9)[0], 1e-4
    direction = torch.eye(len(still.positions), 3, dtype=torch.float64)
    _, forces = run.model.energy_and_forces(collate([still], run.model.config))
    moved = [
        replace(still, key=str(s), positions=still.positions + s * step * direction.numpy())
        for s in (1, -1)
    ]
    with torch.no_grad():
        ahead, behind = run.model(collate(moved, run.model.config))
    assert float((forces * direction).sum()) == pytest.approx(
        float(behind - ahead) / (2 * step), rel=1e-5
    )


def test_references_are_exact_for_additive_energies() -> None:
    run = started("frozen", settings(), labelled(bonding=0.0))
    assert {
        z: round(float(energy), 6)
        for z, energy in enumerate(run.splits.reference)
        if abs(energy) > 1e-6
    } == ATOMIC
    assert train.errors(run, run.splits.tests["test"]).mae < 1e-8


def test_energies_of_free_atoms_are_taken_as_they_are() -> None:
    splits = fit_reference(replace(labelled(), atoms={1: -0.45}))
    assert float(splits.reference[1]) == -0.45
    assert splits.scale > fit_reference(labelled()).scale
    run = started("frozen", settings(), replace(labelled(), atoms={1: -0.45}))
    train.fit_linear_readout(run)
    assert float(run.model.reference[1]) == -0.45


def test_the_linear_fit_finds_what_is_linear_and_shrinks_what_is_noise() -> None:
    rng = torch.Generator().manual_seed(0)
    x, counts = (torch.randn(40, 6, generator=rng, dtype=torch.float64) for _ in range(2))
    wanted, change = (torch.randn(6, generator=rng, dtype=torch.float64) for _ in range(2))
    found = fit.ridge(x, x @ wanted + counts @ change, counts)
    assert (found.weight - wanted).abs().max() < 1e-4
    assert (found.change - change).abs().max() < 1e-4
    noise = torch.randn(40, generator=rng, dtype=torch.float64)
    wide = torch.randn(40, 36, generator=rng, dtype=torch.float64)
    fitted = fit.ridge(wide, noise, counts[:, :1]).weight
    assert float((wide @ fitted).square().mean()) < 0.3 * float(noise.square().mean())


@pytest.mark.parametrize("features", [10, 80])
def test_the_leave_one_out_error_is_that_of_fits_to_all_samples_but_one(features: int) -> None:
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(20, features, generator=rng, dtype=torch.float64)
    y = x[:, :3].sum(1) + torch.randn(20, generator=rng, dtype=torch.float64)
    found = fit.ridge(x, y, torch.zeros(20, 1, dtype=torch.float64))
    x = x / (x.square().mean(0).sqrt() + fit.FAINT * x.square().mean().sqrt())
    penalty = found.strength * x.square().mean() * 20 * torch.eye(features, dtype=torch.float64)
    left_out = []
    for i in range(20):
        others = torch.arange(20) != i
        gram = x[others].T @ x[others] + penalty
        left_out.append(y[i] - x[i] @ torch.linalg.solve(gram, x[others].T @ y[others]))
    assert found.left_out == pytest.approx(float(torch.stack(left_out).abs().mean()))
    assert found.alone == pytest.approx(float(y.abs().mean()))
    assert found.left_out < found.alone


def test_many_features_of_few_samples_that_explain_nothing_are_left_alone() -> None:
    """A fit that interpolates has no residual, and leave-one-out must not take that for success."""
    rng = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 9, (24, 4), generator=rng).double()
    noise = [torch.randn(24, generator=rng, dtype=torch.float64) for _ in range(20)]
    wide = torch.randn(24, 256, generator=rng, dtype=torch.float64)
    fits = [fit.ridge(wide, y, counts) for y in noise]
    assert all(found.left_out <= found.alone for found in fits)
    new = torch.randn(1000, 256, generator=rng, dtype=torch.float64)
    sizes = [float((new @ found.weight).square().mean().sqrt()) for found in fits]
    assert sum(sizes) / len(sizes) < 0.1  # of noise of size one; 0.3 where a fit interpolates
    alone = fit.ridge(torch.zeros(24, 6, dtype=torch.float64), noise[0], counts)
    assert math.isinf(alone.strength) and not alone.weight.any()


def test_a_fit_that_validation_refutes_leaves_the_references() -> None:
    data = labelled(validation=4)
    wrong = replace(
        data,
        validation=tuple(
            replace(m, energy=2 * sum(ATOMIC[int(z)] for z in m.atomic_numbers) - (m.energy or 0))
            for m in data.validation
        ),
    )
    config = settings(head_start="fit")
    believed, refuted = started("frozen", config, data), started("frozen", config, wrong)
    assert train.start_head(believed, config).strength is not None
    before = train.errors(refuted, wrong.validation).mae
    assert train.start_head(refuted, config).strength is None
    assert train.errors(refuted, wrong.validation).mae == before


def test_the_linear_fit_does_not_depend_on_the_scales_of_features() -> None:
    rng = torch.Generator().manual_seed(0)
    x, counts = (torch.randn(30, 40, generator=rng, dtype=torch.float64) for _ in range(2))
    target, scale = (
        torch.randn(30, generator=rng, dtype=torch.float64),
        10 ** torch.rand(40, generator=rng, dtype=torch.float64),
    )
    plain, scaled = (
        fit.ridge(x * factor, target, counts[:, :2]).weight * factor
        for factor in (torch.ones_like(scale), scale)
    )
    assert (scaled - plain).abs().max() < 0.01 * plain.abs().max()


def test_the_linear_fit_is_the_optimum_that_steps_approach() -> None:
    run = started("frozen", settings())
    alone = train.errors(run, run.splits.train).mae
    train.fit_linear_readout(run)
    assert train.errors(run, run.splits.train).mae < 0.8 * alone


def test_errors_per_atom_divide_by_the_atoms_of_each_molecule() -> None:
    two, four = (
        molecule(str(n), np.ones(n, dtype=np.int64), np.eye(4, 3)[:n] * 9.0, 0.0) for n in (2, 4)
    )
    assert two.energy is not None and four.energy is not None
    shifted = (
        replace(two, key="a", energy=two.energy + 0.2),
        replace(four, energy=four.energy - 0.8),
    )
    run = started("direct", settings(), LabelledSplits(train=(two,), tests={"test": shifted}))
    error = train.errors(run, shifted)
    assert error.mae == pytest.approx(0.5) and error.mae_per_atom == pytest.approx((0.1 + 0.2) / 2)


@pytest.mark.parametrize("kind", HEADS)
def test_trained_energies_are_invariant_permute_and_add_up(kind: str) -> None:
    config = CONFIG.model_copy(update={"dtype": "float64"})
    model = trained("finetuned", model_config=config, head=HeadConfig(kind=kind)).model
    numbers, x = np.array([6, 1, 35, 8, 1]), np.random.default_rng(4).normal(size=(5, 3)) * 1.5
    x[1] = x[0] + [0, 0, 1.1]
    order = np.array([3, 0, 4, 2, 1])
    far = np.concatenate([x, x @ random_rotation(2).numpy().T + [40.0, 0, 0]])
    variants = [
        (numbers, x),
        (numbers, x @ random_rotation(1).numpy().T + 2.0),
        (numbers[order], x[order]),
        (np.tile(numbers, 2), far),
    ]
    batch = collate([molecule(str(i), *variant, 0.0) for i, variant in enumerate(variants)], config)
    with torch.no_grad():
        alone = model(collate([molecule("alone", numbers, x, 0.0)], config))
        energy = model(batch)
        learned = energy - energy.new_zeros(4).index_add(
            0, batch.molecule, model.reference[batch.atomic_numbers]
        )
    limit = MODEL[torch.float64] * float(alone.abs())
    assert (energy - alone * torch.tensor([1, 1, 1, 2])).abs().max() < limit
    assert learned.abs().min() > 1e-6  # the comparison would notice a head that does nothing


def test_an_exact_fit_does_not_end_in_nan() -> None:
    alone = tuple(molecules(1, 1))
    run = trained("finetuned", LabelledSplits(train=alone, tests={"test": alone}))
    assert train.errors(run, alone).mae < 1e-3


def test_the_best_step_on_validation_is_kept() -> None:
    data = labelled(validation=4)
    spoiled = replace(
        data, validation=tuple(replace(m, energy=(m.energy or 0) + 0.3) for m in data.validation)
    )
    config = settings(
        steps=20, evaluations=10, patience=3, learning_rate=0.5, backbone_learning_rate=0.5
    )
    run = started("finetuned", config, spoiled)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    before_training = train.errors(run, spoiled.validation).mae
    step = train.train(run, modes.parameter_groups(run.model, "finetuned", config), config, seed=0)
    assert train.errors(run, run.splits.validation).mae <= before_training and step <= 20
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items()
    ) == (step == 0)


def test_molecules_without_a_defined_reference_are_left_out_and_named() -> None:
    pair = (molecule("HBr", np.array([1, 35]), np.eye(2, 3), 0.1),)
    asked = (
        molecule("H2Br2", np.array([1, 35, 1, 35]), 2 * np.eye(4, 3), 0.1),
        molecule("Br2", np.array([35, 35]), np.eye(2, 3), 0.1),
        molecule("CH", np.array([6, 1]), np.eye(2, 3), 0.1),
    )
    splits = fit_reference(LabelledSplits(train=pair, tests={"test": asked}))
    assert splits.skipped == ("Br2", "CH") and [m.key for m in splits.tests["test"]] == ["H2Br2"]
    message = "split 'test': none of 2 molecules has a composition that the 1 training molecules"
    with pytest.raises(ValueError, match=message):
        fit_reference(LabelledSplits(train=pair, tests={"test": asked[1:]}))


def test_every_sample_comes_once_per_epoch() -> None:
    drawn = [i for batch in islice(train.sample_order(10, 4, seed=3), 5) for i in batch]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10)) and drawn[:10] != drawn[10:]
    assert sorted(next(train.sample_order(3, 8, seed=3))) == [0, 1, 2]


def test_smaller_training_sets_are_part_of_larger_ones() -> None:
    few, more = ({m.key for m in labelled().draw(size, seed=1).train} for size in (4, 9))
    assert len(few) == 4 and few < more and few != {m.key for m in labelled().draw(4, seed=2).train}
    assert len(labelled().draw(0, seed=1).train) == 16


@pytest.mark.parametrize("kind", HEADS)
def test_joined_graphs_and_kept_features_give_the_energies_of_the_model(
    kind: str, tmp_path: Path
) -> None:
    run = trained("frozen", head=HeadConfig(kind=kind), target="forces", force_weight=0.5)
    part = run.splits.train
    batch = run.graphs.batch(part)
    plain = collate(part, CONFIG)
    for name in (
        "atomic_numbers",
        "positions",
        "molecule",
        "charge",
        "edge_index",
        "energy",
        "forces",
    ):
        assert torch.equal(getattr(batch, name), getattr(plain, name)), name
    assert join([collate([part[0]], CONFIG)]).keys == (part[0].key,)
    with torch.no_grad():
        wanted = run.model(plain)
        for _ in range(2):  # computed, then read back
            features = from_cache(cached_features(run.model, part, tmp_path))
            assert (run.model.values(features(batch), batch) - wanted).abs().max() < 1e-5
    assert len(list(tmp_path.iterdir())) == 1
    cached_features(run.model, part[:3], tmp_path)
    run.model.trunk.element.weight.data[1] += 1e-3
    cached_features(run.model, part, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_confidence_intervals_are_those_of_students_t() -> None:
    mean, half = tables.confidence_interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert np.isnan(tables.confidence_interval([1.0])[1])
