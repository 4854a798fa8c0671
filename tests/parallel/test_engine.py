"""The engine's arithmetic on a linear model: sums over micro-batches, one factor, no NaN steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from helm_scale.config import ExecutionConfig, ModelConfig, PretrainConfig, load
from helm_scale.data.graphs.collate import collate
from helm_scale.parallel.build import build_engine
from helm_scale.parallel.engine import BatchMemoryError, Engine
from helm_scale.parallel.processes import Processes
from helm_scale.types import GraphBatch
from tests.pretraining.launching import molecule

SMALL = ModelConfig(basis="def2-svp", parity="full")


@dataclass(frozen=True)
class MicroBatchSums:
    """Sums of one micro-batch."""

    total: Tensor
    count: Tensor
    metrics: dict[str, tuple[Tensor, Tensor]]


class SquaredDistance:
    """Sum over atoms of (w . position - Z)^2, count of atoms, loss sqrt(S/N) + S/N."""

    def __call__(self, model: nn.Module, batch: GraphBatch) -> MicroBatchSums:
        """Run the model."""
        error = model(batch.positions.float()).squeeze(-1) - batch.atomic_numbers
        count = torch.tensor(float(len(error)), dtype=torch.float64)
        return MicroBatchSums(
            error.square().sum(), count, {"mae": (error.detach().abs().sum(), count)}
        )

    @staticmethod
    def loss(total: Tensor, count: Tensor) -> Tensor:
        """As HELM's."""
        return torch.sqrt(total / count) + total / count


def batch_of(*molecules: Sequence[int]) -> GraphBatch:
    """Molecules of these elements."""
    return collate([molecule(f"m{i}", numbers, i) for i, numbers in enumerate(molecules)], SMALL)


def line() -> nn.Linear:
    """The model."""
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def start(model: nn.Module, clip_norm: float = 0.0) -> Engine:
    """A single process with plain gradient descent at rate 0.1."""
    return build_engine(
        ExecutionConfig(engine="single"),
        Processes(device=torch.device("cpu")),
        model=model,
        objective=SquaredDistance(),
        make_optimizers=lambda trained: [
            torch.optim.SGD([shard.local for shard in trained.values()], lr=0.1)
        ],
        clip_norm=clip_norm,
        empty=batch_of(),
    )


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_a_step_descends_the_loss_of_the_whole_batch(clip_norm: float) -> None:
    parts, model, twin = [batch_of([1, 6], [8]), batch_of(), batch_of([17])], line(), line()
    result = start(model, clip_norm).step(parts, rate=0.5)
    errors = torch.cat(
        [twin(part.positions.float()).squeeze(-1) - part.atomic_numbers for part in parts]
    )
    loss = SquaredDistance.loss(errors.square().sum(), torch.tensor(4.0))
    gradients = torch.autograd.grad(loss, list(twin.parameters()))
    norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
    shrink = min(1.0, clip_norm / norm) if clip_norm else 1.0
    assert (result.loss, result.grad_norm) == pytest.approx((loss.item(), norm), rel=1e-6)
    assert result.metrics["mae"] == pytest.approx(errors.abs().mean().item(), rel=1e-6)
    assert (result.molecules, result.pairs) == (3, 1)
    for parameter, before, gradient in zip(
        model.parameters(), twin.parameters(), gradients, strict=True
    ):
        torch.testing.assert_close(
            parameter, before - 0.5 * 0.1 * shrink * gradient, rtol=1e-5, atol=1e-6
        )


def test_no_step_is_taken_on_a_sum_that_is_not_finite_and_its_molecules_are_named() -> None:
    model, twin = line(), line()
    engine, bad = start(model), batch_of([1, 6], [8])
    bad.positions[0, 0] = torch.nan
    result = engine.step([batch_of([17]), bad], rate=1.0)
    assert not result.stepped and result.suspects == ("m0", "m1")
    for parameter, before in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter, before)
    assert engine.step([batch_of([17])], rate=1.0).stepped, "nothing of the bad gradient is left"


@pytest.mark.parametrize(
    ("said", "is_memory"),
    [
        ("[enforce fail at alloc_cpu.cpp:127] err == 0. can't allocate memory", True),
        ("[enforce fail a", True),  # the message found no memory either
        ("[enforce fail at shape.cpp:1] rows == columns", False),
    ],
)
def test_an_allocator_is_known_by_its_words(said: str, is_memory: bool) -> None:
    class Failing(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            raise RuntimeError(said)

    wanted = BatchMemoryError if is_memory else RuntimeError
    with pytest.raises(wanted) as caught:
        start(Failing(3, 1)).step([batch_of([1, 6])], rate=1.0)
    assert isinstance(caught.value, BatchMemoryError) == is_memory
    assert ("can't allocate memory" in str(caught.value)) == is_memory


def test_the_deepspeed_config_differs_in_execution_only() -> None:
    plain, deepspeed = (
        load(PretrainConfig, ["--config", f"configs/omol_csh_58k{name}.yaml"]).model_dump()
        for name in ("", "_deepspeed")
    )
    differing = {key for key in plain if plain[key] != deepspeed[key]}
    assert differing == {"execution"} and deepspeed["execution"]["engine"].startswith("zero")


def test_evaluation_is_the_loss_and_leaves_the_weights_alone() -> None:
    model, twin = line(), line()
    engine, part = start(model), batch_of([1, 6], [8])
    means = engine.evaluate([part, batch_of()])
    assert means["loss"] == pytest.approx(engine.step([part], rate=1.0).loss, rel=1e-6)
    assert means["mae"] == pytest.approx(
        (twin(part.positions.float()).squeeze(-1) - part.atomic_numbers).abs().mean().item(),
        rel=1e-6,
    )
