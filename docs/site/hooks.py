"""Hooks of the documentation site."""

import re

OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Name files of the repository that the site does not hold instead of linking to them."""
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)
