"""Writes checkpoints that survive a kill at any moment, and notices a flipped bit in them.

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

from helm_scale.config import completed, upgrade
from helm_scale.files import sha256, sync, write_atomically

_log = logging.getLogger(__name__)
_SUMS, _MARK = "SHA256SUMS", "COMMITTED"


def latest(run: Path | str) -> Path | None:
    """The newest committed checkpoint of a run whose files all verify, or None.

    Each newer one that is damaged is named in the log.
    """
    for folder in reversed(committed(run)):
        problems = damage(folder)
        if not problems:
            return folder
        text = "; ".join(problems)
        _log.error("%s: damaged (%s); falling back to the checkpoint before", folder, text)
    return None


def committed(run: Path | str) -> list[Path]:
    """Committed checkpoints of a run, oldest first; nothing is verified."""
    return sorted(path.parent for path in Path(run, "checkpoints").glob(f"step-????????/{_MARK}"))


def step_of(folder: Path) -> int:
    """Optimiser steps that a checkpoint has behind it."""
    return int(folder.name.removeprefix("step-"))


def damage(folder: Path) -> list[str]:
    """What is wrong with a committed checkpoint's files, by name; empty if all is well."""
    try:
        sums = (folder / _SUMS).read_text()
        mark = json.loads((folder / _MARK).read_text())
    except (OSError, ValueError) as error:
        return [f"{_SUMS} or {_MARK} cannot be read: {error}"]
    if mark.get("sums") != hashlib.sha256(sums.encode()).hexdigest():
        return [f"{_SUMS}: SHA-256 differs from the one in {_MARK}"]
    problems = []
    for line in sums.splitlines():
        digest, _, name = line.partition("  ")  # as sha256sum writes it
        if not (folder / name).is_file():
            problems.append(f"{name}: missing")
        elif sha256(folder / name) != digest:
            problems.append(f"{name}: SHA-256 differs from {_SUMS}")
    return problems


def begin(run: Path, step: int) -> Path:
    """Make an empty folder to write into; `commit` turns it into a checkpoint."""
    folder = run / "checkpoints" / f"step-{step:08d}.tmp"
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run has left there
    folder.mkdir(parents=True)
    return folder


def commit(
    unfinished: Path,
    *,
    finite: bool,
    hashes: Mapping[str, str] | None = None,
    validation_loss: float | None = None,
) -> Path:
    """Make a folder from `begin` a checkpoint: hash, sync, rename, mark.

    One process calls it once all have written.

    Args:
        finite: whether the weights are finite; `purge` keeps a finite checkpoint.
        hashes: SHA-256 by path of files that were hashed as they were written; the others are read.
        validation_loss: `purge` keeps the lowest.
    Returns:
        the committed checkpoint; a damaged or unmarked one of the same step is replaced.
    Raises:
        OSError: the disk is full or cannot be written, or a file is missing.
    """
    sums = _sums(unfinished, hashes or {})
    (unfinished / _SUMS).write_text(sums)
    # Contents must be on disk before the name that promises them, and the name before the mark:
    # after a power cut a file system may keep a rename and lose what was written before it.
    for path in [*unfinished.rglob("*"), unfinished]:
        sync(path)
    folder = unfinished.with_suffix("")
    if folder.exists():
        _remove(folder)
    unfinished.rename(folder)  # within one folder, so that it is atomic
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
    """Delete unfinished folders and old checkpoints.

    The newest `keep`, the best, and the newest that verifies and is finite stay.
    """
    checkpoints = committed(run)
    marks = {folder: _mark(folder) for folder in checkpoints}
    validated = [f for f in checkpoints if isinstance(marks[f].get("validation_loss"), float)]
    best = min(validated, key=lambda folder: marks[folder]["validation_loss"], default=None)
    old = [folder for folder in checkpoints[:-keep] if folder != best]
    good = None
    if old:  # only then is it worth reading whole checkpoints
        finite = (f for f in reversed(checkpoints) if marks[f].get("finite") is True)
        good = next((folder for folder in finite if not damage(folder)), None)
    for folder in sorted((run / "checkpoints").glob("step-*")):
        # where none is good, nothing old goes: one of them may be of more use than the newest
        if folder not in checkpoints or (good is not None and folder in old and folder != good):
            _remove(folder)


def check_record(run: Path, record: Mapping[str, Any], allow_config_change: bool) -> None:
    """Refuse to resume a run under another model or other labels, settings or data.

    Settings and data may differ where the user allows it; each difference is then logged.

    Args:
        record: what model.json is to hold; its "model" (ModelConfig) and "method" must be the
            run's, the rest may be allowed to change.
    Raises:
        ValueError: names the keys that differ, with both values.
    """
    paths = [path for folder in committed(run) if (path := folder / "model.json").is_file()]
    if not paths:
        return
    try:
        content = json.loads(paths[-1].read_text())
    except ValueError:
        return  # damaged: `latest` will say so and fall back
    written, folder = completed(upgrade(content, str(paths[-1]))), paths[-1].parent
    fixed = {key: record[key] for key in record if key in ("model", "method")}
    free = {key: record[key] for key in record if key not in fixed}
    resume = f"Resume with {run / 'config.yaml'}"
    different = differences(written, fixed)
    if different:
        raise ValueError(
            f"{folder}: a checkpoint of another model or method: {'; '.join(different)}."
            f" {resume}, or name another folder with --out"
        )
    changed = differences(written, free)
    if changed and not allow_config_change:
        raise ValueError(
            f"{folder}: a checkpoint of other settings or data: {'; '.join(changed)}."
            f" {resume}, add --allow_config_change, or name another folder with --out"
        )
    for change in changed:
        _log.warning("%s: resuming with an accepted change: %s", run, change)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """'key: run has x, now y' for every value of `new` that differs in `old`; both nested."""
    lines = []
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping):
            section = before if isinstance(before, Mapping) else {}
            lines += differences(section, value, f"{prefix}{key}.")
        elif before != value:
            lines.append(f"{prefix}{key}: run has {before!r}, now {value!r}")
    return lines


def _sums(folder: Path, hashes: Mapping[str, str]) -> str:
    """SHA256SUMS of all files of a folder; those without a known hash are read."""
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    unseen = sorted(set(hashes) - set(files))
    if unseen:
        raise FileNotFoundError(
            f"{folder}: files written by other ranks are not to be seen here: {', '.join(unseen)};"
            " the run folder must lie on a disk that all nodes share"
        )
    return "".join(f"{hashes.get(name) or sha256(path)}  {name}\n" for name, path in files.items())


def _mark(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / _MARK).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _remove(folder: Path) -> None:
    """Unmark, then delete: a kill in between leaves nothing that looks whole."""
    (folder / _MARK).unlink(missing_ok=True)
    shutil.rmtree(folder)
