"""Dropout: random bits for some thousand numbers at a time, then a loop that selects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.compiling import compiled, inlined
from tensorlib.kernels.numba.philox import NUMBERS, four_words, key_words
from tensorlib.kernels.numba.rows import flat, for_pieces, serves
from tensorlib.ops.dropout import add_dropout_formula, dropout_formula, dropout_scale, dropped_levels

__all__ = ["CHUNK", "Mask", "bits_of_rows", "keep_or_zero", "mask_of", "room_for_bits", "write_bits"]

CHUNK = 4096  # numbers whose random bits stay in the first-level cache
WORDS = 4  # of 64 bits, in a block

Mask = tuple[np.uint64, np.uint64, np.uint64, np.uint16]  # key (two words), draw, and the level below which bits drop


def mask_of(p: float, key: int, draw: int) -> Mask:
    """Return the mask of a draw as compiled functions take it."""
    return *key_words(key), np.uint64(draw), np.uint16(dropped_levels(p))


@compiled
def room_for_bits(count: int) -> Any:
    """Return an array for the random words of any `count` successive numbers of a draw."""
    return np.empty(WORDS * (count // NUMBERS + 2), np.uint64)


@compiled
def write_bits(mask: Any, start: int, count: int, words: Any) -> Any:
    """Return the 16 random bits of each of `count` numbers of a draw from number `start` on, written to `words`."""
    key0, key1, draw, _ = mask
    first, skipped = start // NUMBERS, start % NUMBERS
    for block in range((skipped + count + NUMBERS - 1) // NUMBERS):
        w0, w1, w2, w3 = four_words(key0, key1, draw, first + block)
        at = WORDS * block
        words[at], words[at + 1], words[at + 2], words[at + 3] = w0, w1, w2, w3
    return words.view(np.uint16)[skipped : skipped + count]


@compiled
def bits_of_rows(mask: Any, first: int, count: int, width: int, words: Any) -> Any:
    """Return the random bits of `count` rows of this width from row `first` on; without dropout no elements."""
    if mask[3] == 0:
        return words.view(np.uint16)[:0].reshape((0, width))
    return write_bits(mask, first * width, count * width, words).reshape((count, width))


@inlined
def keep_or_zero(x: Any, bits: Any, level: Any) -> Any:
    """Return x, or 0 if it is dropped, even if it is infinite or NaN."""
    return x if bits >= level else type(x)(0)


@compiled
def drop(x: Any, y: Any, mask: Any, scale: Any, start: int) -> None:
    """Write to y the numbers of x after dropout; `start` is the position of the first in the draw."""
    words = room_for_bits(CHUNK)
    for low in range(0, x.size, CHUNK):
        high = min(low + CHUNK, x.size)
        bits = write_bits(mask, start + low, high - low, words)
        _drop_chunk(x[low:high], y[low:high], bits, mask[3], scale)


@compiled
def _drop_chunk(x: Any, y: Any, bits: Any, level: Any, scale: Any) -> None:
    for i in range(x.size):
        y[i] = keep_or_zero(x[i] * scale, bits[i], level)


@compiled
def add_drop(x: Any, y: Any, z: Any, mask: Any, scale: Any, start: int) -> None:
    """Write x + dropout(y) to z."""
    words = room_for_bits(CHUNK)
    for low in range(0, x.size, CHUNK):
        high = min(low + CHUNK, x.size)
        bits = write_bits(mask, start + low, high - low, words)
        _add_chunk(x[low:high], y[low:high], z[low:high], bits, mask[3], scale)


@compiled
def _add_chunk(x: Any, y: Any, z: Any, bits: Any, level: Any, scale: Any) -> None:
    for i in range(x.size):
        z[i] = x[i] + keep_or_zero(y[i] * scale, bits[i], level)


@overrides(dropout_formula)
def _dropout_kernel(before: Callable[..., Array], x: np.ndarray, p: float, key: int, draw: int) -> Array:
    if not serves(x):
        return before(x, p, key, draw)
    y = np.empty(x.shape, x.dtype)
    x_flat, y_flat = flat(x), y.reshape(-1)
    mask, scale = mask_of(p, key, draw), x.dtype.type(dropout_scale(p))
    for_pieces(lambda b: drop(x_flat[b], y_flat[b], mask, scale, b.start), x.size)
    return y


@overrides(add_dropout_formula)
def _add_dropout_kernel(
    before: Callable[..., Array], x: np.ndarray, y: np.ndarray, p: float, key: int, draw: int
) -> Array:
    if not serves(x, y) or x.shape != y.shape:
        return before(x, y, p, key, draw)
    z = np.empty(x.shape, x.dtype)
    x_flat, y_flat, z_flat = flat(x), flat(y), z.reshape(-1)
    mask, scale = mask_of(p, key, draw), x.dtype.type(dropout_scale(p))
    for_pieces(lambda b: add_drop(x_flat[b], y_flat[b], z_flat[b], mask, scale, b.start), x.size)
    return z
