"""An environment that has the built wheel, for tests of what users get.

What it depends on is taken from the environment of the tests, so that nothing is downloaded.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEFT_OUT = (".*", "__pycache__", "*.egg-info", "build", "data_shards", "images", "results", "runs")


def built_wheel(folder: Path) -> Path:
    """The wheel of a copy of the repository, since a build leaves files behind."""
    source = folder / "source"
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    pip(sys.executable, "wheel", *options, str(source))
    (built,) = folder.glob("*.whl")
    return built


def installed(wheel: Path) -> Path:
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
