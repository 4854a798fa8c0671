"""One run per folder: two would overwrite each other's checkpoints and metrics.

The lock is the operating system's (flock): it ends with the process that holds it, however that
ends, so no stale lock is left. The file says who holds it.
"""

import contextlib
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from helm_scale.parallel import collectives

NAME = "run.lock"
# Seconds to wait for the ranks of an earlier life, which launchers kill 30 s after they ask.
PATIENCE = 45.0

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(folder: Path | str, rank: int) -> Iterator[None]:
    """Rank 0 holds the lock of a run folder for all ranks while the block runs.

    Where the file system knows no locks, a warning says so and the run goes on.

    Raises:
        ValueError: on every rank: another run holds it; names host, process and start.
    """
    with contextlib.ExitStack() as until_end:
        collectives.from_rank_zero(rank, lambda: until_end.enter_context(_locked(Path(folder))))
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    with contextlib.ExitStack() as until_end:
        while True:
            file = until_end.enter_context(path.open("a+"))  # closing it gives the lock back
            if not _taken(file, folder):
                break
            # An owner that ended meanwhile took its file away: that lock holds nobody off
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                until_end.callback(path.unlink, missing_ok=True)
                with contextlib.suppress(OSError):  # a full disk ends no run
                    file.truncate(0)
                    file.write(json.dumps(_ourselves()) + "\n")
                    file.flush()
                break
        yield


def _taken(file: TextIO, folder: Path) -> bool:
    """Lock the file; false where the file system knows no locks."""
    end, said = time.monotonic() + PATIENCE, False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            owner = _owner(file)
        except OSError as error:
            _log.warning(
                "%s: this file system gives no locks (%s); let no second run write here",
                folder,
                error.strerror,
            )
            return False
        if time.monotonic() >= end:
            raise ValueError(
                f"out: {folder} is in use by {owner}; wait for that run to end, stop it, or set"
                " out to another folder"
            )
        if not said:
            _log.warning("%s is in use by %s; waiting %.0f s for it", folder, owner, PATIENCE)
            said = True
        time.sleep(0.2)


def _ourselves() -> dict[str, str | int]:
    start = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return {"host": socket.gethostname(), "process": os.getpid(), "start": start}


def _owner(file: TextIO) -> str:
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:  # its owner is about to write it
        return "another run"
    return "process {process} on {host}, started {start}".format(**found)
