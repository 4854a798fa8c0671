"""Lets a thread of every rank report to rank 0 and hear what rank 0 decided, without collectives.

Collectives belong to the main thread, whose order all ranks share. Reports go through the store, so
a checkpoint is sealed while training computes. Whoever waits looks again and again: a call that
waits inside the store would keep the watchdog from it.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from helm_scale.parallel.processes import Processes

_POLL_SECONDS = 0.02
_GRACE_SECONDS = 5.0  # for the other ranks, once this process is about to end
_NUMBERS = itertools.count()  # of the Reports that this process has made


class Reports:
    """Reports of all ranks, and decisions of rank 0, by name; each name is used once.

    All ranks make theirs in the same order, so a second run in one process has its own names.
    """

    def __init__(self, processes: Processes) -> None:
        self._rank, self._world_size = processes.rank, processes.world_size
        store = processes.store or dist.HashStore()
        self._store = dist.PrefixStore(f"reports/{next(_NUMBERS)}", store)

    def send(self, name: str, report: Any) -> None:
        """Say something that JSON can hold."""
        self._store.set(f"{name}/{self._rank}", json.dumps(report))
        self._store.add(f"{name}/count", 1)

    def collect(self, name: str) -> list[Any]:
        """On rank 0: what all ranks have sent, by rank; waits for them.

        Raises:
            TimeoutError: this process ends, and some have sent nothing; names them.
        """
        keys = [f"{name}/{rank}" for rank in range(self._world_size)]
        if not self._wait(lambda: self._store.add(f"{name}/count", 0) == self._world_size):
            silent = [str(rank) for rank, key in enumerate(keys) if not self._store.check([key])]
            raise TimeoutError(f"no word from rank {', '.join(silent)}")
        reports = [json.loads(self._store.get(key)) for key in keys]
        for key in keys:
            self._store.delete_key(key)
        return reports

    def decide(self, name: str, decision: str) -> None:
        """On rank 0: tell all ranks."""
        self._store.set(f"{name}/decision", decision or " ")  # the store takes no empty text

    def decision(self, name: str) -> str:
        """What rank 0 has decided; waits for it.

        Raises:
            TimeoutError: this process ends, and rank 0 has said nothing.
        """
        if not self._wait(lambda: self._store.check([f"{name}/decision"])):
            raise TimeoutError("no word from rank 0")
        return self._store.get(f"{name}/decision").decode().strip()

    def _wait(self, done: Callable[[], bool]) -> bool:
        """Whether it came to pass before the end of this process."""
        patience = _GRACE_SECONDS
        while not done():
            time.sleep(_POLL_SECONDS)
            # Where a rank is gone, the main thread fails, or the watchdog ends this process.
            if not threading.main_thread().is_alive():
                patience -= _POLL_SECONDS
            if patience <= 0:
                return False
        return True
