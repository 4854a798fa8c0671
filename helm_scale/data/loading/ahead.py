"""Computes the next results of a function in a thread, while the caller works with the last one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")

AHEAD = 2  # results that wait to be taken


def ahead(function: Callable[[A], R], arguments: Iterable[A]) -> Iterator[R]:
    """Yield function(argument) for every argument, in order; what it raises is raised in its turn.

    The thread starts with the first result that is asked for, and ends with the iteration.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        for argument in arguments:
            waiting.append(thread.submit(function, argument))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
