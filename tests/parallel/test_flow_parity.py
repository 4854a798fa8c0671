"""A conditioned flow with losses that know S is the same under every engine.

Its noise depends on keys of molecules and numbers of steps alone.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helm_scale import commands, config
from helm_scale.data.format.shards import ShardWriter
from helm_scale.dft.energies import overlap
from tests import tolerances
from tests.pretraining import launching

pytestmark = pytest.mark.slow

SETTINGS = {
    "training__optimizer": "adamw",
    "training__learning_rate": 1e-2,
    "training__steps": 4,
    "training__batch_molecules": 4,
    "training__loewdin_weight": 0.5,
    "training__orbital_weight": 2.0,
    "model__prior": "irreps",
    "model__conditions": "[overlap]",
    "model__tensor_product_stage": True,
    "model__flow_steps": 2,
    "execution__validate_every": 2,
    "execution__pair_chunk": 5,
}
RUNS = {
    "plain": {"execution__engine": "single", "execution__pair_chunk": 0},
    "ddp": {"execution__engine": "ddp"},
    "fsdp2": {"execution__engine": "fsdp2"},
    "zero3": {"execution__engine": "zero3"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all runs."""
    folder = tmp_path_factory.mktemp("runs")
    writer = ShardWriter(
        folder / "data",
        launching.METHOD,
        licence="CC0-1.0",
        source="made up",
        molecules_per_shard=9,
    )
    for number, numbers in enumerate(
        ([8, 1, 1], [6, 1, 1, 1, 1], [7, 1, 1, 1], [9, 1], [10], [8, 6, 8], [6, 7, 1])
    ):
        molecule = launching.molecule(f"mol-{number}", numbers, number)
        writer.write(
            replace(molecule, overlap=overlap(molecule, "def2-svp")),
            "train" if number < 5 else "validation",
        )
    writer.close()
    lists = {
        name: launching.flags(folder / "data", folder / name, **{**SETTINGS, **changes})
        for name, changes in RUNS.items()
    }
    commands.pretrain(config.load(config.PretrainConfig, lists.pop("plain")))
    (folder / "flags.json").write_text(json.dumps(list(lists.values())))
    command = [*launching.python(2), "tests/parallel/many_runs.py", str(folder / "flags.json")]
    code, out, err = launching.finish(launching.start(command), 300)
    assert code == 0, f"{out}\n{err}"
    return folder


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero3"])
def test_a_flow_gives_the_same_losses_under_every_engine(name: str, runs: Path) -> None:
    ours, theirs = launching.lines(runs / name), launching.lines(runs / "plain")
    for mine, other in zip(ours, theirs, strict=True):
        names = [key for key in other if "loss" in key or "ueh" in key or key == "grad_norm"]
        assert [mine[key] for key in names] == pytest.approx(
            [other[key] for key in names], rel=tolerances.ENGINE_PARITY
        )
    assert sum("validation_orbital_energy_mae_ueh" in line for line in ours) == 2


def test_losses_of_whole_molecules_refuse_shared_ones_and_data_without_overlap(
    tmp_path: Path,
) -> None:
    for setting in ("training__orbital_weight", "model__flow_steps"):
        flags = launching.flags(tmp_path, tmp_path / "run", execution__pair_ranks=2, **{setting: 2})
        with pytest.raises(
            SystemExit, match=f"{setting.replace('__', '.')}: needs whole molecules"
        ):
            config.load(config.PretrainConfig, flags)
    flags = launching.flags(
        launching.write_dataset(tmp_path / "bare"), tmp_path / "run", training__loewdin_weight=1.0
    )
    with pytest.raises(ValueError, match=r"has no overlap.*--overlap true"):
        commands.pretrain(config.load(config.PretrainConfig, flags))
