"""What the README says is so: its blocks run, its links lead somewhere, its map is real."""

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.blocks import ROOT, blocks_of, check_command, commands_in, run

README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "data_shards").glob("*.md")),
]
BLOCKS = blocks_of(ROOT / "README.md")
MAP = re.findall(
    r"^\|[^|]+\| `(\w[\w.]*)\((.*?)\) -> (\w[^`]*)` \| \[[^]]+\]\((.+?)\) \|$",
    README,
    flags=re.MULTILINE,
)


def bodies(info: str) -> list[str]:
    """Bodies of the blocks with this info string."""
    return [body for name, body in BLOCKS if name == info]


def test_every_block_is_checked_in_some_way() -> None:
    assert {info for info, _ in BLOCKS} == {"bash", "bash dry", "python"}


def test_the_readme_is_read_in_three_minutes() -> None:
    assert len(README.splitlines()) < 120


@pytest.mark.slow
@pytest.mark.parametrize("body", bodies("bash"))
def test_bash_blocks_run(body: str) -> None:
    run(["bash", "-euo", "pipefail", "-c", body])


@pytest.mark.slow
@pytest.mark.parametrize("body", bodies("python"))
def test_python_blocks_run_in_an_empty_folder(body: str, tmp_path: Path) -> None:
    run([sys.executable, "-c", body], cwd=tmp_path)


@pytest.mark.parametrize(
    "words", [words for body in bodies("bash dry") for words in commands_in(body)], ids=" ".join
)
def test_commands_of_dry_blocks_are_understood(words: list[str]) -> None:
    check_command(words)


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
