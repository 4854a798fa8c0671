"""Hooks of the documentation site."""

import re

OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./([^)]+)\)")
# The tests read a second word on a fence ("bash dry", "python fairchem"); highlighters do not.
FENCE = re.compile(r"^```(\w+) [\w ]+$", flags=re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Name files of the repository that the site does not hold instead of linking to them."""
    return FENCE.sub(r"```\1", OUTSIDE.sub(_named, markdown))


def _named(link: re.Match[str]) -> str:
    """The path of a file outside docs, and the words of the link where they say more."""
    text, path = link[1].replace("\\", ""), link[2]
    return f"`{path}`" if text.split("/")[-1] in path else f"{link[1]} (`{path}`)"
