"""Processes that share the work: they end with their parent and leave Ctrl-C to it.

Each is a fresh Python (`spawn`): a forked process would share OpenGL, threads and locks. A Ctrl-C
of a terminal reaches all its processes; here it is the parent's alone, which stops the others.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import MappingProxyType

# Read by the thread pools of numpy, torch and others when they are imported.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@contextmanager
def process_pool(
    workers: int,
    initializer: Callable[..., None] | None = None,
    initargs: tuple = (),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of processes with one thread each.

    When the block ends by an error or Ctrl-C, nothing more is begun and the processes are stopped
    at once; otherwise they finish what was submitted. One that is killed makes the pool raise
    `concurrent.futures.process.BrokenProcessPool`.

    Args:
        workers: how many processes.
        initializer: called in each of them first; importable by its name.
        initargs: its arguments; they are pickled.
        environment: further variables that they get, but for those the user has set.
    """
    with signals_blocked(signal.SIGINT), _default_environment({**ONE_THREAD, **environment}):
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, _initialise, (initializer, initargs))
        # A pool starts a process when work comes and none is idle: start all of them now, while
        # Ctrl-C is blocked, which they inherit.
        for _ in range(workers):
            pool.submit(os.getpid)
    try:
        yield pool
    except BaseException:
        stop_pool(pool)
        raise
    pool.shutdown()


@contextmanager
def signals_blocked(*numbers: int) -> Iterator[None]:
    """Start processes that these signals do not reach: they inherit what is blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        # Its own process is started with the first one, which takes the block away.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop_pool(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool now, whatever they are at, and wait for them."""
    processes = list((pool._processes or {}).values())
    for process in processes:
        process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)
    for process in processes:
        process.join()


def _initialise(initializer: Callable[..., None] | None, initargs: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    use_one_thread()
    if initializer is not None:
        initializer(*initargs)


def end_with_parent() -> None:
    """Make this process, which multiprocessing has started, end when its parent does.

    An orphan would write into the files of the next run.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def ignore_termination_by_others() -> None:
    """End this process, which was started with SIGTERM blocked, when its parent sends it one.

    A batch system sends it to all processes of a job, of which the parent may need this one still.
    """
    threading.Thread(target=_wait_for_termination, daemon=True).start()


def use_one_thread() -> None:
    """Keep the libraries that are loaded from starting a thread for every core."""
    # Import none of them for that: a process may never need it.
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    if cv2 := sys.modules.get("cv2"):
        cv2.setNumThreads(1)
    if pyarrow := sys.modules.get("pyarrow"):
        pyarrow.set_cpu_count(1)


def _wait_for_termination() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(1)


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _default_environment(values: dict[str, str]) -> Iterator[None]:
    """Give processes that start meanwhile these variables, but for those the user has set."""
    missing = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in missing})
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
