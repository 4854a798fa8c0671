"""Who is to blame when ranks stop answering: every rank says in the process group's store what it
is doing.

A thread of each rank looks at the time since the last word of its own. When it is too long, the
rank says that it is waiting; a rank that does not even say that is stopped or gone and is named,
with its last step and its samples. The thread then ends the process, whatever the collective
library does, and the launcher starts it again.
"""

import json
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from helm_scale.config import ExecutionConfig
from helm_scale.parallel.mesh import Processes

_log = logging.getLogger(__name__)
_COLLECTIVE = re.compile("gloo|nccl|Dist(Backend|Network|Store)?Error", re.IGNORECASE)
_GRACE = 3.0  # seconds in which ranks that wait for the same collective say so


class Watchdog:
    """One rank's watch.

    Args:
        processes: this rank among all; a single process has nobody to watch.
    """

    def __init__(self, processes: Processes, execution: ExecutionConfig) -> None:
        self._store, self._rank, self._world_size = (
            processes.store,
            processes.rank,
            processes.world_size,
        )
        self._limit, self._later = execution.start_timeout_seconds, execution.timeout_seconds
        self._last, self._stopped = time.monotonic(), threading.Event()

    def beat(self, step: int, phase: str, keys: Sequence[str] = ()) -> None:
        """Say what this rank does next.

        Args:
            phase: reading, computing, validating or saving. keys: this rank's samples.
        """
        self._last = time.monotonic()
        if self._store is not None:
            said = {
                "step": step,
                "phase": phase,
                "keys": list(keys)[:64],
                "host": socket.gethostname(),
                "pid": os.getpid(),
            }
            self._store.set(f"said/{self._rank}", json.dumps(said))

    def shorten(self) -> None:
        """The first step is over: from now on the shorter limit holds."""
        self._limit = self._later

    @contextmanager
    def running(self) -> Iterator["Watchdog"]:
        """Inside, the thread runs; an error on another rank is reported as that rank's.

        Raises:
            ConnectionError: this rank lost the others; names the rank that failed first and how.
        """
        if self._store is None:
            yield self
            return
        threading.Thread(target=self._run, daemon=True).start()
        try:
            yield self
        except Exception as error:
            if isinstance(error, RuntimeError) and _COLLECTIVE.search(
                f"{type(error).__name__} {error}"
            ):
                signal.signal(
                    signal.SIGTERM, signal.SIG_IGN
                )  # the launcher ends what is left of the ranks; first the report
                self._store.set(f"lost/{self._rank}", "1")
                raise ConnectionError(
                    self._blame(f"lost the other ranks ({str(error).splitlines()[0][:200]})")
                ) from error
            self._store.set(f"failed/{self._rank}", f"{type(error).__name__}: {error}")
            raise
        finally:
            self._stopped.set()

    def _run(self) -> None:
        assert self._store is not None
        while not self._stopped.wait(0.2):
            if time.monotonic() - self._last > self._limit:
                self._store.set(f"lost/{self._rank}", "1")
                _log.critical(self._blame(f"no progress for {self._limit:g} s"))
                logging.shutdown()
                os._exit(1)

    def _blame(self, what: str) -> str:
        """Who failed or does not answer, after a moment in which the others can say that they
        wait."""
        patience = time.monotonic() + _GRACE
        others = [rank for rank in range(self._world_size) if rank != self._rank]
        while time.monotonic() < patience and not all(
            self._get(f"failed/{r}") or self._get(f"lost/{r}") for r in others
        ):
            time.sleep(0.1)
        lines = []
        for rank in range(self._world_size):
            said = self._said(rank)
            where = f"rank {rank}" + (
                f" (host {said['host']}, pid {said['pid']}, step {said['step']}, {said['phase']})"
                if said
                else ""
            )
            failure = self._get(f"failed/{rank}")
            if failure:
                lines.append(f"{where} failed: {failure}")
            elif rank != self._rank and not self._get(f"lost/{rank}"):
                lines.append(
                    f"{where} does not answer; its samples: {', '.join(said['keys'] if said else []) or 'none'}"
                )
        blame = "; ".join(lines) or "every rank answers and waits: " + "; ".join(
            f"rank {r} {self._said(r)}" for r in range(self._world_size)
        )
        return f"rank {self._rank}: {what}; {blame}. Rerunning the same line resumes from the last checkpoint"

    def _said(self, rank: int) -> dict[str, Any]:
        return json.loads(self._get(f"said/{rank}") or "{}")  # type: ignore[no-any-return]

    def _get(self, key: str) -> str:
        try:
            assert self._store is not None
            return self._store.get(key).decode() if self._store.check([key]) else ""
        except RuntimeError:  # the store's own process is gone
            return ""
