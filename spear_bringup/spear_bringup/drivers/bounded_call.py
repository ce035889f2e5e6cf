"""Calls into libraries that may block for minutes, with a bound on how long we wait for them."""

import threading
from collections.abc import Callable
from typing import Any


def call_within(timeout_s: float, function: Callable[[], Any], name: str) -> Any:
    """What `function()` returns or raises, if it does so within `timeout_s` of steady time.

    A call that comes back later is dropped with its result, so that a connection which opens too
    late is closed again by its own destructor.

    Raises:
        TimeoutError: no answer in time; the call goes on in a daemon thread.
    """
    outcome: list[tuple[Any, BaseException | None]] = []
    waiting = threading.Lock()
    done = threading.Event()
    abandoned = threading.Event()

    def work():
        try:
            result, error = function(), None
        except BaseException as raised:  # handed to the caller
            result, error = None, raised
        with waiting:
            if not abandoned.is_set():
                outcome.append((result, error))
        done.set()

    threading.Thread(target=work, name=name, daemon=True).start()
    done.wait(timeout_s)
    with waiting:
        abandoned.set()
    if not outcome:
        raise TimeoutError(f"{name}: no answer within {timeout_s:g} s")
    result, error = outcome.pop()
    if error is not None:
        raise error
    return result
