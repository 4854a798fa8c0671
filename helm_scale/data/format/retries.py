"""Tries again, after growing pauses, what a network may have spoilt."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds before each further attempt
DAMAGED = 2  # further attempts where something arrived, but not what was wanted
_chance = random.Random()  # of its own: the order of the samples hangs on no global state


def patiently(fetch: Callable[[], T]) -> T:
    """Fetch something, again where it cannot be reached or arrives damaged.

    Args:
        fetch: raises ConnectionError where it reaches nothing, ValueError where what arrives is not
            what was wanted.
    Raises:
        ConnectionError, ValueError: the last of them, when all attempts are used up.
    """
    damaged = 0
    for pause in PAUSES:
        try:
            return fetch()
        except (ConnectionError, ValueError) as error:
            damaged += isinstance(error, ValueError)
            if damaged > DAMAGED:
                raise
            _log.warning("%s; once more in %.0f s", error, pause)
        # at random, so that the ranks of many nodes do not come back at the same moment
        time.sleep(pause * _chance.uniform(0.5, 1.5))
    return fetch()
