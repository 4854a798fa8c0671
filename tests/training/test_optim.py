"""Optimisers: Muon is torch's own, stacked or not; the schedule, the average and the groups are what they claim."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from helm_scale.config import ModelConfig, TrainingConfig
from helm_scale.model.helm import Helm
from helm_scale.training.optim import StackedMuon, WeightAverage, learning_rate_factor, make_optimizers, orthogonalise

SHAPES = [(8, 8), (8, 8), (6, 20), (20, 6), (6, 20), (3, 3)]
QUINTIC = (3.4445, -4.7750, 2.0315)
MUON = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}


def matrices(seed: int = 0) -> list[nn.Parameter]:
    """Parameters of several shapes."""
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def descend(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Step with gradients that differ from step to step."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("nesterov", [True, False])
def test_stacked_muon_is_torch_muon_within_bfloat16(nesterov: bool) -> None:
    before, ours, theirs = matrices(), matrices(), matrices()
    descend(ours, StackedMuon(ours, torch.float32, nesterov=nesterov, **MUON), 3)
    descend(theirs, torch.optim.Muon(theirs, nesterov=nesterov, **MUON), 3)
    with torch.no_grad():
        for start, mine, other in zip(before, ours, theirs, strict=True):
            assert float((mine - other).norm() / (other - start).norm()) < 0.02  # bfloat16 has 8 bits; five iterations


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_matrix_is_orthogonalised_alike_alone_and_in_a_stack(dtype: torch.dtype) -> None:
    every = [parameter.detach() for parameter in matrices()]
    together = orthogonalise(every, QUINTIC, 5, 1e-7, dtype)
    for matrix, stacked in zip(every, together, strict=True):
        (alone,) = orthogonalise([matrix], QUINTIC, 5, 1e-7, dtype)
        torch.testing.assert_close(stacked, alone, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.05)
        assert stacked.shape == matrix.shape and stacked.dtype == matrix.dtype


def test_orthogonalisation_keeps_singular_vectors_and_levels_singular_values() -> None:
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(2)).double()
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    (polar,) = orthogonalise([matrix], QUINTIC, 5, 1e-7, torch.float64)
    in_basis = u.T @ polar @ v.T
    assert float((in_basis - torch.diag(in_basis.diagonal())).abs().max()) < 1e-10
    assert float(in_basis.diagonal().min()) > 0.6 and float(in_basis.diagonal().max()) < 1.3


def test_the_rate_rises_to_one_and_falls_to_zero() -> None:
    rates = [learning_rate_factor(step, 100, 10) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0 and rates[55] == pytest.approx(0.5) and rates[100] == pytest.approx(0, abs=1e-15)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert learning_rate_factor(0, 1, 0) == 1.0 and learning_rate_factor(4, 5, 100) == 0.05


def test_every_parameter_has_one_optimizer_and_muon_only_hidden_matrices() -> None:
    sizes = {"channels": 4, "hidden_channels": 4, "edge_channels": 4, "num_layers": 1, "radial_functions": 4}
    model = Helm(ModelConfig(basis="def2-svp", lmax=4, mmax=4, **sizes))
    adamw, muon = make_optimizers(model, TrainingConfig(optimizer="muon", weight_decay=0.1))
    by_name = dict(model.named_parameters())
    taken = [p for optimizer in (adamw, muon) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, taken)) == sorted(map(id, by_name.values()))
    name_of = {id(parameter): name for name, parameter in by_name.items()}
    hidden = {name_of[id(p)] for p in muon.param_groups[0]["params"]}
    assert "pairs.tower.layers.0.operator.first.invariant.weight" in hidden
    assert not [name for name in hidden if "head" in name or "edge_scalars" in name or name.startswith("trunk.element")]
    assert {name_of[id(p)] for p in adamw.param_groups[1]["params"]} == {name for name, p in by_name.items() if p.ndim < 2}
    assert adamw.param_groups[1]["weight_decay"] == 0.0
    assert len(make_optimizers(model, TrainingConfig(optimizer="adamw"))) == 1


def test_the_average_follows_its_recurrence_and_lends_itself_for_a_while() -> None:
    weight = torch.zeros(3)
    average = WeightAverage({"weight": weight}, decay=0.75)
    expected = 0.0
    for value in (1.0, 5.0, -2.0):
        weight.fill_(value)
        average.update()
        expected += 0.25 * (value - expected)
    with average.applied():
        assert weight.tolist() == pytest.approx([expected] * 3)
    assert weight.tolist() == [-2.0] * 3 and average.tensors["weight"].tolist() == pytest.approx([expected] * 3)
