"""Writes checkpoints that survive a kill at any moment, and notices a flipped bit in them.

A checkpoint is a folder `checkpoints/step-00000100`. It is written as `step-00000100.tmp`, synced,
listed with SHA-256 in SHA256SUMS, renamed, and only then marked COMMITTED; what lacks the mark does
not exist. Older ones are deleted last, and never the best one nor the newest one that verifies and
holds finite weights. Reading verifies every file first, and falls back to the checkpoint before,
loudly, if one is damaged or not finite.

Other nodes may see a listing of a network disk late, so nothing hangs on one: the writers tell
which files there are, and the file NEWEST names the last checkpoint.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helm_scale.config import completed, upgrade
from helm_scale.files import Written, sha256, sync, write_atomically

_log = logging.getLogger(__name__)
_SUMS, _MARK, _NEWEST = "SHA256SUMS", "COMMITTED", "NEWEST"
GUARDS = "guards.json"  # what the guards of training remember
ARRIVAL_SECONDS = 20.0  # in which a file that was written elsewhere is to be seen here


def latest(run: Path | str, before: Path | None = None) -> Path | None:
    """The newest committed checkpoint of a run whose files all verify and are finite, or None.

    Each newer one that is damaged or not finite is named in the log.

    Args:
        before: only checkpoints that are older than this one.
    """
    for folder in reversed(committed(run)):
        if before is not None and step_of(folder) >= step_of(before):
            continue
        problems = damage(folder) or not_finite(folder)
        if not problems:
            return folder
        text = "; ".join(problems)
        _log.error("%s: not taken (%s); falling back to the checkpoint before", folder, text)
    return None


def committed(run: Path | str) -> list[Path]:
    """Committed checkpoints of a run, oldest first; nothing is verified."""
    folder = Path(run, "checkpoints")
    marked = {path.parent for path in folder.glob(f"step-????????/{_MARK}")}
    with contextlib.suppress(OSError):  # a listing may be late, a file that is opened is not
        newest = folder / Path(run, _NEWEST).read_text().strip()
        if (newest / _MARK).read_text():
            marked.add(newest)
    return sorted(marked)


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


def not_finite(folder: Path) -> list[str]:
    """Why a checkpoint's weights are of no use; empty if they are finite."""
    return ["its weights are not finite"] if _mark(folder).get("finite") is False else []


def guards(folder: Path) -> dict[str, Any]:
    """What the guards of training remembered when a checkpoint was saved; empty of older ones."""
    try:
        return dict(json.loads((folder / GUARDS).read_text()))
    except FileNotFoundError:
        return {}


def begin(run: Path, step: int) -> Path:
    """Make an empty folder to write into; `commit` turns it into a checkpoint."""
    folder = run / "checkpoints" / f"step-{step:08d}.tmp"
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run has left there
    folder.mkdir(parents=True)
    return folder


def expect(folder: Path, files: Mapping[str, Written]) -> None:
    """Wait until all files are to be seen here with their sizes; a network disk may be late.

    Raises:
        FileNotFoundError: some are not; names them.
    """
    end = time.monotonic() + ARRIVAL_SECONDS
    absent = dict(files)
    while True:
        absent = {name: file for name, file in absent.items() if _size(folder / name) != file.size}
        if not absent:
            return
        if time.monotonic() > end:
            raise FileNotFoundError(
                f"{folder}: files written by other ranks are not to be seen here, or not whole:"
                f" {', '.join(sorted(absent))}; the run folder must lie on a disk that all nodes"
                " share"
            )
        time.sleep(0.1)


def commit(
    unfinished: Path,
    files: Mapping[str, Written],
    *,
    finite: bool,
    validation_loss: float | None = None,
) -> Path:
    """Make a folder from `begin` a checkpoint: list, sync, rename, mark.

    One process calls it once all have written and synced their files.

    Args:
        files: by path, as they were written.
        finite: whether the weights are finite; `purge` keeps a finite checkpoint.
        validation_loss: `purge` keeps the lowest.
    Returns:
        the committed checkpoint; a damaged or unmarked one of the same step is replaced.
    Raises:
        OSError: the disk is full or cannot be written, or a file is missing.
    """
    expect(unfinished, files)
    sums = "".join(f"{files[name].sha256}  {name}\n" for name in sorted(files))
    (unfinished / _SUMS).write_text(sums)
    # Contents must be on disk before the name that promises them, and the name before the mark:
    # after a power cut a file system may keep a rename and lose what was written before it.
    folders = {(unfinished / name).parent for name in files}
    for path in [unfinished / _SUMS, *sorted(folders), unfinished]:
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
    write_atomically(folder.parent.parent / _NEWEST, folder.name + "\n")
    return folder


def purge(run: Path, keep: int) -> None:
    """Delete unfinished folders and old checkpoints.

    The newest `keep`, the best, and the newest that verifies and is finite stay.
    """
    checkpoints = committed(run)
    marks = {folder: _mark(folder) for folder in checkpoints}
    losses = {folder: marks[folder].get("validation_loss") for folder in checkpoints}
    validated = [f for f, loss in losses.items() if isinstance(loss, float) and math.isfinite(loss)]
    best = min(validated, key=lambda folder: losses[folder] or 0.0, default=None)
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
    # how a step is divided follows the number of ranks and changes the order of sums alone
    free["training"] = {k: v for k, v in free["training"].items() if k != "micro_batches"}
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


def _size(path: Path) -> int:
    """Bytes of a file; -1 if it is not there."""
    try:
        with path.open("rb") as file:  # a network disk looks anew at what is opened
            return os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return -1


def _mark(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / _MARK).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _remove(folder: Path) -> None:
    """Unmark, then delete: a kill in between leaves nothing that looks whole."""
    (folder / _MARK).unlink(missing_ok=True)
    shutil.rmtree(folder)
