"""Decides when to doubt a step and when to stop: loss spikes, signals, the wall clock."""

import math
import os
import signal
import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_WINDOW = 64  # losses that are remembered
_FEWEST = 16  # losses before any is judged
_LEAST_SPREAD = 0.05  # of log(loss), so that a very quiet run does not cry wolf
_HEARD = b"\nCtrl-C: this step is finished and saved; once more stops at once, without saving\n"


class SpikeMonitor:
    """Finds losses that lie far above the last ones, by a robust z-score of log(loss).

    z = (log L - median) / (1.4826 * median absolute deviation); for normally distributed numbers
    the denominator is the standard deviation.

    Args:
        score: z from which a loss is a spike.
    """

    def __init__(self, score: float) -> None:
        self._score, self._logs = score, deque[float](maxlen=_WINDOW)

    def is_spike(self, loss: float) -> bool:
        """Whether a loss lies far above the last ones."""
        if len(self._logs) < _FEWEST or not loss > 0:
            return False
        # Median and deviation from it: one spike among the last losses does not move them.
        middle = statistics.median(self._logs)
        spread = 1.4826 * statistics.median(abs(value - middle) for value in self._logs)
        return (math.log(loss) - middle) / max(spread, _LEAST_SPREAD) > self._score

    @property
    def losses(self) -> list[float]:
        """The last losses, for `recall`."""
        return [math.exp(value) for value in self._logs]

    def recall(self, losses: Iterable[float]) -> None:
        """Go on from losses that were seen before a resumption."""
        for loss in losses:
            self.add(loss)

    def add(self, loss: float) -> None:
        """Remember the loss of a step that was taken."""
        if loss > 0 and math.isfinite(loss):
            self._logs.append(math.log(loss))


class StopRequest:
    """Whether this process should save and stop: SIGTERM, SIGUSR1, Ctrl-C, or the wall clock.

    A second Ctrl-C ends the process at once.

    Args:
        wall_clock_seconds: limit counted from the start of the process; 0 for none.
    """

    def __init__(self, wall_clock_seconds: float) -> None:
        self._limit, self._signal = wall_clock_seconds, 0

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Inside, the signals ask to stop instead of killing."""
        # SLURM sends SIGUSR1 where asked to warn before the time limit, SIGTERM before the kill
        before = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
        }
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def code(self) -> int:
        """0 to go on, the number of a signal, or -1 when time is up."""
        if self._signal:
            return self._signal
        return -1 if self._limit and _age() > self._limit else 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        # No more than this: a handler may interrupt a collective or a write.
        if number == signal.SIGINT:
            if self._signal == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGINT)  # dies of the signal, so that shells see it
            with suppress(OSError):
                os.write(2, _HEARD)
        self._signal = number


def reason(code: int) -> str:
    """A StopRequest's code in words."""
    return "wall clock" if code == -1 else signal.Signals(code).name


def _age() -> float:
    """Seconds since this process started, imports included, as a batch system counts them."""
    with open("/proc/self/stat") as file:
        # field 22, start time; the name of the program (field 2, in brackets) may hold spaces
        ticks = float(file.read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
