"""Philox-4x64-10 in compiled loops: the same random numbers as tensorlib/arrays/philox.py, to the bit.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". One step of the counter gives 16 numbers of 16 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tensorlib.arrays.philox import WORD
from tensorlib.kernels.numba.compiling import inlined

__all__ = ["NUMBERS", "four_words", "key_words"]

NUMBERS = 16  # of 16 bits, in the four words of a block
u64 = np.uint64
FACTORS = u64(0xD2E7470EE14C6C93), u64(0xCA5A826395121157)
STEPS = u64(0x9E3779B97F4A7C15), u64(0xBB67AE8584CAA73B)


@intrinsic
def _whole_product(context, x, y):  # type: ignore[no-untyped-def]  # Numba calls it
    """Return the upper and the lower 64 bits of x · y."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(a, wide) for a in arguments))
        high = builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))
        low = builder.trunc(product, ir.IntType(64))
        return cgutils.pack_array(builder, [high, low])

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), build


@inlined
def four_words(key0: Any, key1: Any, draw: Any, block: Any) -> Any:
    """Return the four words of a block of a draw; NumPy advances the counter before it computes a block."""
    c0, c1, c2, c3 = u64(block) + u64(1), u64(0), u64(draw), u64(0)
    for _ in range(10):
        high0, low0 = _whole_product(FACTORS[0], c0)
        high1, low1 = _whole_product(FACTORS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0, key1 = key0 + STEPS[0], key1 + STEPS[1]
    return c0, c1, c2, c3


def key_words(key: int) -> tuple[np.uint64, np.uint64]:
    """Return the two words of a key below 2^128."""
    return u64(key & WORD), u64(key >> 64)
