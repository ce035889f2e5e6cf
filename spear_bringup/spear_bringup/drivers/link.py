"""A connection that closes when its last reference goes, and the one place that holds it."""

import threading


class Link:
    """Holds a library's connection object; `drop` closes it.

    A robot takes no second client while the first object lives, and an exception keeps the local
    variables of every frame it went through alive, for as long as anyone keeps the exception. So
    functions pass the link on and write `link.end.call()`, never `end = link.end`.
    """

    __slots__ = ("end",)

    def __init__(self, end):
        self.end = end

    def drop(self, wait_s: float = 0.0) -> None:
        """Let go of the connection, waiting `wait_s` at most for it to close.

        franky's destructor waits for its control loop, which may wait for the robot for ever.
        """
        thread = threading.Thread(target=self._let_go, name="letting_go", daemon=True)
        thread.start()
        thread.join(wait_s)

    def _let_go(self) -> None:
        self.end = None
