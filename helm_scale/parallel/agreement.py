"""Refuses to train where the ranks were not started alike.

Weights that are sharded hide it: another learning rate, seed or dataset on one rank would train to
the end, and the result would be wrong.
"""

import socket
from collections.abc import Mapping

from helm_scale.parallel import collectives


def check_same(rank: int, facts: Mapping[str, object]) -> None:
    """Compare what ranks know about the run with what rank 0 knows; called by all ranks.

    Args:
        facts: by name; must be equal on all ranks.
    Raises:
        ValueError: on every rank; names each rank that differs, its host, the names of what
            differs, and both values.
    """
    expected = collectives.from_rank_zero(rank, lambda: dict(facts))
    differences = [
        f"{name}: {facts.get(name)!r}, but {expected.get(name)!r} on rank 0"
        for name in dict.fromkeys([*expected, *facts])
        if facts.get(name) != expected.get(name)
    ]
    by_rank = collectives.gather((socket.gethostname(), differences) if differences else None)
    lines = [
        f"rank {number} (host {said[0]}) has {'; '.join(said[1])}"
        for number, said in enumerate(by_rank)
        if said
    ]
    if lines:
        raise ValueError(
            f"the ranks were not started alike: {'. '.join(lines)}."
            " Give every node the same files, versions and command line"
        )
