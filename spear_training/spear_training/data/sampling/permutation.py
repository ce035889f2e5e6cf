"""A shuffled order of N things that is computed, not stored."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_ROUNDS = 6  # four make a Feistel network a pseudo-random permutation (Luby and Rackoff, 1988)


class KeyedPermutation:
    """A permutation of 0 .. count - 1, another one for every key; any place costs the same.

    A Feistel network over the smallest square of powers of two that holds `count`, walked again
    where it leads outside (cycle walking): no list of 45 million numbers, no state.
    """

    def __init__(self, count: int, key: Sequence[int]):
        """Take the number of things and a key of whole numbers, e.g. (seed, data set, pass).

        Raises:
            ValueError: nothing to permute, or more than 2^48 things.
        """
        if not 1 <= count <= 2**48:
            raise ValueError(f"there are {count} things to permute; 1 to 2^48 are possible")
        self.count = count
        self._half_bits = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half_bits)) - 1)
        words = np.random.SeedSequence([int(word) for word in key])
        self._keys = words.generate_state(_ROUNDS, np.uint64)

    def __call__(self, places: ArrayLike) -> NDArray[np.int64]:
        """Which thing stands at each place; any shape.

        Raises:
            ValueError: a place outside 0 .. count - 1.
        """
        asked = np.asarray(places)
        if asked.size and not (0 <= asked.min() and asked.max() < self.count):
            raise ValueError(f"places must be 0..{self.count - 1}")
        found = self._encrypt(asked.astype(np.uint64).ravel())
        while (outside := found >= self.count).any():
            found[outside] = self._encrypt(found[outside])
        return found.astype(np.int64).reshape(asked.shape)

    def _encrypt(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half_bits, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return (left << self._half_bits) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
