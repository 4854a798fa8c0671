"""A new engine is one file and one name: the recipe, followed in a copy of the package."""

import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from helm_scale import commands, config
from helm_scale.config import ExecutionConfig
from helm_scale.parallel import strategies
from helm_scale.parallel.strategies.spec import EngineSpec
from tests import tolerances
from tests.pretraining import launching

NEW_FILE = '''"""Whole weights on every rank; gradients are summed after the last pass."""

import torch.distributed as dist

from helm_scale.parallel.strategies.spec import EngineSpec
from helm_scale.parallel.strategies.torch_model import TorchModel, shards_of


class PlainReplica(TorchModel):
    """See spec.ParallelModel."""

    def update(self, apply):
        """See spec.ParallelModel."""
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
        super().update(apply)


def wrap(model, processes, execution, low_precision):
    """Leave the model as it is."""
    shards = shards_of(model, processes.rank, processes.world_size)
    return PlainReplica(module=model, model=model, shards=shards)


ENGINE = EngineSpec(wrap=wrap)
'''
NAMES = 'Literal["auto", "single", "ddp", "fsdp2", "zero1", "zero2", "zero3"]'


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with engine `plain_replica`."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in ("helm_scale", "launch"):
        shutil.copytree(
            launching.ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    (tree / "helm_scale/parallel/strategies/plain_replica.py").write_text(NEW_FILE)
    settings = tree / "helm_scale/config/pretrain.py"
    text = settings.read_text()
    assert text.count(NAMES) == 1
    settings.write_text(text.replace(NAMES, NAMES.replace("]", ', "plain_replica"]')))
    return tree


def launch(tree: Path, ranks: int, *flags: str) -> "subprocess.CompletedProcess[str]":
    """Start launch/pretrain.py of a tree, and wait."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
    command = [*launching.python(ranks), "launch/pretrain.py", *flags]
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=240
    )


def test_an_engine_is_one_file_and_one_line(tree: Path) -> None:
    compared = filecmp.cmpfiles(
        launching.ROOT,
        tree,
        [
            path.relative_to(tree).as_posix()
            for path in tree.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        ],
        shallow=False,
    )
    _, changed, new = compared
    assert changed == ["helm_scale/config/pretrain.py"]
    assert new == ["helm_scale/parallel/strategies/plain_replica.py"]


@pytest.mark.slow
def test_a_new_engine_takes_the_steps_of_one_process(tree: Path, tmp_path: Path) -> None:
    data = launching.write_dataset(tmp_path / "data")
    changes = {"training__steps": 3, "training__optimizer": "muon"}
    flags = launching.flags(data, tmp_path / "new", **changes, execution__engine="plain_replica")
    result = launch(tree, 2, *flags)
    assert result.returncode == 0, result.stderr
    flags = launching.flags(data, tmp_path / "single", **changes, execution__engine="single")
    commands.pretrain(config.load(config.PretrainConfig, flags))
    new, single = (launching.lines(tmp_path / name) for name in ("new", "single"))
    for ours, theirs in zip(new, single, strict=True):
        for key in ("loss", "grad_norm"):
            assert ours[key] == pytest.approx(theirs[key], rel=tolerances.ENGINE_PARITY)


def test_help_lists_a_new_engine_and_a_misspelt_one_is_refused_with_the_names(tree: Path) -> None:
    assert "zero3|plain_replica; auto)" in launch(tree, 1, "--help").stdout
    refused = launch(tree, 1, "--execution.engine", "plain_replicas")
    assert refused.returncode == 1 and "'plain_replica'" in refused.stderr


def test_names_and_files_of_engines_are_the_same() -> None:
    names = get_args(ExecutionConfig.model_fields["engine"].annotation)
    assert names == ("auto", *strategies.NAMES)
    assert all(isinstance(strategies.spec_of(name), EngineSpec) for name in strategies.NAMES)
    folder = Path(str(strategies.__file__)).parent
    with_engine = {path.stem for path in folder.glob("*.py") if "\nENGINE = " in path.read_text()}
    assert with_engine == set(strategies.NAMES)


@pytest.mark.slow
def test_deepspeed_is_imported_only_where_its_engine_runs() -> None:
    code = (
        "import sys; from helm_scale.parallel import strategies;"
        "[strategies.spec_of(name) for name in strategies.NAMES];"
        "sys.exit('deepspeed' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=launching.ROOT).returncode == 0
