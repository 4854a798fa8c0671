"""The documentation site builds without a warning, and leaves nothing out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def pages(nav: object) -> list[str]:
    """Files that a navigation names, at any depth."""
    if isinstance(nav, str):
        return [nav]
    items = nav.values() if isinstance(nav, dict) else nav
    return [page for item in items for page in pages(item)]


def public_modules() -> set[str]:
    """Modules of the package that define something, by dotted name."""
    files = [
        path
        for path in (ROOT / "helm_scale").rglob("*.py")
        if any(line.startswith(("def ", "class ")) for line in path.read_text().splitlines())
    ]
    dotted = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    return {name.removesuffix(".__init__") for name in dotted} - {"helm_scale"}


def test_every_page_is_in_the_navigation() -> None:
    named = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(named) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))


def test_every_module_is_in_the_reference() -> None:
    text = "\n".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    listed = {line.removeprefix("::: ") for line in text.splitlines() if line.startswith("::: ")}
    assert public_modules() - listed == set(), "add them to a page of docs/reference"
    gone = {
        name
        for name in listed
        if not any((ROOT / (name.replace(".", "/") + end)).exists() for end in (".py", ""))
    }
    assert not gone, "docs/reference names modules that are gone"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    reference = [page.read_text() for page in (tmp_path / "reference").rglob("*.html")]
    assert any("Predict the Kohn-Sham matrix" in text for text in reference)
    sections_as_prose = [re.search(r"<p>(Args|Attributes|Raises|Returns):", t) for t in reference]
    assert not any(sections_as_prose), "docs/site/sections.py makes tables of them"
