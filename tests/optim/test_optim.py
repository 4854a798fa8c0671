"""Muon is torch's own, stacked or not; schedule, average and groups are what they claim."""

from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from helm_scale import optim
from helm_scale.config import ModelConfig, TrainingConfig
from helm_scale.model.helm import Helm
from helm_scale.optim.average import WeightAverage
from helm_scale.optim.build import hidden_names, make_optimizers
from helm_scale.optim.muon import StackedMuon, newton_schulz
from helm_scale.optim.schedule import cosine_schedule
from helm_scale.optim.spec import OptimizerSpec
from helm_scale.parallel.flat_shards import FlatShard, from_replicated

SHAPES = [(8, 8), (8, 8), (6, 20), (20, 6), (6, 20), (3, 3)]
MUON = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}


def matrices(seed: int = 0) -> list[nn.Parameter]:
    """Parameters of several shapes."""
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def descend(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Step with gradients that differ from step to step."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.numel(), generator=generator).view(
                parameter.shape
            )
        optimizer.step()


@pytest.mark.parametrize("nesterov", [True, False])
def test_stacked_muon_is_torch_muon_within_bfloat16(nesterov: bool) -> None:
    before, ours, theirs = matrices(), matrices(), matrices()
    held = [from_replicated(parameter) for parameter in ours]
    descend(
        [shard.local for shard in held],
        StackedMuon(held, torch.float32, nesterov=nesterov, **MUON),
        3,
    )
    descend(
        theirs,
        torch.optim.Muon(theirs, nesterov=nesterov, adjust_lr_fn="match_rms_adamw", **MUON),
        3,
    )
    with torch.no_grad():
        for start, mine, other in zip(before, ours, theirs, strict=True):
            assert (
                float((mine - other).norm() / (other - start).norm()) < 0.02
            )  # bfloat16 has 8 bits; five iterations


@pytest.mark.parametrize("worth_a_stack", [0.0, 1e3, inf])  # by shape, some padded, all in one
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_matrix_is_orthogonalised_alike_alone_and_in_a_stack(
    dtype: torch.dtype, worth_a_stack: float
) -> None:
    every = [parameter.detach() for parameter in matrices()]
    together = newton_schulz(every, dtype, worth_a_stack)
    for matrix, stacked in zip(every, together, strict=True):
        (alone,) = newton_schulz([matrix], dtype)
        torch.testing.assert_close(
            stacked, alone, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.05
        )
        assert stacked.shape == matrix.shape and stacked.dtype == matrix.dtype


def test_orthogonalisation_keeps_singular_vectors_and_levels_singular_values() -> None:
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(2)).double()
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    (polar,) = newton_schulz([matrix], torch.float64)
    in_basis = u.T @ polar @ v.T
    assert float((in_basis - torch.diag(in_basis.diagonal())).abs().max()) < 1e-10
    assert float(in_basis.diagonal().min()) > 0.6 and float(in_basis.diagonal().max()) < 1.3


def test_the_rate_rises_to_one_and_falls_to_zero() -> None:
    rates = [cosine_schedule(step, steps=100, warmup_steps=10) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert (
        rates[10] == 1.0
        and rates[55] == pytest.approx(0.5)
        and rates[100] == pytest.approx(0, abs=1e-15)
    )
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert cosine_schedule(0, steps=1, warmup_steps=0) == 1.0
    assert cosine_schedule(4, steps=5, warmup_steps=100) == 0.05


def test_every_parameter_has_one_optimizer_and_muon_only_hidden_matrices() -> None:
    sizes = {
        "channels": 4,
        "hidden_channels": 4,
        "edge_channels": 4,
        "num_layers": 1,
        "radial_functions": 4,
    }
    model = Helm(ModelConfig(basis="def2-svp", lmax=4, mmax=4, **sizes))
    trained = {name: from_replicated(parameter) for name, parameter in model.named_parameters()}
    adamw, muon = make_optimizers(
        trained, TrainingConfig(optimizer="muon", weight_decay=0.1), hidden_names(model)
    )
    name_of = {id(shard.local): name for name, shard in trained.items()}
    taken = [
        name_of[id(held)]
        for optimizer in (adamw, muon)
        for group in optimizer.param_groups
        for held in group["params"]
    ]
    assert sorted(taken) == sorted(trained)
    hidden = {name_of[id(held)] for held in muon.param_groups[0]["params"]}
    assert "pairs.tower.layers.0.operator.first.invariant.weight" in hidden
    assert not [
        name
        for name in hidden
        if "head" in name or "edge_scalars" in name or name.startswith("trunk.element")
    ]
    vectors = {name for name, parameter in model.named_parameters() if parameter.ndim < 2}
    assert {name_of[id(held)] for held in adamw.param_groups[1]["params"]} == vectors
    assert adamw.param_groups[1]["weight_decay"] == 0.0
    assert (
        len(make_optimizers(trained, TrainingConfig(optimizer="adamw"), hidden_names(model))) == 1
    )


def test_names_and_files_of_optimizers_are_the_same_and_moments_are_what_is_kept() -> None:
    names = get_args(TrainingConfig.model_fields["optimizer"].annotation)
    folder = Path(str(optim.__file__)).parent
    with_spec = {path.stem for path in folder.glob("*.py") if "\nOPTIMIZER = " in path.read_text()}
    assert with_spec == set(names)
    for name in names:
        spec, shard = optim.spec_of(name), from_replicated(matrices()[0])
        assert isinstance(spec, OptimizerSpec)
        optimizer = spec.make([shard], TrainingConfig())
        descend([shard.local], optimizer, 1)  # type: ignore[list-item]
        kept = [value for value in optimizer.state[shard.local].values() if value.ndim]
        numbers = sum(value.numel() for value in kept)
        assert numbers == spec.kept_numbers(shard.shape, TrainingConfig())


@dataclass
class Holder:
    """What an average knows of an engine."""

    trained: dict[str, FlatShard]
    synced: int = 0

    def sync_parameters(self) -> None:
        """Count."""
        self.synced += 1


def test_the_average_follows_its_recurrence_and_lends_itself_for_a_while() -> None:
    weight = nn.Parameter(torch.zeros(3))
    holder = Holder({"weight": from_replicated(weight)})
    average = WeightAverage(holder, decay=0.75)  # type: ignore[arg-type]
    expected = 0.0
    for value in (1.0, 5.0, -2.0):
        weight.data.fill_(value)
        average.update()
        expected += 0.25 * (value - expected)
    with average.applied():
        assert weight.tolist() == pytest.approx([expected] * 3) and holder.synced == 1
    assert weight.tolist() == [-2.0] * 3 and average.shards[
        "weight"
    ].local.tolist() == pytest.approx([expected] * 3)
    assert holder.synced == 2
