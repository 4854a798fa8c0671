"""Lets the ranks of one start find each other, whatever earlier starts left in torchrun's store.

torchrun's store outlives the ranks: after a restart it still holds the addresses of ranks that are
gone, and between nodes nothing that torchrun tells a rank differs between the starts. So the ranks
name their start themselves. Rank 0 draws a name. Every other rank draws a number of its own and
asks for the name; only a rank 0 that lives can answer a number that was drawn just now. All keys of
the start then begin with its name.
"""

import json
import os
import time
import uuid
from datetime import timedelta

import torch.distributed as dist

from helm_scale.parallel.watchdog import Watchdog

_POLL_SECONDS = 0.02  # between two looks of rank 0 for questions


def meet(timeout: timedelta, watchdog: Watchdog) -> tuple[dist.Store, int, int]:
    """Meet the ranks that torchrun started together with this one; alone under plain python.

    Returns:
        a store that only these ranks share, rank, number of ranks.
    """
    if "RANK" not in os.environ:
        return dist.HashStore(), 0, 1
    watchdog.beat(0, "waiting for rank 0 to be started")
    store, rank, world_size = next(dist.rendezvous("env://", timeout=timeout))
    questions = dist.PrefixStore("helm_scale/questions", store)
    if rank == 0:
        return _receive(questions, store, world_size, watchdog), rank, world_size
    name = _ask(questions, rank, world_size)
    start = dist.PrefixStore(name, store)
    start.add("present", 1)
    return start, rank, world_size


def _receive(
    questions: dist.Store, store: dist.Store, world_size: int, watchdog: Watchdog
) -> dist.Store:
    """Name the start, and answer until all ranks have said that they know the name."""
    name = f"helm_scale/start-{uuid.uuid4().hex}"
    start = dist.PrefixStore(name, store)
    watchdog.join(start, 0, world_size)
    watchdog.beat(0, "waiting for the other ranks to be started")
    seen, unanswered = 0, set[int]()
    while start.add("present", 0) < world_size - 1:
        asked = questions.add("count", 0)
        unanswered |= set(range(seen + 1, asked + 1))
        seen = asked
        for number in sorted(unanswered):
            # counted first and written then: the text may come a moment later, or never
            if questions.check([f"question/{number}"]):
                _answer(questions, number, name, world_size)
                unanswered.discard(number)
        time.sleep(_POLL_SECONDS)
    return start


def _answer(questions: dist.Store, number: int, name: str, world_size: int) -> None:
    """Tell the name to a rank of this start; ranks of earlier starts, long gone, do no harm."""
    question = json.loads(questions.get(f"question/{number}"))
    if question["world_size"] == world_size:
        questions.set(f"answer/{question['drawn']}", name)


def _ask(questions: dist.Store, rank: int, world_size: int) -> str:
    """Ask rank 0 for the name of the start, and wait for the answer."""
    question = {"rank": rank, "world_size": world_size, "drawn": uuid.uuid4().hex}
    questions.set(f"question/{questions.add('count', 1)}", json.dumps(question))
    return questions.get(f"answer/{question['drawn']}").decode()
