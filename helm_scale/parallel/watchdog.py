"""Ends a run whose ranks stop answering, and names the rank that is to blame.

Every rank says in the common store what it does.

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

import torch.distributed as dist

from helm_scale.config import ExecutionConfig
from helm_scale.parallel import strategies

_log = logging.getLogger(__name__)
# Names and words of errors by which torch tells that another rank is gone.
_COLLECTIVE = re.compile("gloo|nccl|Dist(Backend|Network|Store)?Error", re.IGNORECASE)
_GRACE_SECONDS = 3.0  # in which ranks that wait for the same collective say so
_NAMED_SAMPLES = 64  # at most, so that the store stays small


class Watchdog:
    """One rank's watchdog. It watches before the ranks have met, and knows the others from then on.

    An engine of one process has nobody to watch.
    """

    def __init__(self, execution: ExecutionConfig) -> None:
        self._execution, self._limit = execution, execution.start_timeout_seconds
        self._store: dist.Store | None = None
        self._rank, self._world_size = int(os.environ.get("RANK", "0")), 1
        self._phase, self._last, self._stopped = "starting", time.monotonic(), threading.Event()

    def join(self, store: dist.Store, rank: int, world_size: int) -> None:
        """From now on this rank speaks to the others, through a store of this start alone."""
        self._rank, self._world_size = rank, world_size
        self._store = dist.PrefixStore("watchdog", store)
        self.beat(0, "joining")

    def beat(self, step: int, phase: str, keys: Sequence[str] = ()) -> None:
        """Say what this rank does next.

        Args:
            phase: joining, reading, computing, validating or saving.
            keys: this rank's samples.
        """
        self._last, self._phase = time.monotonic(), phase
        if self._store is None:
            return
        said = {
            "step": step,
            "phase": phase,
            "keys": list(keys)[:_NAMED_SAMPLES],
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        self._store.set(f"said/{self._rank}", json.dumps(said))

    def shorten(self) -> None:
        """The first step is over: from now on the shorter limit holds."""
        self._limit = self._execution.timeout_seconds

    @contextmanager
    def running(self) -> Iterator["Watchdog"]:
        """Inside, the thread runs; an error on another rank is reported as that rank's.

        Raises:
            ConnectionError: this rank lost the others; names the rank that failed first and how.
        """
        if not strategies.spec_of(self._execution.engine).distributed:
            yield self
            return
        # A daemon: a thread that waits must not keep a finished program alive.
        threading.Thread(target=self._run, daemon=True).start()
        try:
            yield self
        except Exception as error:
            said = f"{type(error).__name__} {error}"
            if isinstance(error, RuntimeError) and _COLLECTIVE.search(said):
                # The launcher now ends what is left of the ranks; the report comes first.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                reason = str(error).splitlines()[0][:200]
                raise ConnectionError(self._lost(f"lost the other ranks ({reason})")) from error
            if self._store is not None:
                self._store.set(f"failed/{self._rank}", f"{type(error).__name__}: {error}")
            raise
        finally:
            self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(0.2):
            if time.monotonic() - self._last > self._limit:
                _log.critical(self._lost(f"no progress for {self._limit:g} s"))
                logging.shutdown()
                os._exit(1)  # sys.exit would wait for the main thread, which hangs

    def _lost(self, what: str) -> str:
        """Tell the others that this rank is not the one to blame; who is, as a message."""
        if self._store is None:
            return (
                f"rank {self._rank}: {what} while {self._phase}: the ranks have not met."
                " Look whether every node was started and reaches the first one"
            )
        self._store.set(f"lost/{self._rank}", "1")
        return self._blame(what)

    def _blame(self, what: str) -> str:
        """Who failed or does not answer, after a moment in which the others can say they wait."""
        self._wait_for_others()
        ranks = range(self._world_size)
        lines = [line for rank in ranks if (line := self._fault_of(rank))]
        if not lines:
            said = "; ".join(f"rank {rank} {self._said(rank)}" for rank in ranks)
            lines = [f"every rank answers and waits: {said}"]
        return (
            f"rank {self._rank}: {what}; {'; '.join(lines)}."
            " Rerunning the same line resumes from the last checkpoint"
        )

    def _wait_for_others(self) -> None:
        patience = time.monotonic() + _GRACE_SECONDS
        others = [rank for rank in range(self._world_size) if rank != self._rank]
        while time.monotonic() < patience and not all(
            self._get(f"failed/{rank}") or self._get(f"lost/{rank}") for rank in others
        ):
            time.sleep(0.1)

    def _fault_of(self, rank: int) -> str:
        """How a rank failed, or that it does not answer; empty if neither."""
        said, failure = self._said(rank), self._get(f"failed/{rank}")
        where = f"rank {rank}"
        if said:
            where += (
                f" (host {said['host']}, pid {said['pid']}, step {said['step']}, {said['phase']})"
            )
        if failure:
            return f"{where} failed: {failure}"
        if rank == self._rank or self._get(f"lost/{rank}"):
            return ""
        samples = ", ".join(said.get("keys", ())) or "none"
        return f"{where} does not answer; its samples: {samples}"

    def _said(self, rank: int) -> dict[str, Any]:
        return json.loads(self._get(f"said/{rank}") or "{}")

    def _get(self, key: str) -> str:
        try:
            assert self._store is not None
            return self._store.get(key).decode() if self._store.check([key]) else ""
        except RuntimeError:  # the store's own process is gone
            return ""
