"""Which pictures of a run a person gets to see: drawn by chance, the same for the same seed."""

import heapq
from collections import Counter

from spear_training.annotation.inspection.run_records import Place
from spear_training.annotation.pipeline import seed_of
from spear_training.annotation.records import STATUSES, Annotation


class Sample:
    """Draws pictures while their records go by; holds no more than `count` of each status.

    Each picture has a number that follows from its id and the seed, and the lowest win. So the
    sample does not depend on the order or the shards, and a larger one contains a smaller one.
    """

    def __init__(self, count: int, seed: int, only: str = "all"):
        """Take how many pictures, and which status: one of `records.STATUSES`, or all."""
        self._count, self._seed = count, seed
        self._statuses = STATUSES if only == "all" else (only,)
        self._seen: Counter[str] = Counter()
        # (minus the picture's number, its place in the list, where its record is)
        self._heaps: dict[str, list[tuple[int, int, Place]]] = {
            status: [] for status in self._statuses
        }

    def add(self, place: Place, annotation: Annotation) -> None:
        """Let a record go by."""
        if annotation.status not in self._heaps:
            return
        heap = self._heaps[annotation.status]
        order = self._seen.total()
        self._seen[annotation.status] += 1
        ticket = (-seed_of(f"{self._seed} {annotation.id}"), order, place)
        if len(heap) < self._count:
            heapq.heappush(heap, ticket)
        elif ticket[0] > heap[0][0]:
            heapq.heapreplace(heap, ticket)

    def places(self) -> list[Place]:
        """The records drawn, in the order of the list."""
        drawn = []
        for status, share in shares(self._seen, self._count).items():
            drawn += sorted(self._heaps.get(status, []), reverse=True)[:share]
        return [place for _, _, place in sorted(drawn, key=lambda ticket: ticket[1])]


def shares(there: Counter[str], total: int) -> dict[str, int]:
    """Split a total among statuses so that rare ones are seen.

    Args:
        there: pictures that there are, by status.
        total: pictures wanted.

    Returns:
        How many of each. A tenth of the total (2 at least) may be failed and as many empty, the
        others are ok; what one has not is left to the others.
    """
    few = min(max(2, total // 10), total // 3)
    found = {status: min(there[status], few) for status in ("failed", "empty")}
    for status in ("ok", "empty", "failed"):
        taken = found.get(status, 0)
        found[status] = taken + min(there[status] - taken, total - sum(found.values()))
    return found
