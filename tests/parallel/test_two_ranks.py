"""Two real ranks on a model of two small layers do what one process does, in seconds.

Gradients are sums and not averages, norms and matrices are those of the whole weights, replicas
share the writing of a checkpoint, ranks share molecules. The real network is in test_parity.py,
which takes minutes.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from helm_scale.config import ExecutionConfig
from helm_scale.model.weights import load_weights
from helm_scale.optim.muon import StackedMuon
from helm_scale.parallel import collectives, divergence, pair_parallel, snapshot
from helm_scale.parallel.build import build_engine
from helm_scale.parallel.engine import Engine
from helm_scale.parallel.flat_shards import FlatShard, from_replicated
from helm_scale.parallel.processes import Processes
from helm_scale.parallel.sharded_matrices import shared_out
from helm_scale.parallel.step_sums import StepSums
from tests.parallel.test_engine import MicroBatchSums, SquaredDistance, batch_of

ENGINES = ("ddp", "fsdp2")
STEPS = 3
BATCHES = batch_of([1, 6], [8]), batch_of([17]), batch_of([1, 1, 7])
OF_RANK = (BATCHES[:2], (BATCHES[2], batch_of()))
CPU = torch.device("cpu")


class Layers(nn.Sequential):
    """Positions -> one number per atom; 5 rows are cut unevenly, one leaves a rank with none."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 1))

    def sharding_units(self) -> list[nn.Module]:
        """One layer, so that the others are left to the root."""
        return [self[0]]


def optimizers(trained: Mapping[str, FlatShard]) -> list[torch.optim.Optimizer]:
    """Muon, which needs whole matrices, and plain descent for vectors."""
    matrices = [shard for shard in trained.values() if len(shard.shape) == 2]
    vectors = [shard.local for shard in trained.values() if len(shard.shape) < 2]
    return [StackedMuon(matrices, torch.float32, lr=0.05), torch.optim.SGD(vectors, lr=0.05)]


def build(engine: str, processes: Processes) -> Engine:
    """The layers under an engine; the gradient is clipped."""
    return build_engine(
        ExecutionConfig(engine=engine),
        processes,
        model=Layers(),
        objective=SquaredDistance(),
        make_optimizers=optimizers,
        clip_norm=3.0,
        empty=batch_of(),
    )


def summary(engine: Engine, batches: Any) -> list[dict[str, Any]]:
    """What some steps report."""
    names = ("loss", "grad_norm", "molecules", "pairs", "metrics")
    results = [engine.step(batches, rate=0.5) for _ in range(STEPS)]
    return [{name: getattr(result, name) for name in names} for result in results]


def work(rank: int, folder: Path) -> None:
    """One rank: steps and a checkpoint under each engine, then the gradients of pair ranks."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(folder / "store"), 2), rank=rank, world_size=2
    )
    found: dict[str, Any] = {}
    for name in ENGINES:
        engine = build(name, Processes(rank=rank, world_size=2, device=CPU))
        found[name] = summary(engine, OF_RANK[rank])
        engine.capture(with_weights=True).write(folder / name / "state")
        whole = engine.full_state()
        if rank == 0:
            snapshot.write_tensors(folder / name / "model.safetensors", whole, {})
        found[f"{name} divergent"] = [engine.divergent_ranks()]
        with torch.no_grad():
            next(iter(engine.trained.values())).local[:1] += float(rank)
        found[f"{name} divergent"].append(engine.divergent_ranks())
    part = torch.tensor(2.0 + rank, requires_grad=True)
    shared = Processes(
        rank=rank, world_size=2, device=CPU, pair_world_size=2, pair_group=dist.group.WORLD
    )
    total = pair_parallel.sum_over_pair_ranks(shared)(part**2)
    ((1 + rank) * total).backward()
    assert part.grad is not None
    found["pair ranks"] = [total.item(), part.grad.item()]
    found["workers"] = who_works(rank)
    found["any"] = [collectives.on_any_rank(rank == number) for number in range(3)]
    found["numbers"] = collectives.gather_numbers([float(rank), 5.0])
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    os._exit(0)  # gloo's threads may abort an interpreter that ends in the ordinary way


def who_works(rank: int) -> list[list[float]]:
    """Of matrices that both ranks hold whole, what each gets where a rank writes its number."""
    shapes = [(2, 2), (3, 3), (2, 1), (1, 9)]
    held = [from_replicated(torch.zeros(shape), rank, 2) for shape in shapes]
    results = shared_out(held).apply(
        lambda matrices: [matrix + rank for matrix in matrices], [s.local for s in held]
    )
    return [result.tolist() for result in results]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks wrote."""
    made = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, args=(made,), nprocs=2)
    return made


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What the two ranks found, by rank."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone() -> tuple[Engine, list[dict[str, Any]]]:
    """One process after the same steps, and what they reported."""
    engine = build("single", Processes(device=CPU))
    return engine, summary(engine, BATCHES)


