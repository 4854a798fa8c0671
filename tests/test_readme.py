"""What the README says is so: its blocks run, its links lead somewhere, its map names real
signatures.

A fenced block says how it is checked: `bash` and `python` are run as they stand; the lines of `bash
dry`, which would take long or need a cluster, are read by the program they call (make -n,
torchrun's parser, the launcher's config).
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from helm_scale import config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "data_shards").glob("*.md")),
]
BLOCKS = re.findall(r"^```(.*?)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
MAP = re.findall(
    r"^\|[^|]+\| `(\w[\w.]*)\((.*?)\) -> (\w+)` \| \[[^]]+\]\((.+?)\) \|$",
    README,
    flags=re.MULTILINE,
)
KINDS = {
    "pretrain": config.PretrainConfig, "evaluate": config.EvaluateConfig, "predict": config.PredictConfig,
    "export": config.ExportConfig, "finetune": config.FinetuneConfig, "shards": config.GenerateConfig,
}  # fmt: skip


def blocks(kind: str) -> list[str]:
    """Bodies of the blocks with this info string."""
    return [body for info, body in BLOCKS if info == kind]


def lines(kind: str) -> list[str]:
    """Commands of the blocks of a kind, continued lines joined."""
    joined = "".join(blocks(kind)).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def run(command: list[str]) -> None:
    """Run in the repository with the tests' own Python first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_block_is_checked_in_some_way() -> None:
    assert {info for info, _ in BLOCKS} == {"bash", "bash dry", "python"}


@pytest.mark.parametrize("body", blocks("bash"))
def test_bash_blocks_run(body: str) -> None:
    run(["bash", "-euo", "pipefail", "-c", body])


@pytest.mark.parametrize("body", blocks("python"))
def test_python_blocks_run(body: str) -> None:
    run([sys.executable, "-c", body])


@pytest.mark.parametrize("line", lines("bash dry"))
def test_commands_of_dry_blocks_are_understood(line: str) -> None:
    program, *arguments = shlex.split(line, comments=True)
    if program == "make":
        return run(["make", "-n", *arguments])
    if program == "torchrun":
        parsed = get_args_parser().parse_args(arguments)
        arguments = [parsed.training_script, *parsed.training_script_args]
    script, *arguments = arguments
    assert (ROOT / script).is_file(), script
    if script.startswith("launch/"):
        config.load(
            KINDS[Path(script).stem], [word for word in arguments if word not in {"generate"}]
        )


def test_the_map_has_seven_signatures() -> None:
    assert len(MAP) == 7


@pytest.mark.parametrize(
    ("name", "arguments", "returned", "file"), MAP, ids=[row[0] for row in MAP]
)
def test_the_map_names_real_signatures(name: str, arguments: str, returned: str, file: str) -> None:
    scope: ast.AST = ast.parse((ROOT / file).read_text())
    for part in name.split("."):
        found = [
            node for node in ast.iter_child_nodes(scope) if getattr(node, "name", None) == part
        ]
        assert found, f"{file} has no {part} (of {name})"
        scope = found[0]
    assert isinstance(scope, ast.FunctionDef)
    taken = [argument.arg for argument in [*scope.args.args, *scope.args.kwonlyargs]]
    assert [name for name in taken if name != "self"] == re.findall(r"\w+", arguments)
    assert scope.returns is not None
    assert ast.unparse(scope.returns) == returned


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+?)\)|<img[^>]+src=\"([^\"]+)\"", page.read_text())
    local = [target for pair in targets for target in pair if target and "://" not in target]
    assert not [target for target in local if not (page.parent / target).exists()]
