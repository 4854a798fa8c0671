"""docs/backbone.md does what it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.blocks import check_command, commands_in
from tests.export import page
from tests.export.hub_server import serving


def test_every_block_is_run_somewhere() -> None:
    assert {info for info, _ in page.BLOCKS} == {
        "bash dry",
        "python",
        "python fairchem",
        "python metatomic",
        "python hub",
    }


def test_the_commands_are_understood() -> None:
    for body in page.blocks("bash dry"):
        for words in commands_in(body):
            check_command(words)


def test_the_blocks_run_and_the_readout_learns(
    energy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    scope = page.run("python", tmp_path, energy_model=energy_folder)
    assert float(scope["error"]) < 0.7 * float(scope["spread"])  # type: ignore[arg-type]


def test_sharing_works(pristine: Path, tmp_path: Path) -> None:
    pytest.importorskip(
        "huggingface_hub", reason="huggingface_hub is not installed; it is in the extra `hub`"
    )
    (tmp_path / "bundle").symlink_to(pristine)
    with serving(tmp_path / "hub") as address:
        environment = {
            **os.environ,
            "HF_ENDPOINT": address,
            "HF_TOKEN": "hf_of_nobody",
            "PYTHONPATH": str(page.ROOT),
        }
        (body,) = page.blocks("python hub")
        result = subprocess.run(
            [sys.executable, "-c", body],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "downloaded" / "model.pt2").is_file()
