"""What is frozen stays as it is to the last bit, through stops and starts."""

import shutil
from pathlib import Path

import pytest

from helm_scale.model.weights import load_weights
from helm_scale.pretraining import checkpoint
from tests.faults import runs
from tests.pretraining import launching

FROZEN = {
    **runs.SETTINGS,
    "training__freeze_prefixes": '["trunk.layers", "pairs.head"]',
    "execution__keep_checkpoints": 4,
}


def moved(run: Path, first: int, last: int) -> set[str]:
    """Names of the weights that differ between two checkpoints."""
    before, after = (
        load_weights(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
        for step in (first, last)
    )
    return {name for name, tensor in before.items() if not tensor.equal(after[name])}


@pytest.mark.slow
def test_a_frozen_part_stays_as_it_is_and_a_resumed_run_equals_the_unbroken_one(
    data: Path, tmp_path: Path
) -> None:
    run, resumed = tmp_path / "run", tmp_path / "resumed"
    launching.pretrain(data, run, **FROZEN)
    changed = moved(run, 3, 12)
    assert "trunk.element.weight" in changed and any(
        name.startswith("pairs.tower") for name in changed
    )
    assert not [name for name in changed if name.startswith(("trunk.layers", "pairs.head"))]
    shutil.copytree(run, resumed)
    for step in (9, 12):
        shutil.rmtree(resumed / "checkpoints" / f"step-{step:08d}")
    launching.pretrain(data, resumed, **FROZEN)
    launching.assert_same_to_the_last_bit(resumed, run)
    with pytest.raises(
        ValueError,
        match=r"settings or data: training\.freeze_prefixes:"
        r" run has \['trunk.layers', 'pairs.head'\], now \[\]",
    ):
        launching.pretrain(data, run, **{**FROZEN, "training__freeze_prefixes": "[]"})
    launching.pretrain(
        data,
        run,
        **{**FROZEN, "training__freeze_prefixes": "[]", "training__steps": 15},
        allow_config_change=True,
    )
    assert any(name.startswith("trunk.layers") for name in moved(run, 12, 15)), "thawed"
    assert checkpoint.step_of(checkpoint.committed(run)[-1]) == 15


def test_a_name_that_fits_nothing_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"freeze_prefixes: no parameter is named trunc\.\.\.; known: .*trunk\.layers",
    ):
        launching.pretrain(data, tmp_path / "run", training__freeze_prefixes='["trunc"]')
    with pytest.raises(ValueError, match=r"leaves nothing to train"):
        launching.pretrain(
            data, tmp_path / "run", training__freeze_prefixes='["trunk", "pairs", "onsite_head"]'
        )
