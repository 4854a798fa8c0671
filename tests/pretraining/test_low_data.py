"""The low-data protocol in one command; another run of it repeats nothing that is done."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helm_scale import commands
from helm_scale.config import LowDataConfig, load

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "train", "train", "train", "validation", "test")


def arguments(folder: Path) -> list[str]:
    """The committed config, made small, below a folder."""
    model = {"channels": 8, "hidden_channels": 8, "edge_channels": 8, "num_layers": 1}
    settings = {
        "config": ROOT / "configs" / "low_data.yaml",
        "labels.xyz": folder / "in.xyz", "labels.out": folder / "data", "labels.processes": 1,
        "pretrain.out": folder / "pretrain", "pretrain.data.path": folder / "data",
        "pretrain.training.steps": 2, "pretrain.execution.progress": "false",
        "pretrain.execution.threads": 1, **{f"pretrain.model.{k}": v for k, v in model.items()},
        "finetune.source": folder / "pretrain", "finetune.data": folder / "data",
        "finetune.out": folder / "finetune", "finetune.threads": 1, "finetune.steps": 1,
        "finetune.sizes": "[3, 4]", "finetune.seeds": "[0, 1]", "finetune.test_splits": "[test]",
    }  # fmt: skip
    return [word for key, value in settings.items() for word in (f"--{key}", str(value))]


@pytest.mark.slow
def test_one_command_labels_pretrains_and_finetunes(tmp_path: Path) -> None:
    frame = "2\nProperties=species:S:1:pos:R:3 key=h{0} split={1}\nH 0 0 0\nH 0 0 {2:.2f}\n"
    (tmp_path / "in.xyz").write_text(
        "".join(frame.format(n, split, 0.68 + 0.04 * n) for n, split in enumerate(SPLITS))
    )
    command = [sys.executable, "launch/low_data.py", *arguments(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    made = sorted((tmp_path / "data").glob("*.tar")) + sorted(
        (tmp_path / "pretrain" / "checkpoints").glob("*/model.safetensors")
    )
    times = [path.stat().st_mtime_ns for path in made]
    assert len(made) == 2
    report = json.loads((tmp_path / "finetune" / "report.json").read_text())
    assert [(row["mode"], row["size"]) for row in report["rows"][4:8]] == [
        ("reference only", 3), ("direct", 3), ("frozen", 3), ("finetuned", 3)
    ]  # fmt: skip
    assert (tmp_path / "finetune" / "table.md").read_text().strip() in result.stdout
    commands.low_data(load(LowDataConfig, arguments(tmp_path)))
    assert [path.stat().st_mtime_ns for path in made] == times


def test_parts_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    config = load(LowDataConfig, [*arguments(tmp_path), "--finetune.source", "runs/another"])
    with pytest.raises(
        ValueError,
        match=r"finetune\.source: got runs/another, wanted .*pretrain,"
        r" which the step before writes",
    ):
        commands.low_data(config)
