"""What `auto` stands for: on any number of ranks, evenly loaded, within the memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helm_scale import config
from helm_scale.config import PretrainConfig
from helm_scale.data.format.manifest import ShardRecord, write_columns
from helm_scale.data.loading.dataset import Dataset
from helm_scale.pretraining import choices, preflight
from helm_scale.types import Method
from tests.pretraining import launching

OMOL = Method(
    xc="wb97m-v",
    basis="def2-tzvpd",
    ecp="def2",
    grid_level=3,
    auxbasis=None,
    conv_tol=1e-9,
    baseline="none",
    program="sizes alone",
)

SEPARATE = {"execution__engine": "ddp", "execution__pair_ranks": 1}


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 4,000 molecules as large as those of OMol: 10 to 150 atoms, most near 50."""
    folder = tmp_path_factory.mktemp("sizes") / "data"
    folder.mkdir()
    (folder / "shard-000000.tar").touch()  # nothing is read
    count, rng = 4000, np.random.default_rng(0)
    atoms = np.clip(np.rint(np.exp(rng.normal(np.log(50), 0.5, size=count))), 10, 150).astype(int)
    rows = {
        "key": np.array([f"mol-{number:04d}" for number in range(count)], dtype="S8"),
        "split": (np.arange(count) % 10 == 9).astype(np.uint8),
        "cost": atoms * (atoms + 1) / 2.0,
        "atoms": atoms,
        "pairs": atoms * (atoms - 1) // 2,
    }
    rows |= {name: np.zeros(count, dtype=np.int64) for name in ("shard", "offset", "crc32")}
    rows["size"] = np.full(count, 512)
    write_columns(
        folder,
        {
            "method": OMOL,
            "licence": "CC0-1.0",
            "source": "made up",
            "labels": ("hamiltonian",),
            "elements": {"C": 100, "H": 100, "O": 20},
        },
        shards=[ShardRecord("shard-000000.tar", 1024, "0" * 64)],
        splits=("train", "validation"),
        rows=rows,
        rejected=(),
    )
    return folder


def chosen(sizes: Path, world_size: int, **changes: Any) -> tuple[PretrainConfig, Dataset]:
    """The config of OMol_CSH_58k with everything chosen, on nodes of eight ranks."""
    flags = [f"--{key.replace('__', '.')}={value}" for key, value in changes.items()]
    asked = config.load(
        PretrainConfig, ["--config", "omol_csh_58k", f"--data.path={sizes}", *flags]
    )
    dataset = Dataset.open(asked.data)
    return (
        choices.choose(asked, dataset, world_size=world_size, ranks_per_node=min(8, world_size)),
        dataset,
    )


@pytest.mark.parametrize("world_size", [1, 8, 56, 64])
def test_the_published_config_is_even_on_any_number_of_nodes(sizes: Path, world_size: int) -> None:
    settled, dataset = chosen(sizes, world_size, execution__engine="ddp")
    sharing = settled.execution.sharing
    assert 8 % sharing == 0 and world_size % sharing == 0
    sampler = choices.sampler_for(settled, dataset, world_size=world_size)
    assert choices.balance(sampler, dataset.cost, world_size // sharing) > 0.95
    if world_size == 64:
        assert sharing == 8, "eight molecules of 10 to 150 atoms for each node"
        whole, _ = chosen(sizes, 64, **SEPARATE)
        alone = choices.sampler_for(whole, dataset, world_size=64)
        assert choices.balance(alone, dataset.cost, 64) < 0.4


def test_samples_of_a_step_do_not_depend_on_the_ranks_and_some_ranks_may_have_none(
    sizes: Path,
) -> None:
    steps = []
    for world_size in (1, 3, 80):
        settled, dataset = chosen(sizes, world_size, **SEPARATE)
        sampler = choices.sampler_for(settled, dataset, world_size=world_size)
        shares = [sampler.micro_batches_of_rank(7, rank, world_size) for rank in range(world_size)]
        assert {len(share) for share in shares} == {1}
        steps.append(sorted(sample for share in shares for part in share for sample in part))
    assert steps[0] == steps[1] == steps[2] and len(steps[0]) == 64


def test_a_number_that_ranks_do_not_divide_is_rounded_up(sizes: Path) -> None:
    settled, dataset = chosen(sizes, 3, **SEPARATE, training__micro_batches=4)
    assert choices.sampler_for(settled, dataset, world_size=3).micro_batches == 6


@pytest.mark.slow
def test_the_engine_is_the_simplest_that_fits(sizes: Path) -> None:
    small = {"model__channels": 8, "model__hidden_channels": 8, "execution__device": "cpu"}
    engine = {
        name: chosen(sizes, world_size, **small, execution__pair_ranks=1, **changes)[
            0
        ].execution.engine
        for name, world_size, changes in (
            ("one process", 1, {}),
            ("several", 4, {}),
            ("bfloat16", 4, {"training__working_precision": "bfloat16"}),
            ("no memory", 4, {"execution__memory_limit_gib": 0.001}),
        )
    }
    assert engine == {
        "one process": "single",
        "several": "ddp",
        "bfloat16": "fsdp2",
        "no memory": "fsdp2",
    }


def test_a_plan_says_how_even_the_ranks_are_and_warns(sizes: Path) -> None:
    settled, dataset = chosen(sizes, 64, **SEPARATE)
    sampler = choices.sampler_for(settled, dataset, world_size=64)
    text = preflight.balance_text(settled, dataset, sampler, 64)
    assert "Warning: ranks wait for" in text and "set execution.pair_ranks to auto" in text
    settled, _ = chosen(sizes, 64, execution__engine="ddp")
    sampler = choices.sampler_for(settled, dataset, world_size=64)
    assert "Warning" not in preflight.balance_text(settled, dataset, sampler, 64)


@pytest.mark.slow
def test_torchrun_with_nothing_else_takes_another_number_of_ranks_at_every_start(
    tmp_path: Path,
) -> None:
    data = launching.write_dataset(tmp_path / "data")
    plain = {"training__micro_batches": "auto", "execution__checkpoint_every": 5}
    one = launching.trained(data, tmp_path / "one", **plain)
    run, stopped = tmp_path / "run", {**plain, "training__steps": 5}
    launching.trained(data, run, 3, **stopped)
    lines = launching.trained(data, run, 2, **plain, allow_config_change=True)
    assert [line["keys"] for line in lines] == [line["keys"] for line in one]
    assert [line["loss"] for line in lines[:5]] == pytest.approx(
        [line["loss"] for line in one[:5]], rel=1e-2
    )
    settings = (run / "config.yaml").read_text()
    assert "engine: auto" in settings and "micro_batches: auto" in settings
    assert "allow_config_change: false" in settings
