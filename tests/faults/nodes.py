"""Several nodes on this machine, each an agent of torchrun, of which some are killed.

The ranks of a node go with it: torchrun gives them sessions of their own, so the whole family of
processes is killed.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.pretraining import launching


class Nodes:
    """Agents on the loopback.

    Args:
        range_of_nodes: as torchrun's --nnodes. flags: of launch/pretrain.py.
        logs: folder for what each node says.
    """

    def __init__(
        self, range_of_nodes: str, count: int, *, flags: Sequence[str], logs: Path
    ) -> None:
        self._logs, port = logs, free_port()
        logs.mkdir(parents=True, exist_ok=True)
        conf = "join_timeout=120,last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=3"
        self._agents = []
        for number in range(count):
            options = [
                f"--nnodes={range_of_nodes}", "--nproc-per-node=1", "--max-restarts=3",
                "--monitor-interval=0.1", "--rdzv-backend=c10d", "--rdzv-id=nodes",
                f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1",
                f"--rdzv-conf=is_host={int(number == 0)},{conf}",
            ]  # fmt: skip
            with (logs / f"node-{number}").open("w") as log:
                self._agents.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "torch.distributed.run", *options]
                        + ["launch/pretrain.py", *flags],
                        cwd=launching.ROOT,
                        env=launching.environment() | {"GLOO_SOCKET_IFNAME": "lo"},
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )

    def kill(self, number: int) -> None:
        """SIGKILL a node: its ranks and its agent."""
        agent = self._agents[number]
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
        family = [agent.pid]
        with contextlib.suppress(FileNotFoundError):
            family += map(int, children.read_text().split())
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        agent.wait()

    def wait_for_step(self, run: Path, step: int, seconds: float = 120) -> None:
        """Return once the run has taken so many steps."""
        end = time.monotonic() + seconds
        while len(launching.lines(run)) < step:
            assert time.monotonic() < end, f"no step {step} in {seconds} s:\n{self.said()}"
            time.sleep(0.05)

    def finish(self, seconds: float = 180) -> list[int | None]:
        """Exit codes; None of a node that still ran after so many seconds, and was killed."""
        codes: list[int | None] = []
        end = time.monotonic() + seconds
        for number, agent in enumerate(self._agents):
            try:
                codes.append(agent.wait(timeout=max(0.1, end - time.monotonic())))
            except subprocess.TimeoutExpired:
                self.kill(number)
                codes.append(None)
        return codes

    def said(self) -> str:
        """What all nodes said."""
        return "\n".join(path.read_text() for path in sorted(self._logs.iterdir()))


def free_port() -> int:
    """A port that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
