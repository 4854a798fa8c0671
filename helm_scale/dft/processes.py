"""Runs PySCF jobs in parallel single-threaded processes, with a progress bar."""

import contextlib
import itertools
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
_log = logging.getLogger(__name__)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextlib.contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Give processes started inside one thread each; restore this process's environment after."""
    # OpenMP reads the variables once, when a process loads it: children inherit them at the start.
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _leave_with_parent() -> None:
    """End this process when its parent is gone: otherwise it would wait for jobs for ever."""
    # os._exit, because sys.exit in a thread ends that thread only.
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_and_leave() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_leave, daemon=True).start()


def run_parallel(
    function: Callable[[JobT], ResultT],
    jobs: Iterable[JobT],
    processes: int,
    total: int,
    label: str,
    unit: str = "molecule",
) -> Iterator[tuple[int, ResultT]]:
    """Yield (number of the job, function(job)) in order of completion.

    Jobs are drawn from the iterable only as processes come free (two per process), so that an
    endless stream of large matrices is never held at once. What a process had in hand when it died
    is done again, in half as many processes: most often it wanted memory.

    Raises:
        ChildProcessError: the only process that was left died. Whatever the function raises is
            raised here, too.
    """
    stream: Iterator[tuple[int, JobT]] = enumerate(jobs)
    with (
        _single_threaded_children(),
        tqdm(total=total, desc=label, unit=unit, dynamic_ncols=True) as bar,
    ):
        while True:
            lost: list[tuple[int, JobT]] = []
            for result in _until_a_process_dies(function, stream, processes, lost):
                bar.update()
                yield result
            if not lost:
                return
            if processes == 1:
                raise ChildProcessError(
                    "a PySCF process died, and no other ran beside it, most often for want of"
                    " memory; what was written is kept: run again on a machine with more, or"
                    " without the largest molecules"
                )
            processes //= 2
            _log.warning(
                "a PySCF process died, most often for want of memory: what it had in hand is done"
                " again, with %d at once from here on",
                processes,
            )
            stream = itertools.chain(lost, stream)


def _until_a_process_dies(
    function: Callable[[JobT], ResultT],
    stream: Iterator[tuple[int, JobT]],
    processes: int,
    lost: list[tuple[int, JobT]],
) -> Iterator[tuple[int, ResultT]]:
    """Yield results; what was in the hands of a pool of which a process died goes into `lost`."""
    # Spawned: a forked child would inherit OpenMP's threads, CUDA and locks in an unusable state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_leave_with_parent) as pool:
        running: dict[Future[ResultT], tuple[int, JobT]] = {}
        while True:
            while not lost and len(running) < 2 * processes:
                if (following := next(stream, None)) is None:
                    break
                try:
                    running[pool.submit(function, following[1])] = following
                except BrokenProcessPool:
                    lost.append(following)
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    lost.append(job)
                else:
                    yield job[0], future.result()
