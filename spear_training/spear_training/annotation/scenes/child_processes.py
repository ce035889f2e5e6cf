"""Processes that end with their parent and leave Ctrl-C to it, and several commands at once."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

_LOOK_EVERY_S = 0.1


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Hold Ctrl-C back, here and in processes that are started meanwhile until `obey_parent`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_parent(on_interrupt: Callable | signal.Handlers = signal.SIG_IGN) -> None:
    """Make this process, one that `multiprocessing` has started, end when its parent does.

    Ctrl-C reaches all processes of a terminal; from now on it is the parent's alone, which tells
    its children what to do.

    Args:
        on_interrupt: what to do when the parent interrupts this process.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, on_interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def defaults_of_environment(values: dict[str, str]) -> Iterator[None]:
    """Give processes that are started meanwhile these variables, but for those the user has set."""
    missing = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in missing})
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def side_by_side(command: Callable[[list[str]], int], calls: Sequence[list[str]], jobs: int) -> int:
    """Run a command of ours with several lists of words, in processes of their own.

    After one that fails no other is begun. Ctrl-C interrupts each of them once and waits.

    Args:
        command: takes words and returns an exit status; importable by its name.
        calls: the words.
        jobs: how many may run at once.

    Returns:
        The worst exit status: the largest, 2 for one that was killed.

    Raises:
        KeyboardInterrupt: all of them have ended.
    """
    # A forked process would share OpenGL, threads and locks.
    context = multiprocessing.get_context("spawn")
    waiting, running, worst = list(calls), [], 0
    try:
        while running or (waiting and worst <= 1):
            while waiting and worst <= 1 and len(running) < jobs:
                process = context.Process(target=_call, args=(command, waiting.pop(0)))
                with ctrl_c_waits():
                    process.start()
                    running.append(process)
            time.sleep(_LOOK_EVERY_S)
            for process in [one for one in running if not one.is_alive()]:
                running.remove(process)
                worst = max(worst, process.exitcode if process.exitcode >= 0 else 2)
    except BaseException:
        for process in running:
            if process.is_alive():
                os.kill(process.pid, signal.SIGINT)
        for process in running:
            process.join()
        raise
    return worst


def _call(command: Callable[[list[str]], int], words: list[str]) -> None:
    try:
        obey_parent(signal.default_int_handler)
        status = command(words)
    except KeyboardInterrupt:
        status = 130
    raise SystemExit(status)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
