"""A mixture: which stores are trained on together, how much of each, and in which order.

`oxe` is the paper's mixture (Table 4): the stores of its rows below one folder, each with the
weight that the table gives it. Any other mixture is a small YAML file:

    parts:
      - {store: stores/bridge, weight: 70}
      - {store: /data/our_lab, weight: 30}

Paths are relative to the file.

The order (`MixtureOrder`): sample j of a training is the same whatever the number of machines and
workers, and after any interruption, since it follows from the seed and j alone. Shares are exact,
not on average: in every block of samples each dataset comes exactly as often as its share says, in
shuffled order. Each dataset is gone through in a shuffled order (`KeyedPermutation`) that is
another one in every pass.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from spear_training.data.oxe.table import find_row, load_table
from spear_training.data.reader import DataFileError
from spear_training.data.store.reader import FrameStore

OXE = "oxe"


@dataclass(frozen=True)
class MixtureStore:
    """One dataset of a mixture.

    Attributes:
        name: what it is called in statistics and reports; unique.
        store: its folder.
        weight: only ratios to the other parts' count.
    """

    name: str
    store: Path
    weight: float


def load_mixture(
    mixture: str | Path,
    root: Path | None = None,
    *,
    table: Path | None = None,
    only: Collection[str] = (),
) -> tuple[MixtureStore, ...]:
    """Find the stores of a mixture.

    Args:
        mixture: `oxe`, or a YAML file.
        root: for `oxe`, the folder of its stores, each named after its row.
        table: for `oxe`, a user's own table, see oxe.table.
        only: parts to use, by name; all where empty. Their ratios stay.

    Raises:
        DataFileError: a file or a store is missing, or a part is unknown; names it and the fix.
    """
    if str(mixture) == OXE:
        if root is None:
            raise DataFileError("the mixture oxe needs the folder that holds its stores (--root)")
        rows = load_table(table)
        for name in only:
            find_row(rows, name)
        parts = [MixtureStore(row.name, Path(root) / row.name, row.weight) for row in rows.values()]
    else:
        parts = _read_file(Path(mixture))
    known = [part.name for part in parts]
    if unknown := sorted(set(only) - set(known)):
        raise DataFileError(f"the mixture has no {unknown[0]!r}; it has {', '.join(known)}")
    chosen = tuple(part for part in parts if not only or part.name in only)
    missing = [part for part in chosen if not part.store.is_dir()]
    if missing:
        raise DataFileError(
            f"{len(missing)} of {len(chosen)} stores are missing, the first is "
            f"{missing[0].store}: make it with import_episodes, or name those you have with "
            f"--only (missing: {', '.join(part.name for part in missing)})"
        )
    return chosen


def open_stores(parts: Sequence[MixtureStore]) -> list[FrameStore]:
    """Open the store of every part. Raises DataFileError for one that is damaged."""
    return [FrameStore(part.store) for part in parts]


def _read_file(path: Path) -> list[MixtureStore]:
    try:
        values = yaml.safe_load(path.read_text())
        listed = values["parts"]
        parts = []
        for entry in listed:
            if unknown := set(entry) - {"store", "weight", "name"}:
                raise ValueError(f"a part has no {', '.join(sorted(unknown))}")
            store = path.parent / entry["store"]
            weight = float(entry["weight"])
            if not 0 < weight < float("inf"):
                raise ValueError(f"the weight of {store} is {weight}: it must be positive")
            parts.append(MixtureStore(str(entry.get("name", store.name)), store, weight))
    except OSError as error:
        raise DataFileError(
            f"{path}: cannot be read ({error.strerror}); give {OXE!r} or a YAML file"
        ) from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else error
        raise DataFileError(f"{path}: no mixture: {said}; data/mixture.py shows one") from None
    names = [part.name for part in parts]
    if not parts or len(set(names)) < len(names):
        raise DataFileError(f"{path}: parts must be there, each with a name of its own: {names}")
    return parts


# Keyed permutations: shuffled orders that are computed, not stored -----------------------------


_ROUNDS = 6  # four make a Feistel network a pseudo-random permutation (Luby and Rackoff, 1988)


class KeyedPermutation:
    """A permutation of 0 .. count - 1, another one for every key; any place costs the same.

    A Feistel network over the smallest square of powers of two that holds `count`, walked again
    where it leads outside (cycle walking): no list of 45 million numbers, no state.
    """

    def __init__(self, count: int, key: Sequence[int]):
        """Take the number of places and a key of whole numbers, e.g. (seed, dataset, pass).

        Raises:
            ValueError: nothing to permute, or more than 2^48 places.
        """
        if not 1 <= count <= 2**48:
            raise ValueError(f"there are {count} places to permute; 1 to 2^48 are possible")
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


# The order of samples from datasets with given shares ------------------------------------------


_LARGEST_BLOCK = 100_000
# Words that keep the keys of the two kinds of shuffling apart.
_BLOCK_KEY, _PASS_KEY = 1, 2


@dataclass(frozen=True, eq=False)
class Draw:
    """Some samples.

    Attributes:
        dataset: (N,) number of the dataset.
        place: (N,) number of the sample in it, 0 .. size - 1.
        turn: (N,) how often this dataset has been drawn before.
    """

    dataset: NDArray[np.int64]
    place: NDArray[np.int64]
    turn: NDArray[np.int64]


class MixtureOrder:
    """The endless order of samples; see the module.

    Attributes:
        sizes: samples of each dataset.
        counts: of each dataset in a block.
        shares: what the counts make of the weights.
        block: samples in a block.
    """

    def __init__(self, weights: ArrayLike, sizes: Sequence[int], seed: int):
        """Take a weight and a size for each dataset.

        Args:
            weights: positive; only their ratios count. Weights in tenths of a percent are kept
                exactly, others within 1e-5 of the whole.
            sizes: number of samples, at least 1.
            seed: 0 or more.

        Raises:
            ValueError: no dataset, lists of different length, or a number outside its range.
        """
        weights = np.asarray(weights, float)
        if weights.ndim != 1 or not len(weights) or len(weights) != len(sizes):
            raise ValueError(f"{len(sizes)} sizes need as many weights, got {weights.shape}")
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise ValueError(f"weights must be positive, got {weights.tolist()}")
        if min(sizes) < 1:
            raise ValueError(f"dataset {int(np.argmin(sizes))} is empty: leave it out")
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
            datasets, ranks = self._shuffled(block)
            part = slice(done, done + stop - offset)
            chosen[part] = datasets[offset:stop]
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
        for dataset, number in {*zip(chosen.tolist(), passes.tolist(), strict=True)}:
            mine = (chosen == dataset) & (passes == number)
            places[mine] = self._permutation(dataset, number)(turns[mine] % sizes[mine])
        return places

    def _shuffled_block(self, block: int) -> tuple[NDArray, NDArray]:
        """Dataset of each sample of a block, and how many of its own come before it there."""
        # Raw bits: numpy keeps them the same for ever, its Generator's methods not.
        bits = np.random.Philox([self._seed, _BLOCK_KEY, block]).random_raw(self.block)
        datasets = self._pattern[np.argsort(bits, kind="stable")]
        order = np.argsort(datasets, kind="stable")
        begins = np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        ranks = np.empty(self.block, np.int64)
        ranks[order] = np.arange(self.block) - begins
        return datasets, ranks

    def _pass_permutation(self, dataset: int, number: int) -> KeyedPermutation:
        key = (self._seed, _PASS_KEY, dataset, number)
        return KeyedPermutation(self.sizes[dataset], key)


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
