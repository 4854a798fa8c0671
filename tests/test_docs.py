"""The pages that a newcomer follows do what they say: their blocks run, in order, as they stand."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from helm_scale import config
from tests.test_readme import KINDS, ROOT, run

PAGES = ("pretrain.md", "finetune.md")  # the second goes on where the first ends
KNOWN = {**KINDS, "low_data": config.LowDataConfig}


def blocks(page: str) -> list[tuple[str, str]]:
    """(info string, body) of the blocks of a page."""
    return re.findall(
        r"^```(.*?)\n(.*?)^```$", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE | re.DOTALL
    )


@pytest.mark.slow
def test_pages_run_from_beginning_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.rmtree(ROOT / "runs" / "docs", ignore_errors=True)
    for page in PAGES:
        for info, body in blocks(page):
            if info == "bash":
                run(["bash", "-euo", "pipefail", "-c", body])
            elif info == "python":
                run(["python", "-c", body])
    made = ROOT / "runs" / "docs" / "finetune"
    assert {path.name for path in made.iterdir()} == {
        "table.md", "report.json", "learning_curve.png", "features", "direct", "frozen", "finetuned"
    }  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_commands_too_long_to_run_are_understood(page: str) -> None:
    assert {info for info, _ in blocks(page)} == {"bash", "bash dry", "python"} - (
        {"python"} if page == "pretrain.md" else set()
    )
    for body in (body for info, body in blocks(page) if info == "bash dry"):
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            script = next(word for word in words if word.startswith("launch/"))
            config.load(KNOWN[Path(script).stem], words[words.index(script) + 1 :])
