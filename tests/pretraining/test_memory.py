"""The memory plan is what a step takes, meets its limit, and refuses by key what cannot fit."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helm_scale import commands, config
from helm_scale.config import ModelConfig, PretrainConfig
from helm_scale.data.format.shards import ShardWriter
from helm_scale.data.format.xyz import read_xyz
from helm_scale.data.loading.dataset import Dataset
from helm_scale.pretraining.memory import plan
from helm_scale.pretraining.memory.chunks import ChunkSettings, candidates, next_to_try
from helm_scale.pretraining.memory.footprint import (
    AllocationTracker,
    BatchSize,
    StepEstimator,
    label_bytes,
)
from helm_scale.pretraining.memory.plan import MemoryPlanner, max_pairs
from helm_scale.pretraining.memory.states import state_bytes
from tests import tolerances
from tests.pretraining import launching

SMALL = {
    "basis": "def2-svp", "parity": "full", "lmax": 4, "mmax": 4, "channels": 32,
    "hidden_channels": 32, "edge_channels": 32, "num_layers": 1, "pair_layers": 1,
    "radial_functions": 8, "trunk_cutoff": 12.0,
}  # fmt: skip
MIXED = {"H": 5, "C": 4}
CHUNKS = [
    ChunkSettings(0, "none", 1),
    ChunkSettings(32, "none", 32),
    ChunkSettings(64, "messages", 64),
    ChunkSettings(32, "full", 32),
]


@pytest.fixture(scope="module")
def estimator() -> StepEstimator:
    return StepEstimator(ModelConfig(**SMALL), MIXED)


@pytest.fixture
def shared(estimator: StepEstimator, monkeypatch: pytest.MonkeyPatch) -> None:
    """All planners share one estimator, which remembers its estimates, and look at two steps."""
    monkeypatch.setattr(plan, "StepEstimator", lambda *arguments, low: estimator)
    monkeypatch.setattr(plan, "PLANNED_STEPS", 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Molecules of 2 to 24 atoms; the key says how many."""
    folder = tmp_path_factory.mktemp("sizes") / "data"
    writer = ShardWriter(
        folder, launching.METHOD, licence="CC0-1.0", source="made up", molecules_per_shard=8
    )
    for number, atoms in enumerate((2, 3, 24, 18, 3)):
        numbers = np.random.default_rng(number).choice([1, 6], size=atoms).tolist()
        writer.write(
            launching.molecule(f"of-{atoms}-{number}", numbers, number),
            "validation" if number == 4 else "train",
        )
    writer.close()
    return folder


def settings(data: Path, **changes: Any) -> PretrainConfig:
    sizes = {f"model__{name}": value for name, value in SMALL.items()}
    batches = {
        "training__batch_molecules": 2,
        "training__micro_batches": 2,
        "execution__engine": "single",
        "training__optimizer": "adamw",
    }  # Muon takes more than small chunks
    return config.load(
        PretrainConfig, launching.flags(data, data / "run", **{**sizes, **batches, **changes})
    )


def planner(data: Path, **changes: Any) -> MemoryPlanner:
    chosen = settings(data, **changes)
    dataset = Dataset.open(chosen.data)
    return MemoryPlanner(
        chosen,
        dataset,
        sampler=dataset.sampler(
            batch_molecules=2, micro_batches=chosen.training.micro_batches, seed=0
        ),
        world_size=1,
    )


def gib(count: float) -> float:
    return count / 2**30


