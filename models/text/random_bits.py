"""Random numbers that depend on seed and position alone, whatever the version of NumPy.

NumPy guarantees that the raw bits of Philox are the same in every version, but nothing else. With Generator.random or
shuffle, a run resumed after an upgrade could see different batches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["permutation", "random_bits", "uniform", "unit_interval"]


def random_bits(seed: int, *position: int) -> np.random.Philox:
    """Return the stream of this position, such as an epoch, or an epoch and a step: independent of all others.

    >>> uniform(random_bits(0, 1), 2)  # seed 0, epoch 1
    array([0.67443816, 0.47889684])
    """
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=position))


def uniform(bits: np.random.Philox, count: int) -> NDArray[np.float64]:
    """Return the next `count` numbers of a stream, uniform in [0, 1)."""
    return unit_interval(bits.random_raw(count))


def unit_interval(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return numbers in [0, 1) with the upper 53 bits of each word, as many as a float64 holds.

    >>> unit_interval(np.array([0, 2**63, 2**64 - 1], np.uint64)).tolist()
    [0.0, 0.5, 0.9999999999999999]
    """
    return (words >> np.uint64(11)) * np.float64(2.0**-53)


def permutation(bits: np.random.Philox, count: int) -> NDArray[np.int64]:
    """Return 0 ... count-1 in random order."""
    return np.argsort(uniform(bits, count), kind="stable")
