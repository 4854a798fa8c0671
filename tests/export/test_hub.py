"""Bundles travel through huggingface_hub, here to and from a local folder behind a small server."""

import shutil
from pathlib import Path

import pytest
import torch

from helm_scale import Backbone
from helm_scale.export import bundle
from tests.export.conftest import graph
from tests.export.hub_server import serving
from tests.export.test_bundle import make_hostile

pytest.importorskip(
    "huggingface_hub", reason="huggingface_hub is not installed; it is in the extra `hub`"
)

from helm_scale.export import hub


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")


def test_a_bundle_that_was_pushed_and_pulled_is_the_same(pristine: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(pristine, tmp_path / "mine"))
    (mine / "notes.txt").write_text("not of the bundle")
    with serving(tmp_path / "hub") as address:
        assert address in hub.push(mine, "lab/backbone", endpoint=address)
        assert {path.name for path in (tmp_path / "hub/lab/backbone").iterdir()} == {
            *bundle.FILES,
            bundle.SUMS,
        }
        folder = hub.pull("lab/backbone", tmp_path / "theirs", endpoint=address)
    wanted = Backbone.from_pretrained(pristine)(*graph([5, 3]))
    assert torch.equal(Backbone.from_pretrained(folder)(*graph([5, 3])), wanted)


def test_a_changed_file_is_neither_pushed_nor_accepted(pristine: Path, tmp_path: Path) -> None:
    damaged = Path(
        shutil.copytree(
            pristine, tmp_path / "hub/lab/backbone", ignore=shutil.ignore_patterns("__pycache__")
        )
    )
    (damaged / "config.json").write_text("changed")
    with serving(tmp_path / "hub") as address:
        with pytest.raises(ValueError, match=r"config\.json: SHA-256 got"):
            hub.push(damaged, "lab/other", endpoint=address)
        with pytest.raises(ValueError, match=r"config\.json: SHA-256 got"):
            hub.pull("lab/backbone", tmp_path / "theirs", endpoint=address)
    assert not (tmp_path / "hub/lab/other").exists()


def test_pull_says_what_came_and_runs_nothing_of_it(
    pristine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored, mark = tmp_path / "hub/lab/backbone", tmp_path / "mark"
    shutil.copytree(pristine, stored, ignore=shutil.ignore_patterns("__pycache__"))
    make_hostile(stored, mark)
    with serving(tmp_path / "hub") as address:
        folder = hub.pull("lab/backbone", tmp_path / "theirs", endpoint=address)
    Backbone.from_pretrained(folder)
    assert "model.pt2 and helm_backbone.py are code" in caplog.text and not mark.exists()
