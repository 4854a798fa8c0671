"""Runs PySCF jobs in parallel single-threaded processes, with a progress bar."""

import contextlib
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
    endless stream of large matrices is never held at once.

    Raises:
        ChildProcessError: a process died. Whatever the function raises is raised here, too.
    """
    # Spawned: a forked child would inherit OpenMP's threads, CUDA and locks in an unusable state.
    context = multiprocessing.get_context("spawn")
    stream = enumerate(jobs)
    with (
        _single_threaded_children(),
        ProcessPoolExecutor(processes, mp_context=context, initializer=_leave_with_parent) as pool,
        tqdm(total=total, desc=label, unit=unit, dynamic_ncols=True) as bar,
    ):
        running: dict[Future[ResultT], int] = {}
        while True:
            while len(running) < 2 * processes and (following := next(stream, None)) is not None:
                running[pool.submit(function, following[1])] = following[0]
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                bar.update()
                yield running.pop(future), _result(future)


def _result(future: Future[ResultT]) -> ResultT:
    try:
        return future.result()
    except BrokenProcessPool:
        raise ChildProcessError(
            "a PySCF process died, most often for want of memory; what was written is kept: run"
            " again with fewer processes"
        ) from None