@pytest.mark.parametrize("name", ENGINES)
def test_two_ranks_take_the_steps_of_one_process(
    name: str, found: list[dict[str, Any]], folder: Path, alone: tuple
) -> None:
    engine, wanted = alone
    assert wanted[0]["grad_norm"] > 3.0, "it is clipped"
    assert (wanted[0]["molecules"], wanted[0]["pairs"]) == (4, 4)
    for of_rank in found:
        for mine, theirs in zip(of_rank[name], wanted, strict=True):
            assert mine.pop("metrics") == pytest.approx(theirs["metrics"], rel=1e-5)
            assert mine == pytest.approx({key: theirs[key] for key in mine}, rel=1e-5)
    weights = load_weights(folder / name / "model.safetensors")
    assert len(weights) == 6
    for key, whole in engine.full_state().items():
        torch.testing.assert_close(weights[key], whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ENGINES)
def test_what_two_ranks_wrote_one_process_loads(name: str, folder: Path, alone: tuple) -> None:
    loaded = build("single", Processes(device=CPU))
    loaded.load(folder / name, {})
    states = [engine.capture(with_weights=True).tensors for engine in (loaded, alone[0])]
    assert any("momentum" in key for key in states[0])
    assert states[0].keys() == states[1].keys()
    for key, tensor in states[0].items():
        if not key.startswith("random"):
            torch.testing.assert_close(tensor, states[1][key], rtol=1e-4, atol=1e-5)


def test_replicas_that_differ_are_found_and_shards_that_differ_are_none(
    found: list[dict[str, Any]],
) -> None:
    for of_rank in found:
        assert of_rank["ddp divergent"] == [[], [0, 1]], "two that differ have no majority"
        assert of_rank["fsdp2 divergent"] == [[], []]


def test_ranks_that_share_molecules_sum_parts_and_gradients(found: list[dict[str, Any]]) -> None:
    total = 2.0**2 + 3.0**2
    for rank, of_rank in enumerate(found):
        slope = 1 + 2  # of the sum of both ranks' losses
        assert of_rank["pair ranks"] == pytest.approx([total, slope * 2 * (2 + rank)])


def test_ranks_decide_together(found: list[dict[str, Any]]) -> None:
    for of_rank in found:
        assert of_rank["any"] == [True, True, False]
        assert of_rank["numbers"] == [[0.0, 5.0], [1.0, 5.0]]


def test_pair_ranks_are_neighbours() -> None:
    ranks = [Processes(rank=rank, world_size=6, device=CPU, pair_world_size=2) for rank in range(6)]
    assert [one.data_rank for one in ranks] == [0, 0, 1, 1, 2, 2]
    assert [one.pair_rank for one in ranks] == [0, 1, 0, 1, 0, 1]
    assert {one.data_size for one in ranks} == {3}


def test_molecules_of_several_ranks_count_once() -> None:
    sums, one = StepSums(CPU), torch.ones(())
    for _ in range(2):  # as two ranks would add them
        sums.add(MicroBatchSums(one, one, {}), replace(BATCHES[0], pair_world_size=2))
    total = sums.over_ranks()
    assert (total.molecules, total.pairs) == (2, 1)


def test_a_checksum_notices_exchanged_and_flipped_numbers() -> None:
    weights = torch.arange(6.0)
    before = divergence.checksum([weights])
    assert divergence.checksum([weights.clone()]) == before
    assert divergence.checksum([weights[[1, 0, 2, 3, 4, 5]]]) != before
    assert divergence.checksum([weights[:3], weights[3:]]) != before
    flipped = weights.clone()
    flipped.view(torch.int32)[5] ^= -(2**31)
    assert divergence.checksum([flipped]) != before


def test_ranks_that_hold_equal_matrices_divide_the_work_on_them(found: list) -> None:
    # 27, 9, 8 and 2 multiplications: the dearest for the first rank, the others for the second
    wanted = [[1.0] * 4, [0.0] * 9, [1.0] * 2, [1.0] * 9]
    assert [of_rank["workers"] for of_rank in found] == [wanted, wanted]
