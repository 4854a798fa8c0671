"""What is written beside weights (model, method, training as JSON), and how older records are read.

Format 1 carried no number, or "helm_scale bundle 1", and names some keys as they were called then.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helm_scale.config.model import ModelConfig
from helm_scale.config.pretrain import TrainingConfig
from helm_scale.config.reading import new_name

FORMAT = 2  # raise it with every change of what a record means, and teach `upgrade` the step
# Parts of a checkpoint's record that are settings.
_SETTINGS = {"model": ModelConfig, "training": TrainingConfig}
_FIRST = (None, "helm_scale bundle 1")  # what records of format 1 say of themselves


def read_record(path: Path) -> dict[str, Any]:
    """Read model.json of a checkpoint or finetuned model, or config.json of a bundle.

    Raises:
        ValueError: no JSON object, or a format that this version does not know; names the file.
    """
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path}: not the record of a model ({error!r}); copy the folder again"
        ) from None
    return upgrade(record, str(path))


def upgrade(record: Any, where: str) -> dict[str, Any]:
    """Translate a record of any known format into the present one.

    Raises:
        ValueError: not a record, or one of a newer format; names `where`, what it got and wanted.
    """
    if not isinstance(record, dict):
        raise ValueError(f"{where}: not the record of a model; copy the folder again")
    written = record.get("format")
    if written in _FIRST:
        return _from_format_1(record)
    if written != FORMAT:
        raise ValueError(
            f"{where}: got format {written!r}, wanted at most {FORMAT}:"
            " a newer helm_scale wrote it; install that version or a later one"
        )
    return record


def completed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Add settings of pretraining that the version which wrote the record did not have.

    They count at their defaults, which change nothing.
    """
    added = {
        part: {**settings().model_dump(mode="json"), **record[part]}
        for part, settings in _SETTINGS.items()
        if isinstance(record.get(part), dict)
    }
    return {**record, **added}


def _from_format_1(record: Mapping[str, Any]) -> dict[str, Any]:
    """Rename keys; list the samples of a replay file."""
    renamed = {**_with_new_names(record), "format": FORMAT}
    if "samples" in renamed:  # by key they could not repeat, as they do where an epoch ends
        renamed["samples"] = [[key, int(number)] for key, number in renamed["samples"].items()]
    return renamed


def _with_new_names(record: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Rename the keys of a nested record; `section` is the key under which it stands."""
    renamed = {}
    for key, value in record.items():
        name = new_name(f"{section}.{key}") or key
        renamed[name] = _with_new_names(value, key) if isinstance(value, dict) else value
    return renamed