def in_process(script: str, arguments: Sequence[str]) -> tuple[int, str, str]:
    """Run a script whose freed memory goes back to the system, so that fragments do not count.

    Blocks of a page or more come from mmap.
    """
    environment = {**os.environ, "PYTHONPATH": str(launching.ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"MALLOC_MMAP_THRESHOLD_": "4096", "MALLOC_TRIM_THRESHOLD_": "4096"}
    command = [sys.executable, str(Path(__file__).parent / script), *arguments]
    done = subprocess.run(
        command, cwd=launching.ROOT, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_the_ledger_counts_what_is_alive() -> None:
    before = torch.zeros(1000, device="meta")
    with AllocationTracker([before]) as tracker:
        first = before + 1
        view = first.view(10, 100)
        assert tracker.current == 4000
        second = view.double()
        del first
        assert tracker.current == 12000
        del view
        assert (tracker.current, tracker.peak) == (8000, 12000)
        second.mul_(2)
    assert tracker.peak == 12000


@pytest.mark.slow
def test_the_plan_is_what_a_step_takes() -> None:
    cases = [(atoms, list(memory)) for memory in CHUNKS for atoms in (16, 32)]
    code, out, err = in_process("peak.py", [json.dumps(SMALL), json.dumps(cases)])
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    for (atoms, memory), (planned, measured) in zip(cases, found, strict=True):
        assert planned == pytest.approx(measured, rel=tolerances.MEMORY), (atoms, memory, found)
    plain, fused, recomputed, full = (row[0] for row in found[1::2])
    assert plain > fused > recomputed > full


@pytest.mark.slow
@pytest.mark.parametrize("memory", CHUNKS[1:], ids=str)
def test_many_chunks_are_planned_from_few(estimator: StepEstimator, memory: ChunkSettings) -> None:
    size = BatchSize(24, 276, 276)
    whole = estimator.activation_bytes_of(estimator.batch(size), memory)
    assert estimator.activation_bytes(size, memory, first=True) == pytest.approx(whole, rel=0.01)


def test_the_representative_micro_batch_has_the_size_and_labels_of_a_true_one(
    data: Path, estimator: StepEstimator
) -> None:
    batch = estimator.batch(BatchSize(9, 20, 36))
    assert [s.count for s in batch.atom_segments] == [5, 4]
    assert sum(s.count for s in batch.pair_segments) == 36 and batch.edge_index.shape == (
        2,
        20,
    )
    assert {(s.first, s.second): s.count for s in batch.pair_segments} == {
        (1, 1): 11,
        (1, 6): 18,
        (6, 6): 7,
    }
    assert label_bytes(batch) > 8 * 36 * 25 / 2


def test_the_bound_on_pairs_is_what_polyethylene_has() -> None:
    """CH2 weighs 14.027 g/mol, and polyethylene 0.93 g/cm^3; atoms of that density on a lattice."""
    atoms_per_cubic_angstrom = 3 * 0.93 / 14.027 * 0.602214
    spacing, cutoff, atoms = atoms_per_cubic_angstrom ** (-1 / 3), 12.0, 10**6
    axis = spacing * np.arange(-8, 9)
    distances = np.linalg.norm(np.stack(np.meshgrid(axis, axis, axis)), axis=0)
    neighbours = int((distances < cutoff).sum()) - 1
    bound = int(max_pairs(np.array([atoms]), cutoff)[0])
    assert bound == pytest.approx(atoms * neighbours / 2, rel=0.03)


@pytest.mark.parametrize("cutoff", [2.5, 3.0, 4.0])
def test_no_committed_molecule_has_more_pairs_than_the_bound(cutoff: float) -> None:
    molecules, _ = read_xyz(launching.ROOT / "data_shards/small_molecules/molecules.xyz")
    for molecule in molecules[::5]:
        distances = np.linalg.norm(molecule.positions[:, None] - molecule.positions, axis=-1)
        pairs = int((distances[np.triu_indices(len(distances), 1)] < cutoff).sum())
        assert pairs <= max_pairs(np.array([len(distances)]), cutoff)[0], molecule.key


@pytest.mark.slow
def test_a_limit_takes_the_first_chunks_that_fit(data: Path, shared: None) -> None:
    free = planner(data, execution__pair_chunk=256, execution__message_chunk=256).choose()
    assert free.chunks == ChunkSettings(256, "none", 256)
    totals = [free.peak]
    for share in (1.0, 0.9, 0.4):
        limit = gib(share * free.peak)
        found = planner(
            data,
            execution__pair_chunk=256,
            execution__message_chunk=256,
            execution__memory_limit_gib=limit,
        ).choose()
        assert found.peak <= limit * 2**30
        totals.append(found.peak)
        if share == 1.0:
            assert found.chunks == free.chunks
        if share == 0.9:
            assert found.chunks.recompute == "none" and found.chunks.pair_chunk < 256
    assert found.chunks.recompute != "none" and totals == sorted(totals, reverse=True)


def test_training_takes_the_chunks_that_were_chosen(
    data: Path, shared: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "helm_scale")
    limit = gib(0.4 * planner(data).choose().peak)
    commands.pretrain(
        settings(data, out=tmp_path, training__steps=1, execution__memory_limit_gib=limit)
    )
    (plan,) = [r.getMessage() for r in caplog.records if "memory of a rank" in r.getMessage()]
    assert "recompute none" not in plan
    asked = config.load(PretrainConfig, ["--config", str(tmp_path / "config.yaml")]).execution
    assert asked.recompute == "none" and asked.memory_limit_gib == pytest.approx(limit)
    assert len(launching.lines(tmp_path)) == 1


def test_a_molecule_that_cannot_fit_is_refused_by_key_before_training(
    data: Path, shared: None
) -> None:
    alone = planner(
        data, execution__recompute="full", execution__pair_chunk=32, execution__message_chunk=32
    )
    sizes = [
        gib(alone.plan(alone.bound(np.array([atoms])), ChunkSettings(32, "full", 32)).peak)
        for atoms in (3, 18, 24)
    ]
    limits = [
        (sum(sizes[1:]) / 2, ["of-24-2"], ["of-18-3"]),
        (sum(sizes[:2]) / 2, ["of-24-2", "of-18-3"], ["of-3-1"]),
    ]
    for limit, named, absent in limits:
        with pytest.raises(
            ValueError,
            match=r"do not fit even with pair_chunk 32, recompute full, message_chunk 32",
        ) as refused:
            commands.pretrain(settings(data, execution__memory_limit_gib=limit))
        said = str(refused.value)
        assert all(
            f"'{key}' ({key[3:5]} atoms, {'276' if '24' in key else '153'} pairs)" in said
            for key in named
        )
        assert not any(key in said for key in absent) and "\n" not in said and "pair_ranks" in said
    assert not (data / "run").exists()


@pytest.mark.slow
def test_a_micro_batch_of_molecules_that_fit_alone_asks_for_more_bins(
    data: Path, shared: None
) -> None:
    alone = planner(data, training__micro_batches=1)
    need = alone.plan(alone.bound(np.array([24])), ChunkSettings(32, "full", 32)).peak
    with pytest.raises(
        ValueError,
        match=r"training.micro_batches: a micro-batch of \d+ atoms wants .*"
        r" raise training.micro_batches \(1\)",
    ):
        planner(data, training__micro_batches=1, execution__memory_limit_gib=gib(need + 1)).choose()


def test_engines_cut_what_they_say(estimator: StepEstimator) -> None:
    def of(ranks: int, **changes: Any) -> tuple[dict[str, int], int]:
        execution = config.ExecutionConfig(**{"engine": "fsdp2", **changes})
        return state_bytes(
            estimator.model,
            PretrainConfig(execution=execution, training=config.TrainingConfig(ema_decay=0.9)),
            ranks,
        )

    whole = sum(4 * parameter.numel() for parameter in estimator.model.parameters())
    hidden = sum(4 * parameter.numel() for parameter in estimator.model.hidden_matrices())
    single, sharded = of(1, engine="single")[0], of(8)[0]
    assert single == of(8, engine="ddp")[0]
    assert single == {
        "weights": whole,
        "gradients": whole,
        "optimiser": 2 * whole - hidden,
        "average of the weights": whole,
    }
    assert all(sharded[name] == -(-single[name] // 8) for name in single)
    assert of(8, replicas=2)[0]["weights"] == of(4)[0]["weights"]
    first, second, third = (of(8, engine=f"zero{stage}")[0] for stage in (1, 2, 3))
    assert sum(single.values()) > sum(first.values()) and first["optimiser"] == sharded["optimiser"]
    assert (
        first["gradients"] == whole > second["gradients"]
        and second["weights"] == whole > third["weights"] == sharded["weights"]
    )
    kept, host = of(8, cpu_offload=True)
    assert "optimiser" not in kept and host == sum(sharded.values()) - sharded["gathered units"]


def test_the_next_value_to_try_saves_memory_and_ends() -> None:
    tried, execution = [], config.ExecutionConfig(pair_chunk=0)
    while (flags := next_to_try(execution).split())[0] != "--execution.pair_ranks":
        changes = dict(
            zip(
                [flag.removeprefix("--execution.") for flag in flags[::2]], flags[1::2], strict=True
            )
        )
        execution = config.ExecutionConfig(**{**execution.model_dump(), **changes})
        tried.append((execution.pair_chunk, execution.recompute))
    assert tried[:2] == [(512, "none"), (512, "messages")] and tried[-1] == (32, "full")
    assert all(memory.pair_chunk <= 512 for memory in candidates(config.ExecutionConfig(), "none"))


def test_out_of_memory_names_the_sample_and_the_next_value(data: Path, tmp_path: Path) -> None:
    changes = {f"model__{name}": value for name, value in SMALL.items()} | {
        "training__batch_molecules": 3,
        "training__micro_batches": 3,
    }
    code, _, err = in_process(
        "short_of_memory.py", launching.flags(data, tmp_path / "run", **changes)
    )
    said = err.strip().splitlines()[-1]
    assert code == 1 and ": rank 0 has no memory left at 'of-" in said, err
    assert "'of-24-2': 24 atoms, " in said or "'of-18-3': 18 atoms, " in said
    assert (
        "pair_chunk 512, recompute none, message_chunk 512. Try --execution.recompute messages"
        in said
    )
    assert "can't allocate memory" in said or "std::bad_alloc" in said


def test_dry_run_and_info_print_the_plan_of_every_rank(data: Path, shared: None) -> None:
    limited = settings(data, dry_run=True, execution__memory_limit_gib=4)
    said = commands.pretrain(limited)
    for wanted in (
        "weights",
        "gradients",
        "optimiser",
        "activations",
        "labels of",
        "block sparsity (4 molecules read)",
        "peak",
    ):
        assert wanted in said
    chunks = "pair_chunk 512, recompute none, message_chunk 512"
    assert f"chunks for execution.memory_limit_gib = 4: {chunks}" in said
    folder = [
        "--data.path",
        str(data),
        *[f"--model.{name}={value}" for name, value in SMALL.items()],
    ]
    ranks = [
        "--ranks",
        "8",
        "--execution.engine",
        "fsdp2",
        "--training.micro_batches",
        "8",
        "--training.batch_molecules",
        "8",
    ]
    info = commands.shards_info(
        config.load(config.InfoConfig, [*folder, *ranks, "--cutoffs", "[2, 100]"])
    )
    assert (
        "engine fsdp2 on 8 ranks" in info
        and "an epoch: 1 steps, 4 samples, " in info
        and "each of 8 ranks: 1 steps, 0 samples" in info
    )
    assert "| 100 | 0.00 | 0.00 | 0.0000 | 0.00e+00 |" in info
    three = commands.shards_info(config.load(config.InfoConfig, [*folder, *ranks, "--ranks", "3"]))
    assert "engine fsdp2 on 3 ranks" in three


def test_operations_are_those_of_a_true_step(estimator: StepEstimator) -> None:
    once, twice = (
        estimator.flops(BatchSize(10, 40, 45), "none"),
        estimator.flops(BatchSize(20, 80, 90), "none"),
    )
    assert twice / once == pytest.approx(2, rel=0.02)
    assert 1.0 < estimator.flops(BatchSize(10, 40, 45), "messages") / once < 1.34
