"""The blocks of docs/backbone.md, which the tests run; a block says in which environment."""

import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/backbone.md").read_text()
BLOCKS = re.findall(r"^```(.*?)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    """Bodies of the blocks with this info string."""
    return [body for info, body in BLOCKS if info == kind]


def run(kind: str, folder: Path, **there: Path) -> dict[str, object]:
    """Run the blocks of a kind one after another in one scope.

    Args:
        there: what the folder has besides, by name: `bundle`, which only blocks of the kind
            "python" make, and `energy_model`.
    """
    for name, target in there.items():
        (folder / name).symlink_to(target)
    scope: dict[str, object] = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for body in blocks(kind):
            exec(body, scope)
    finally:
        os.chdir(before)
    return scope
