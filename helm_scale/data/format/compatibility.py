"""Checks that labels may be used together: one method, and the same set of labels."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def check_same_labels(
    where: object,
    got: Mapping[str, Any],
    *,
    other: object,
    wanted: Mapping[str, Any],
    remedy: str,
) -> None:
    """Raise ValueError naming both places and every value in which their labels differ.

    Args:
        where, other: the two places, for the message.
        got, wanted: what must agree, by name, such as `method` and `labels`; of a record (Method)
            the fields that differ are named.
    """
    if got == wanted:  # the usual case, met once per sample: no text is made
        return
    differences = ", ".join(_differences(got, wanted))
    raise ValueError(f"{where} and {other} differ: {differences}; {remedy}")


def _differences(got: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    for name, value in wanted.items():
        if got[name] == value:
            continue
        if is_dataclass(value) and is_dataclass(got[name]):
            yield from _differences(_values(got[name]), _values(value))
        else:
            yield f"{name} {got[name]!r} and {value!r}"


def _values(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}
