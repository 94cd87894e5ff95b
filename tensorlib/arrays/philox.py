"""Philox-4x64-10, the counter-based random number generator of NumPy, on the host.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". philox.cuh computes the same numbers on a GPU.
"""

from __future__ import annotations

import threading

import numpy as np

__all__ = ["philox_bits"]

WORD = 2**64 - 1


def philox_bits(key: int, draw: int, start: int, count: int, dtype: str = "uint16") -> np.ndarray:
    """Return `count` random numbers of a draw, from number `start` on; see `Backend.random_bits`."""
    per_block = 32 // np.dtype(dtype).itemsize  # one step of the counter gives 32 bytes
    block, skipped = divmod(start, per_block)
    words = -(-(skipped + count) * np.dtype(dtype).itemsize // 8)
    # Setting the state of a generator takes a tenth of the time of creating one.
    state = {"counter": _words((block, 0, draw, 0)), "key": _words((key & WORD, key >> 64))}
    try:
        philox = _SCRATCH.philox
    except AttributeError:  # the first draw of this thread
        philox = _SCRATCH.philox = np.random.Philox(0)
    philox.state = {**_START, "state": state}
    return philox.random_raw(words).view(dtype)[skipped : skipped + count]


def _words(numbers: tuple[int, ...]) -> np.ndarray:
    return np.array(numbers, np.uint64)


_SCRATCH = threading.local()  # one generator per thread
_START = {"bit_generator": "Philox", "buffer": _words((0,) * 4), "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}
