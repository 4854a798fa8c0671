"""The built wheel works in an environment outside the repository: command, configs, data tables.

What it depends on is taken from the environment of the tests, so that nothing is downloaded.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from helm_scale import cli

ROOT = Path(__file__).parent.parent
LEFT_OUT = (".*", "__pycache__", "*.egg-info", "build", "data_shards", "images", "results", "runs")
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
    """The wheel of a copy of the repository, since a build leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    pip(sys.executable, "wheel", *options, str(source))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path) -> Path:
    """Folder of the programs of an environment that has the wheel."""
    environment = wheel.parent / "environment"
    venv.create(environment, symlinks=True)
    programs = environment / "bin"
    options = ["--no-deps", "--no-index"]
    pip(str(programs / "python"), "install", *options, str(wheel))
    (site,) = environment.glob("lib/python*/site-packages")
    # A line of a .pth file goes to the end of the path, so the wheel comes before the checkout.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def pip(python: str, *arguments: str) -> None:
    """Run this environment's pip for an interpreter."""
    command = [sys.executable, "-m", "pip", "--quiet", "--python", python, *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def run(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder that is not the repository."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "helm_scale").rglob("*")
        if path.is_file() and path.suffix in (".py", ".json", ".typed")
    }
    configs = {f"helm_scale/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    assert set(names) == package | configs


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
