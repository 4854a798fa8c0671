"""SOAP is the paper's algorithm on each matrix, in stacks or alone."""

import pytest
import torch
from torch import Tensor, nn

from helm_scale.config import TrainingConfig
from helm_scale.optim import soap
from helm_scale.optim.soap import Soap
from helm_scale.parallel.flat_shards import from_replicated

BETA, RATE, DECAY, MAX_SIDE, EVERY = 0.95, 0.02, 0.1, 7, 3
# Square, nearly square and one-sided: gradients leave no null space in which a basis is free.
SHAPES = [(6, 6), (6, 6), (5, 6), (6, 20), (20, 6), (9, 8)]
STEPS = 10


def gradients(step: int, shapes: list[tuple[int, int]]) -> list[Tensor]:
    """Gradients [a, b] of one step, float64, of uneven scale in rows and columns."""
    generator = torch.Generator().manual_seed(step)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64)
        * torch.linspace(0.1, 3, shape[1], dtype=torch.float64)
        * torch.linspace(2, 0.3, shape[0], dtype=torch.float64)[:, None]
        for shape in shapes
    ]


def by_soap(starts: list[Tensor], shapes: list[tuple[int, int]]) -> list[Tensor]:
    """Weights after some steps of ours."""
    parameters = [nn.Parameter(start.clone()) for start in starts]
    shards = [from_replicated(parameter) for parameter in parameters]
    optimizer = Soap(shards, lr=RATE, weight_decay=DECAY, max_side=MAX_SIDE, renew_every=EVERY)
    for step in range(1, STEPS + 1):
        for shard, gradient in zip(shards, gradients(step, shapes), strict=True):
            shard.local.grad = gradient.reshape(-1).to(shard.local.dtype)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def by_the_paper(weight: Tensor, index: int, shapes: list[tuple[int, int]]) -> Tensor:
    """Algorithms 3 and 4 of arXiv:2409.11321 on one matrix, in plain steps."""
    a, b = weight.shape
    momentum = variance = torch.zeros(a, b, dtype=torch.float64)
    g = gradients(1, shapes)[index]  # makes the bases and no step
    left, right = (1 - BETA) * g @ g.T, (1 - BETA) * g.T @ g
    q_left = torch.linalg.eigh(left)[1].flip(1) if a <= MAX_SIDE else torch.eye(a).double()
    q_right = torch.linalg.eigh(right)[1].flip(1) if b <= MAX_SIDE else torch.eye(b).double()
    weight = weight * (1 - RATE * DECAY)
    for step in range(2, STEPS + 1):
        g = gradients(step, shapes)[index]
        momentum = BETA * momentum + (1 - BETA) * g
        rotated = q_left.T @ g @ q_right
        variance = BETA * variance + (1 - BETA) * rotated**2
        unbiased = 1 - BETA ** (step - 1)
        turned = q_left.T @ (momentum / unbiased) @ q_right
        update = q_left @ (turned / (variance / unbiased).sqrt()) @ q_right.T
        weight = weight * (1 - RATE * DECAY) - RATE * update
        left, right = BETA * left + (1 - BETA) * g @ g.T, BETA * right + (1 - BETA) * g.T @ g
        if step % EVERY == 0:
            if a <= MAX_SIDE:
                order = (q_left.T @ left @ q_left).diagonal().argsort(descending=True)
                q_left, variance = q_left[:, order], variance[order]
                q_left = torch.linalg.qr(left @ q_left)[0]
            if b <= MAX_SIDE:
                order = (q_right.T @ right @ q_right).diagonal().argsort(descending=True)
                q_right, variance = q_right[:, order], variance[:, order]
                q_right = torch.linalg.qr(right @ q_right)[0]
    return weight


@pytest.fixture
def starts() -> list[Tensor]:
    """Weights [a, b], float64."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-8), (torch.float32, 1e-2)])
def test_soap_is_the_algorithm_of_the_paper(
    dtype: torch.dtype, limit: float, starts: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype == torch.float64:  # what we add, for float32's sake, is left out
        monkeypatch.setattr(soap, "_SEPARATION", 0.0)
        monkeypatch.setattr(soap, "_EPS", 0.0)
    ours = by_soap([start.to(dtype) for start in starts], SHAPES)
    for index, (mine, start) in enumerate(zip(ours, starts, strict=True)):
        theirs = by_the_paper(start, index, SHAPES)
        assert mine.dtype == dtype
        assert float((mine - theirs).norm() / (theirs - start).norm()) < limit, SHAPES[index]


def test_rounding_errors_do_not_choose_a_basis_where_gradients_have_no_rank() -> None:
    shape, results = (4, 7), []
    for noise in (0.0, 1e-14):
        weight = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        shard = from_replicated(weight)
        optimizer = Soap([shard], lr=RATE, renew_every=EVERY)
        for step in range(1, STEPS + 1):
            # Of rank 2 at most, with a row that stays zero: most directions see rounding errors.
            (g,) = gradients(step, [shape])
            g = torch.outer(g[0].tanh().sum() * g[:, 0], g[1])
            g[3] = 0
            shard.local.grad = (g + noise * torch.randn_like(g)).reshape(-1)
            optimizer.step()
        results.append(weight.detach().clone())
    assert float((results[0] - results[1]).norm() / results[0].norm()) < 1e-5


def test_no_gradient_moves_nothing() -> None:
    weight = nn.Parameter(torch.ones(3, 4))
    shard = from_replicated(weight)
    optimizer = Soap([shard], lr=RATE, renew_every=2)
    for _ in range(4):
        shard.local.grad = torch.zeros(12)
        optimizer.step()
    assert torch.equal(weight.detach(), torch.ones(3, 4))


def test_a_long_side_keeps_no_covariance() -> None:
    shard = from_replicated(nn.Parameter(torch.zeros(8, 3)))
    config = TrainingConfig(soap_max_side=7)
    optimizer = soap.make([shard], config)
    kept = {name for name, value in optimizer.state[shard.local].items() if value.ndim == 2}
    assert kept == {"momentum", "variance", "right_covariance", "right_basis"}
    assert soap.kept_numbers((8, 3), config) == 2 * 24 + 2 * 9
