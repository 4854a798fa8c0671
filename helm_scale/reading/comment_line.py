"""The comment line of an extended XYZ frame: name=value, with quotes where values have blanks."""

import json
import re
from typing import Any

import numpy as np

TOKEN = re.compile(
    r"""
    (?P<name> "[^"]*" | '[^']*' | [^\s="'{}\[\]]+ ) \s* = \s*
    (?P<value>
        "(?:\\.|[^"\\])*" | '[^']*' | \{[^{}]*\} | \[(?:[^\[\]]|\[[^\[\]]*\])*\] | [^\s"'{\[]\S* |
    )
    | (?P<flag> \S+ )
    """,
    re.VERBOSE,
)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
NOT_FINITE = ("nan", "inf", "infinity")
TRUTH = {"T": True, "F": False, "True": True, "False": False}
TEXTS = ("key", "split", "config_type", "Properties")  # never numbers: 000123 stays 000123
CHARGE_AND_MULTIPLICITY = re.compile(r"\s*([+-]?\d{1,3})\s+(\d{1,3})\s*", re.ASCII)


def read(line: str, where: str) -> dict[str, Any]:
    """Read names and values; numbers become numbers, lists of them arrays, words stay words.

    A line of two integers is charge and multiplicity, as in the input of most programs.

    Raises:
        ValueError: a name twice, or a quote or bracket that is not closed; names `where`.
    """
    bare = CHARGE_AND_MULTIPLICITY.fullmatch(line)
    if bare:
        return {"charge": int(bare[1]), "multiplicity": int(bare[2])}
    info: dict[str, Any] = {}
    for token in TOKEN.finditer(line):
        if token["name"] is None:
            continue  # a word of free text
        name, raw = token["name"].strip("\"'"), token["value"]
        if not raw and line[token.end() : token.end() + 1] in ('"', "'", "{", "["):
            raise ValueError(f"{where}: {name}: a quote or bracket is not closed")
        if name in info:
            raise ValueError(f"{where}: {name} stands there twice; keep one")
        info[name] = _unquoted(raw) if name in TEXTS else value_of(_unquoted(raw))
    return info


def value_of(text: str) -> Any:
    """A value: number, array of numbers or truths, truth, JSON after _JSON, or the text itself."""
    if text.startswith("_JSON "):
        try:
            return json.loads(text.removeprefix("_JSON "))
        except ValueError:
            return text
    if text in TRUTH:
        return TRUTH[text]
    number = _number(text)
    if number is not None:
        return number
    words = re.sub(r"[\[\],{}]", " ", text).split()
    for kind in (_number, TRUTH.get):
        values = [kind(word) for word in words]
        if values and None not in values and (len(values) > 1 or text[0] in "[{"):
            return np.array(values)
    return text


def _number(text: str) -> int | float | None:
    if INTEGER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text) or text.lower().lstrip("+-") in NOT_FINITE:
        return float(text)
    return None


def _unquoted(text: str) -> str:
    if text[:1] in ('"', "'"):
        return text[1:-1].replace('\\"', '"')
    return text
