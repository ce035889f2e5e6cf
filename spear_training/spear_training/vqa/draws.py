"""Random draws that depend on names and numbers alone: the same on every machine, in any order."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def key_of(*parts: str | int) -> int:
    """A number of 64 bits that depends on the parts and their order."""
    said = json.dumps(parts, ensure_ascii=True).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "big")


class Draws:
    """One stream of draws. Quick for the few that an example needs."""

    def __init__(self, *parts: str | int):
        """Take what the stream depends on: names and numbers."""
        self._next = np.random.Generator(np.random.PCG64(key_of(*parts))).random

    def below(self, count: int) -> int:
        """One of 0 .. count - 1."""
        return int(self._next() * count)

    def pick(self, things: Sequence[T]) -> T:
        """One of the things."""
        return things[self.below(len(things))]

    def some(self, things: Sequence[T], count: int) -> list[T]:
        """`count` different things in any order."""
        left = list(things)
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def weighted(self, weights: dict[T, float]) -> T:
        """One of the keys, by their weights; they need not sum to 1."""
        names, ends = list(weights), list(accumulate(weights.values()))
        drawn = self._next() * ends[-1]
        return names[min(bisect_right(ends, drawn), len(names) - 1)]
