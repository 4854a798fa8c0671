"""Ranks of one start meet in a store that ranks of earlier starts have left their keys in."""

import json
import threading
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from helm_scale.config import ExecutionConfig
from helm_scale.parallel import agreement, rendezvous
from helm_scale.parallel.watchdog import Watchdog
from tests.faults.nodes import free_port

SECONDS = timedelta(seconds=60)


def met(rank: int, port: int, folder: Path) -> None:
    """One rank of a start: what it finds in the store, and whether all ranks were started alike."""
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=SECONDS)
    rendezvous.dist.rendezvous = lambda *_, **__: iter([(store, rank, 2)])  # type: ignore
    rendezvous.os.environ["RANK"] = str(rank)
    shared, *_ = rendezvous.meet(SECONDS, Watchdog(ExecutionConfig(engine="ddp")))
    dist.init_process_group("gloo", store=shared, rank=rank, world_size=2, timeout=SECONDS)
    said = {"stale": shared.check(["stale"])}
    try:
        agreement.check_same(rank, {"seed": 0, "rate": 0.1 * (1 + rank)})
    except ValueError as error:
        said["error"] = str(error)
    agreement.check_same(rank, {"seed": 0})
    shared.set("stale", "left behind")  # as a rank that dies would
    (folder / f"{rank}.json").write_text(json.dumps(said))
    dist.barrier()
    dist.destroy_process_group()


def leave_behind(store: dist.Store) -> None:
    """What ranks of earlier starts left: a question that nobody answered, one never written."""
    questions = dist.PrefixStore("helm_scale/questions", store)
    questions.add("count", 1)
    questions.set("question/1", json.dumps({"rank": 1, "world_size": 2, "drawn": "long-gone"}))
    questions.add("count", 1)


@pytest.mark.slow
def test_ranks_meet_again_and_again_in_one_store_and_find_nothing_of_earlier_starts(
    tmp_path: Path,
) -> None:
    port = free_port()
    store = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    leave_behind(store)
    for _ in range(2):
        mp.spawn(met, (port, tmp_path), nprocs=2)
        for rank in (0, 1):
            said = json.loads((tmp_path / f"{rank}.json").read_text())
            assert not said["stale"]
            assert "rank 1 (host " in said["error"]
            assert "has rate: 0.2, but 0.1 on rank 0" in said["error"]
            assert "seed" not in said["error"]


def test_a_rank_that_waits_alone_ends_itself_and_says_what_it_waits_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, codes = threading.Event(), list[int]()
    monkeypatch.setattr("os._exit", lambda code: (codes.append(code), over.set()))
    monkeypatch.setattr("logging.shutdown", lambda: None)
    watchdog = Watchdog(ExecutionConfig(engine="ddp", start_timeout_seconds=0.3))
    with watchdog.running():
        watchdog.beat(0, "waiting for rank 0 to be started")
        assert over.wait(30)
    assert codes[0] == 1
    assert "no progress for 0.3 s while waiting for rank 0 to be started" in caplog.text
