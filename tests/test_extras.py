"""A part whose package is not installed names the line that installs it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helm_scale.extras import MissingExtraError, needs

ROOT = Path(__file__).parent.parent
# Package that is blocked, part that needs it, extra that brings it.
DOORS = (
    ("pyscf", "helm_scale.dft.energies", "dft"),
    ("h5py", "helm_scale.importers.omol_csh", "dft"),
    ("matplotlib", "helm_scale.evaluation.plots.hamiltonian", "plots"),
    ("matplotlib", "helm_scale.finetuning.plots", "plots"),
    ("matplotlib", "helm_scale.data.tools.histograms", "plots"),
    ("huggingface_hub", "helm_scale.export.hub", "hub"),
    ("fairchem", "helm_scale.export.fairchem", "fairchem"),
    ("metatensor", "helm_scale.export.metatomic", "metatomic"),
)
# Finds nothing of one package, as where it is not installed.
BLOCK = """
import importlib, importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    package = None
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
block = Block()
sys.meta_path.insert(0, block)
"""
# Comes to every door with its package blocked and forgotten; prints what the door says.
VISIT = """
for block.package, part, extra in DOORS:
    for name in [*sys.modules]:
        if name.split(".")[0] in (block.package, "helm_scale"):
            del sys.modules[name]
    try:
        importlib.import_module(part)
        print("imported", part)
    except ImportError as error:
        print(type(error).__name__, error)
"""
CLI = "from helm_scale import cli; cli.main({arguments})"


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own in which packages can be blocked."""
    command = [sys.executable, "-c", BLOCK + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_a_missing_package_is_named_with_the_line_that_installs_it() -> None:
    said = run(f"DOORS = {DOORS}\n{VISIT}").stdout.splitlines()
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(said) == len(DOORS)
    for line, (package, _, extra) in zip(said, DOORS, strict=True):
        assert line.startswith(f"MissingExtraError {package}")
        assert line.endswith(f"is not installed; run pip install 'helm_scale[{extra}]'")
        assert extra in known["optional-dependencies"]


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("pyscf", ["shards", "generate"], "dft"),
        ("matplotlib", ["shards", "info", "data_shards/quickstart"], "plots"),
    ],
)
def test_a_command_ends_in_one_line(package: str, arguments: list[str], extra: str) -> None:
    result = run(f"block.package = '{package}'\n" + CLI.format(arguments=arguments))
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line == f"{package} is not installed; run pip install 'helm_scale[{extra}]'"


@pytest.mark.slow
def test_a_training_node_needs_no_extra() -> None:
    dry = [
        "pretrain", "--config", "quickstart", "--dry-run", "--data.path",
        str(ROOT / "data_shards" / "quickstart"),
    ]  # fmt: skip
    extras = ["pyscf", "h5py", "deepspeed", "matplotlib", "huggingface_hub"]
    absent = f"sys.modules |= dict.fromkeys({extras})\n"  # None there: an import fails
    result = run(absent + CLI.format(arguments=dry))
    assert result.returncode == 0, result.stderr


def test_only_absence_is_an_extra_that_is_missing() -> None:
    with pytest.raises(ImportError) as wrong, needs("dft"):
        from numpy import no_such_name  # type: ignore[attr-defined]  # noqa: F401
    assert not isinstance(wrong.value, MissingExtraError)
