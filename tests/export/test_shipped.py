"""Models are found by folder, by the name of one that ships, or on the Hub."""

from pathlib import Path

import ase.build
import pytest

import helm_scale
from helm_scale.commands.models import find_model
from helm_scale.export import shipped


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    (tmp_path / "models" / "tiny" / "config.json").write_text("{}")
    return tmp_path / "models"


def test_a_name_is_a_shipped_model_and_a_folder_goes_before_it(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped.names(models) == ["tiny"]
    assert shipped.resolve("tiny", shipped=models) == models / "tiny"
    (tmp_path / "tiny").mkdir()
    assert shipped.resolve("tiny", shipped=models) == Path("tiny")


def test_an_unknown_name_lists_what_ships(models: Path) -> None:
    with pytest.raises(ValueError, match=r"huge: neither a folder nor .* \(tiny\)"):
        shipped.resolve("huge", shipped=models)
    with pytest.raises(ValueError, match="no-such-model: neither a folder nor"):
        find_model("no-such-model")


def test_a_download_is_kept(models: Path, tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "owner--name@v1"
    kept.mkdir(parents=True)
    (kept / "config.json").write_text("{}")
    # Without network: what is there is not fetched again.
    assert shipped.resolve("hub:owner/name@v1", cache=tmp_path / "cache") == kept


def test_the_model_that_ships_predicts_by_name() -> None:
    assert "helm_small" in shipped.names()
    atoms = ase.build.molecule("CH3OH")
    model = helm_scale.load("helm_small")
    solver = model.solver(atoms)
    solver.kernel()
    assert abs(model.energy(atoms) - solver.e_tot) < 2e-3  # Hartree; minao's error is 0.07
