"""The recipes of CONTRIBUTING.md without a test of their own, followed in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pretraining import launching

ROOT = Path(__file__).parent.parent
SCANDIUM = """
from helm_scale.basis import elements, shells
from helm_scale.basis.layout import head_multiplicities
assert 21 in elements.supported("def2-svp") and elements.symbol(21) == "Sc"
print(shells.nao("def2-svp", 21), len(head_multiplicities("def2-svp", onsite=True)))
"""
ROOT_OF_MEAN = '''"""Root of the mean square alone, without the mean square."""

from helm_scale.losses.hamiltonian import HamiltonianObjective


class RootObjective(HamiltonianObjective):
    """sqrt(S/N) of squared errors of matrix elements, Hartree."""

    @staticmethod
    def loss(total, count):
        """Root of the mean."""
        return (total / count).sqrt()
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package to change."""
    tree = tmp_path / "tree"
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("helm_scale", "launch", "configs"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignore, symlinks=True)
    return tree


def run(tree: Path, *arguments: str) -> str:
    """Run Python in a tree, with the package from there."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def edit(path: Path, old: str, new: str) -> None:
    """Replace text that occurs once."""
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name}: {old!r}"
    path.write_text(text.replace(old, new))


def test_an_element_is_a_number_a_symbol_and_the_tables_written_anew(tree: Path) -> None:
    elements = tree / "helm_scale/basis/elements.py"
    edit(elements, "*range(1, 21), *range(31, 57)", "*range(1, 22), *range(31, 57)")
    edit(elements, "K Ca Ga", "K Ca Sc Ga")
    symbols = ["H", "C", "N", "O", "Sc"]
    run(tree, "-m", "helm_scale.dft.tables", "def2-svp", *symbols)
    orbitals, degrees = map(int, run(tree, "-c", SCANDIUM).split())
    assert orbitals == 5 + 3 * 3 + 2 * 5 + 7  # 5s 3p 2d 1f in def2-SVP
    assert degrees == 7


@pytest.mark.slow
def test_a_loss_is_a_file_and_the_line_that_makes_it(tree: Path, tmp_path: Path) -> None:
    (tree / "helm_scale/losses/root.py").write_text(ROOT_OF_MEAN)
    command = tree / "helm_scale/commands/pretrain.py"
    first = "from helm_scale.losses.references import"
    edit(command, first, f"from helm_scale.losses.root import RootObjective\n{first}")
    edit(command, "return HamiltonianObjective(", "return RootObjective(")
    data = launching.write_dataset(tmp_path / "data")
    steps = {"training__steps": 1, "training__warmup_steps": 0}
    losses = []
    for root, name in ((tree, "new"), (ROOT, "old")):
        flags = launching.flags(data, tmp_path / name, **steps)
        run(root, "launch/pretrain.py", *flags)
        losses.append(launching.lines(tmp_path / name)[0]["loss"])
    root, both = losses
    assert both == pytest.approx(root + root**2, rel=1e-5)


def test_recipes_name_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    files = re.findall(r"\]\(([^)]+)\)", text)
    assert not [name for name in files if not (ROOT / name).exists()]
