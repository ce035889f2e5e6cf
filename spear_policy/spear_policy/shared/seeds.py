"""Seeds of random numbers from words: the same on every machine, whatever was drawn before."""

import hashlib

import numpy as np


def seed_of(*keys) -> int:
    """A seed of 64 bits from what a draw is for, such as a seed, a picture's id and a name."""
    words = " ".join(str(key) for key in keys)
    return int.from_bytes(
        hashlib.sha256(words.encode("utf-8", "surrogatepass")).digest()[:8], "big"
    )


def generator(*keys) -> np.random.Generator:
    """The random numbers of one purpose; equal keys give equal numbers."""
    return np.random.default_rng(seed_of(*keys))
