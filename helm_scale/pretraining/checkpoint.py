"""Checkpoints that survive a kill at any moment and notice a flipped bit.

A checkpoint is a folder `checkpoints/step-00000100`. It is written as `step-00000100.tmp`, synced,
listed with SHA-256 in SHA256SUMS, renamed, and only then marked COMMITTED; what lacks the mark does
not exist. Older ones are deleted last, and never the best one nor the newest one that verifies and
holds finite weights. Reading verifies every file first, and falls back to the checkpoint before,
loudly, if one is damaged.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helm_scale.config import upgrade
from helm_scale.files import sha256, sync, write_atomically

_log = logging.getLogger(__name__)
_SUMS, _MARK = "SHA256SUMS", "COMMITTED"


def latest(run: Path | str) -> Path | None:
    """The newest committed checkpoint of a run whose files all verify; each damaged one is named in
    the log.

    None where the run has none, or none that is whole.
    """
    for folder in reversed(committed(run)):
        found = faults(folder)
        if not found:
            return folder
        _log.error(
            "%s: damaged (%s); falling back to the checkpoint before", folder, "; ".join(found)
        )
    return None


def committed(run: Path | str) -> list[Path]:
    """Committed checkpoints of a run, oldest first; nothing is verified."""
    return sorted(path.parent for path in Path(run, "checkpoints").glob(f"step-????????/{_MARK}"))


def step_of(folder: Path) -> int:
    """Optimiser steps that a checkpoint has behind it."""
    return int(folder.name.removeprefix("step-"))


def faults(folder: Path) -> list[str]:
    """What is wrong with a committed checkpoint's files, by name; empty if all is well."""
    try:
        sums = (folder / _SUMS).read_text()
        mark = json.loads((folder / _MARK).read_text())
    except (OSError, ValueError) as error:
        return [f"{_SUMS} or {_MARK} cannot be read: {error}"]
    if mark.get("sums") != hashlib.sha256(sums.encode()).hexdigest():
        return [f"{_SUMS}: SHA-256 differs from the one in {_MARK}"]
    found = []
    for line in sums.splitlines():
        wanted, _, name = line.partition("  ")
        if not (folder / name).is_file():
            found.append(f"{name}: missing")
        elif sha256(folder / name) != wanted:
            found.append(f"{name}: SHA-256 differs from {_SUMS}")
    return found


def begin(run: Path, step: int) -> Path:
    """Make an empty folder to write into; `commit` turns it into a checkpoint."""
    folder = run / "checkpoints" / f"step-{step:08d}.tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def commit(
    unfinished: Path,
    finite: bool,
    sums_of: Mapping[str, str] | None = None,
    validation_loss: float | None = None,
) -> Path:
    """Hash, sync, rename and mark a folder from `begin`; called by one process once all have
    written.

    Args:
        finite: whether the weights are finite; `purge` keeps a finite checkpoint. sums_of: SHA-256
            by path of files that were hashed as they were written; the others are read.
            validation_loss: `purge` keeps the lowest.
    Returns:
        the committed checkpoint; a damaged or unmarked one of the same step is replaced.
    Raises:
        OSError: the disk is full or cannot be written, or a file is missing.
    """
    files = {
        path.relative_to(unfinished).as_posix(): path
        for path in sorted(unfinished.rglob("*"))
        if path.is_file()
    }
    known = dict(sums_of or {})
    if set(known) - set(files):
        raise FileNotFoundError(
            f"{unfinished}: files written by other ranks are not to be seen here: {', '.join(sorted(set(known) - set(files)))};"
            " the run folder must lie on a disk that all nodes share"
        )
    sums = "".join(f"{known.get(name) or sha256(path)}  {name}\n" for name, path in files.items())
    (unfinished / _SUMS).write_text(sums)
    for path in [*unfinished.rglob("*"), unfinished]:
        sync(path)
    folder = unfinished.with_suffix("")
    if folder.exists():
        _remove(folder)
    unfinished.rename(folder)
    sync(folder.parent)
    mark = {
        "step": step_of(folder),
        "finite": finite,
        "validation_loss": validation_loss,
        "sums": hashlib.sha256(sums.encode()).hexdigest(),
    }
    write_atomically(folder / _MARK, json.dumps(mark) + "\n")
    sync(folder)
    return folder


def purge(run: Path, keep: int) -> None:
    """Delete unfinished folders and all but the newest `keep` checkpoints, the best, and one that
    verifies and is finite."""
    whole = committed(run)
    marks = {folder: _mark(folder) for folder in whole}
    judged = [folder for folder in whole if isinstance(marks[folder].get("validation_loss"), float)]
    best = min(judged, key=lambda folder: marks[folder]["validation_loss"], default=None)
    old = [folder for folder in whole[:-keep] if folder != best]
    good = (
        next((f for f in reversed(whole) if marks[f].get("finite") is True and not faults(f)), None)
        if old
        else None
    )
    for folder in sorted((run / "checkpoints").glob("step-*")):
        if folder not in whole or (good is not None and folder in old and folder != good):
            _remove(folder)


def check_record(run: Path, record: Mapping[str, Any], allow_config_change: bool) -> None:
    """Refuse to resume a run under another model, other labels, or, unless accepted, other settings
    or data.

    Args:
        record: what model.json is to hold; its "model" (ModelConfig) and "method" must be the
            run's, the rest may be accepted as changed.
    Raises:
        ValueError: names the keys that differ, with both values.
    """
    records = [
        folder / "model.json" for folder in committed(run) if (folder / "model.json").is_file()
    ]
    if not records:
        return
    try:
        content = json.loads(records[-1].read_text())
    except ValueError:
        return  # damaged: `latest` will say so and fall back
    written = upgrade(content, str(records[-1]))
    fixed, free = (
        {key: value for key, value in record.items() if (key in ("model", "method")) == wanted}
        for wanted in (True, False)
    )
    different = differences(written, fixed)
    if different:
        raise ValueError(
            f"{records[-1].parent}: a checkpoint of another model or method: {'; '.join(different)}."
            f" Resume with {run / 'config.yaml'}, or name another folder with --out"
        )
    changed = differences(written, free)
    if changed and not allow_config_change:
        raise ValueError(
            f"{records[-1].parent}: a checkpoint of other settings or data: {'; '.join(changed)}."
            f" Resume with {run / 'config.yaml'}, add --allow_config_change, or name another folder with --out"
        )
    for change in changed:
        _log.warning("%s: resuming with an accepted change: %s", run, change)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """'key: run has x, now y' for every value that differs between nested mappings, over the keys
    of `new`."""
    found = []
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping):
            found += differences(
                before if isinstance(before, Mapping) else {}, value, f"{prefix}{key}."
            )
        elif before != value:
            found.append(f"{prefix}{key}: run has {before!r}, now {value!r}")
    return found


def _mark(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / _MARK).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _remove(folder: Path) -> None:
    """Unmark, then delete: a kill in between leaves nothing that looks whole."""
    (folder / _MARK).unlink(missing_ok=True)
    shutil.rmtree(folder)
