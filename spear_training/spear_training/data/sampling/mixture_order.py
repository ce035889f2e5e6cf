"""The order of samples from several data sets with given shares.

Sample j of a training is the same whatever the number of machines and workers, and after any
interruption: it follows from the seed and j alone. Shares are exact, not on average: in every
block of samples each data set comes exactly as often as its share says, in shuffled order. Each
data set is gone through in a shuffled order that is another one in every pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_training.data.sampling.permutation import KeyedPermutation

_LARGEST_BLOCK = 100_000
# Words that keep the keys of the two kinds of shuffling apart.
_BLOCK_KEY, _PASS_KEY = 1, 2


@dataclass(frozen=True, eq=False)
class Draw:
    """Some samples.

    Attributes:
        data_set: (N,) number of the data set.
        place: (N,) number of the sample in it, 0 .. size - 1.
        turn: (N,) how often this data set has been drawn before.
    """

    data_set: NDArray[np.int64]
    place: NDArray[np.int64]
    turn: NDArray[np.int64]


class MixtureOrder:
    """The endless order of samples; see the module.

    Attributes:
        sizes: samples of each data set.
        counts: of each data set in a block.
        shares: what the counts make of the weights.
        block: samples in a block.
    """

    def __init__(self, weights: ArrayLike, sizes: Sequence[int], seed: int):
        """Take a weight and a size for each data set.

        Args:
            weights: positive; only their ratios count. Weights in tenths of a percent are kept
                exactly, others within 1e-5 of the whole.
            sizes: number of samples, at least 1.
            seed: 0 or more.

        Raises:
            ValueError: no data set, lists of different length, or a number outside its range.
        """
        weights = np.asarray(weights, float)
        if weights.ndim != 1 or not len(weights) or len(weights) != len(sizes):
            raise ValueError(f"{len(sizes)} sizes need as many weights, got {weights.shape}")
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise ValueError(f"weights must be positive, got {weights.tolist()}")
        if min(sizes) < 1:
            raise ValueError(f"data set {int(np.argmin(sizes))} is empty: leave it out")
        if seed < 0:
            raise ValueError(f"the seed must be 0 or more, got {seed}")
        self.sizes = tuple(int(size) for size in sizes)
        self.counts = _block_counts(weights / weights.sum())
        self.block = int(self.counts.sum())
        self.shares = self.counts / self.block
        self._weights, self._seed = weights, seed
        self._pattern = np.repeat(np.arange(len(weights)), self.counts)
        self._shuffled = lru_cache(maxsize=16)(self._shuffled_block)
        self._permutation = lru_cache(maxsize=4 * len(weights))(self._pass_permutation)

    def __reduce__(self):
        """For worker processes: the caches stay here."""
        return MixtureOrder, (self._weights, self.sizes, self._seed)

    def draw(self, first: int, count: int) -> Draw:
        """Samples `first` .. `first + count - 1` of the order.

        Raises:
            ValueError: a negative number.
        """
        if first < 0 or count < 0:
            raise ValueError(f"samples are numbered from 0, got {first} and {count} of them")
        chosen = np.empty(count, np.int64)
        turns = np.empty(count, np.int64)
        done = 0
        while done < count:
            block, offset = divmod(first + done, self.block)
            stop = min(self.block, offset + count - done)
            data_sets, ranks = self._shuffled(block)
            part = slice(done, done + stop - offset)
            chosen[part] = data_sets[offset:stop]
            turns[part] = block * self.counts[chosen[part]] + ranks[offset:stop]
            done = part.stop
        return Draw(chosen, self._places(chosen, turns), turns)

    def batch(self, step: int, batch_size: int, rank: int = 0, ranks: int = 1) -> Draw:
        """One machine's part of the batch of a step; all parts together are the batch.

        Raises:
            ValueError: the batch cannot be divided evenly, or there is no such rank.
        """
        if batch_size % ranks or not 0 <= rank < ranks:
            raise ValueError(
                f"a batch of {batch_size} cannot be divided evenly among {ranks} processes; "
                "choose a multiple"
                if batch_size % ranks
                else f"there is no rank {rank} of {ranks}"
            )
        part = batch_size // ranks
        return self.draw(step * batch_size + rank * part, part)

    def _places(self, chosen: NDArray, turns: NDArray) -> NDArray[np.int64]:
        places = np.empty(len(chosen), np.int64)
        sizes = np.array(self.sizes)[chosen]
        passes = turns // sizes
        for data_set, number in {*zip(chosen.tolist(), passes.tolist(), strict=True)}:
            mine = (chosen == data_set) & (passes == number)
            places[mine] = self._permutation(data_set, number)(turns[mine] % sizes[mine])
        return places

    def _shuffled_block(self, block: int) -> tuple[NDArray, NDArray]:
        """Data set of each sample of a block, and how many of its own come before it there."""
        # Raw bits: numpy keeps them the same for ever, its Generator's methods not.
        bits = np.random.Philox([self._seed, _BLOCK_KEY, block]).random_raw(self.block)
        data_sets = self._pattern[np.argsort(bits, kind="stable")]
        order = np.argsort(data_sets, kind="stable")
        begins = np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        ranks = np.empty(self.block, np.int64)
        ranks[order] = np.arange(self.block) - begins
        return data_sets, ranks

    def _pass_permutation(self, data_set: int, number: int) -> KeyedPermutation:
        key = (self._seed, _PASS_KEY, data_set, number)
        return KeyedPermutation(self.sizes[data_set], key)


def _block_counts(shares: NDArray) -> NDArray[np.int64]:
    """Whole numbers in the ratio of the shares: exact if a block of at most 1000 can be."""
    for block in (*range(len(shares), 1001), _LARGEST_BLOCK):
        counts = shares * block
        if np.abs(counts - np.rint(counts)).max() < 1e-6 and (np.rint(counts) >= 1).all():
            return np.rint(counts).astype(np.int64)
    counts = np.maximum(np.floor(shares * _LARGEST_BLOCK), 1).astype(np.int64)
    # The largest remainders get what rounding down has left over.
    missing = _LARGEST_BLOCK - counts.sum()
    counts[np.argsort(counts - shares * _LARGEST_BLOCK, kind="stable")[: max(missing, 0)]] += 1
    return counts
