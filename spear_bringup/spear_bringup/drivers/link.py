"""A connection that closes when its last reference goes, and the one place that holds it."""


class Link:
    """Holds a library's connection object; `drop` closes it.

    A robot takes no second client while the first object lives, and an exception keeps the local
    variables of every frame it went through alive, for as long as anyone keeps the exception. So
    functions pass the link on and write `link.end.call()`, never `end = link.end`.
    """

    __slots__ = ("end",)

    def __init__(self, end):
        self.end = end

    def drop(self) -> None:
        """Let go of the connection."""
        self.end = None
