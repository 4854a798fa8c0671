"""The built wheel works in an environment outside the repository: command, configs, data tables."""

import zipfile
from pathlib import Path

import pytest

from helm_scale import cli
from tests.installed import ROOT, built_wheel, installed, run

LOOK = """
import importlib.resources, pathlib, sys
import helm_scale
from helm_scale.basis.shells import shells_of
here = pathlib.Path(helm_scale.__file__).parent
assert here.is_relative_to(sys.prefix), here
assert (here / "py.typed").is_file()
assert len(shells_of("def2-tzvpd", 53)) > 10
assert helm_scale.load and helm_scale.Backbone and helm_scale.EnergyCalculator
assert helm_scale.load.__module__ == "helm_scale.api"
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def programs(wheel: Path) -> Path:
    return installed(wheel)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "helm_scale").rglob("*")
        if path.is_file() and path.suffix in (".py", ".json", ".typed")
    }
    configs = {f"helm_scale/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    models = {
        f"helm_scale/{path.relative_to(ROOT)}"
        for path in (ROOT / "models").rglob("*")
        if path.is_file()
    }
    assert set(names) == package | configs | models


def test_the_command_lists_its_commands(programs: Path, tmp_path: Path) -> None:
    listed = run(tmp_path, programs / "helm-scale", "--help")
    assert listed.returncode == 0, listed.stderr
    assert all(f"\n  {name} " in listed.stdout for name in cli.COMMANDS)


def test_the_package_is_imported_from_the_wheel_with_its_tables(
    programs: Path, tmp_path: Path
) -> None:
    looked = run(tmp_path, programs / "python", "-c", LOOK)
    assert looked.returncode == 0, looked.stderr


def test_a_packaged_config_runs_by_name_and_says_where_it_looks_for_data(
    programs: Path, tmp_path: Path
) -> None:
    command = [programs / "helm-scale", "pretrain", "--config", "quickstart", "--dry-run"]
    told = run(tmp_path, *command, "--data.path", ROOT / "data_shards" / "quickstart")
    assert told.returncode == 0, told.stderr
    assert "num_layers: 2" in told.stdout
    astray = run(tmp_path, *command)
    assert astray.returncode == 1 and len(astray.stderr.splitlines()) == 1
    assert f"data_shards/quickstart/manifest.json: not found in {tmp_path}" in astray.stderr
