"""The pages that a newcomer follows do what they say: their blocks run, in order, as they stand."""

import shutil

import pytest

from tests.blocks import ROOT, blocks_of, check_command, commands_in, run

DOCS = ROOT / "docs"
FOLLOWED = ("pretrain.md", "finetune.md")  # the second goes on where the first ends
WITH_RECIPES = ("datasets.md",)  # blocks that need no other page
WITH_USES = ("helm_small.md",)  # Python blocks that go on where the one before ended
CHECKED = sorted(page.name for page in DOCS.glob("*.md") if page.name != "backbone.md")


def run_blocks(page: str) -> None:
    for info, body in blocks_of(DOCS / page):
        if info == "bash":
            run(["bash", "-euo", "pipefail", "-c", body])
        elif info == "python":
            run(["python", "-c", body])


@pytest.mark.slow
def test_pages_run_from_beginning_to_end() -> None:
    shutil.rmtree(ROOT / "runs" / "docs", ignore_errors=True)
    for page in FOLLOWED:
        run_blocks(page)
    made = ROOT / "runs" / "docs" / "finetune"
    assert {path.name for path in made.iterdir()} >= {
        "table.md",
        "report.json",
        "learning_curve.png",
        "direct",
        "frozen",
        "finetuned",
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_RECIPES)
def test_recipes_run(page: str) -> None:
    shutil.rmtree(ROOT / "runs" / "recipes", ignore_errors=True)
    run_blocks(page)
    assert (ROOT / "runs" / "recipes" / "shards" / "manifest.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_USES)
def test_uses_run_one_after_the_other(page: str) -> None:
    made = ROOT / "runs" / "uses"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    session = ""
    for info, body in blocks_of(DOCS / page):
        if info == "python":
            session += body
        elif info == "bash":
            run(["python", "-c", session])
            run(["bash", "-euo", "pipefail", "-c", body])
    run(["python", "-c", session])
    assert (made / "finetune" / "table.md").is_file()


@pytest.mark.parametrize("page", CHECKED)
def test_commands_too_long_to_run_are_understood(page: str) -> None:
    """backbone.md has blocks of its own kinds, which tests/export/test_page.py runs."""
    for info, body in blocks_of(DOCS / page):
        assert info in {"bash", "bash dry", "text", "yaml"} or page in (
            *FOLLOWED,
            *WITH_RECIPES,
            *WITH_USES,
        ), f"{page}: {info}"
        if info == "bash dry":
            for words in commands_in(body):
                check_command(words)
