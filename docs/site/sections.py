"""An extension of griffe, which reads the docstrings for the reference pages.

Our docstrings spare lines: sections follow each other without a blank line, short entries share
one, and so do names of which the same is said. griffe wants a blank line before each section and a
line for each name.
"""

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Property):", flags=re.MULTILINE)
ENTRIES = re.compile(r"^(?:Args|Attributes|Raises):\n((?:    .*\n?|\n)+)", flags=re.MULTILINE)
ENTRY = re.compile(r"(?:^ {4}|(?<=\.)\s+)(\w+(?:, \w+)*: )", flags=re.MULTILINE)
SHARED = re.compile(r"^ {4}(\w+(?:, \w+)+): (.*(?:\n {5,}.*)*)", flags=re.MULTILINE)


class Sections(griffe.Extension):
    """Gives sections and entries the lines that griffe looks for."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class or function."""
        if obj.docstring is not None:
            entries = ENTRIES.sub(_one_per_line, obj.docstring.value)
            obj.docstring.value = SECTION.sub(r"\n\1:", entries)


def _one_per_line(section: re.Match[str]) -> str:
    title, entries = section[0].split("\n", 1)
    lines = re.sub(r"\n+", "\n", ENTRY.sub(r"\n    \1", "\n" + entries))
    return title + SHARED.sub(_repeated, lines)


def _repeated(entry: re.Match[str]) -> str:
    """What several names share, said of each."""
    names, text = entry.groups()
    return "\n".join(f"    {name}: {text}" for name in names.split(", "))
