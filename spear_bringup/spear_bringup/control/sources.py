"""Who publishes action_chunk: one at a time, in order."""


class Sources:
    """The publishers heard lately, told apart by their random source_id.

    Two at once cannot be told into right and wrong, so the arm holds until only one is left for
    `release_s`.
    """

    def __init__(self, release_s: float):
        self.release_s = release_s
        self._heard: dict[str, float] = {}
        self._last_id: dict[str, int] = {}

    def hear(self, source_id: str, now_s: float) -> list[str]:
        """Note a chunk; the source ids heard within `release_s`, this one included."""
        # An absolute difference: after a backward clock jump every old entry is of another time.
        self._heard = {
            source: heard_s
            for source, heard_s in self._heard.items()
            if abs(now_s - heard_s) <= self.release_s
        }
        self._heard[source_id] = now_s
        return sorted(self._heard)

    def in_order(self, source_id: str, chunk_id: int) -> bool:
        """Whether `chunk_id` is newer than every one of this source before; remembers it."""
        newest = self._last_id.get(source_id, -1)
        if chunk_id <= newest:
            return False
        self._last_id = {source_id: chunk_id}
        return True
