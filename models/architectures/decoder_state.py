"""The Transformer's state between decoding steps: keys and values of the source, and of the tokens so far.

Shape suffixes: B batch, H heads, S source length, t tokens so far, K head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import tensorlib as tl

__all__ = ["DecoderState", "FreePositions", "KeyValueCache"]

MIN_GROWTH = 16  # a buffer grows by at least this many positions


@dataclass(frozen=True)
class DecoderState:
    """The state between decoding steps. It is immutable: a step returns a new state."""

    length: int
    """Number of tokens so far."""
    visible: tl.Tensor | None
    """Source positions that may be attended to, (B, 1, 1, S), or None for all."""
    cross: tuple[tuple[tl.Tensor, tl.Tensor], ...]
    """For each layer, keys and values (B, H, S, K) of the memory."""
    own: tuple[KeyValueCache, ...]
    """For each layer, keys and values (B, H, length, K) of the tokens so far; empty before the first token."""
    source_B: np.ndarray
    """For each row, the number of the row in the first state that has the same source; on the host."""

    @property
    def rows(self) -> int:
        """Number of targets that are decoded."""
        return len(self.source_B)

    def select(self, rows: ArrayLike) -> DecoderState:
        """Return the state of the given rows (indices or booleans), which may drop, repeat or reorder sentences."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        if np.array_equal(rows, np.arange(len(self.source_B))):
            return self
        state = replace(self, source_B=self.source_B[rows], own=tuple(cache.select(rows) for cache in self.own))
        if np.array_equal(state.source_B, self.source_B):  # beam search reordered the targets of each source
            return state
        return replace(
            state,
            visible=None if self.visible is None else _rows(self.visible, rows),
            cross=tuple((_rows(k, rows), _rows(v, rows)) for k, v in self.cross),
        )


def _rows(x: tl.Tensor, rows: np.ndarray) -> tl.Tensor:
    return x[rows if x.backend.xp is np else x.backend.asarray(rows)]


@dataclass(frozen=True, eq=False)
class KeyValueCache:
    """Keys and values (B, H, t, K) of one layer for the tokens so far. It is immutable: `append` returns a new cache.

    It works like a slice in Go: `keys` and `values` are the first t positions of a longer buffer, and `append` writes
    into position t if it is still free. A second `append` to the same cache, or one that finds the buffer full, copies
    into a new buffer of at least twice the length, so the average cost of a token does not depend on their number.
    """

    keys: tl.Tensor
    values: tl.Tensor
    buffer: _Buffer | None = None

    def __iter__(self) -> Iterator[tl.Tensor]:
        """Yield keys and values: ``k, v = cache``."""
        return iter((self.keys, self.values))

    def append(self, keys_BH1K: tl.Tensor, values_BH1K: tl.Tensor) -> KeyValueCache:
        """Return a cache with one more position at the end."""
        if tl.is_grad_enabled():  # writing into a buffer would not be recorded
            return KeyValueCache(
                tl.concatenate([self.keys, keys_BH1K], axis=2), tl.concatenate([self.values, values_BH1K], axis=2)
            )
        position = self.keys.shape[2]
        buffer = self.buffer
        if buffer is None or not buffer.free.claim(position):
            buffer = _Buffer.starting_with(self.keys, self.values)
            buffer.free.claim(position)
        keys: Any = buffer.keys.data  # written in place, which formulas never do
        values: Any = buffer.values.data
        keys[:, :, position] = keys_BH1K.data[:, :, 0]
        values[:, :, position] = values_BH1K.data[:, :, 0]
        return buffer.cache(position + 1)

    def select(self, rows: np.ndarray) -> KeyValueCache:
        """Return the given rows, in the given order, with the free positions, which spare `append` another copy."""
        if self.buffer is None:
            return KeyValueCache(_rows(self.keys, rows), _rows(self.values, rows))
        length = self.keys.shape[2]
        return self.buffer.select(rows, length).cache(length)


class FreePositions:
    """The positions of a buffer that nothing was written to."""

    def __init__(self, free: range) -> None:
        self._free = set(free)

    def claim(self, position: int) -> bool:
        """Claim a position; return False if it does not exist or is taken. If several threads try, one succeeds."""
        try:
            self._free.remove(position)
        except KeyError:
            return False
        return True


class _Buffer:
    """Keys and values (B, H, positions, K), and which positions are still free."""

    def __init__(self, keys: tl.Tensor, values: tl.Tensor, free: range) -> None:
        self.keys, self.values = keys, values
        self.free = FreePositions(free)

    @classmethod
    def starting_with(cls, keys: tl.Tensor, values: tl.Tensor) -> _Buffer:
        """Return a new buffer that begins with these keys and values and has at least as many free positions."""
        length = keys.shape[2]
        added = max(length, MIN_GROWTH)
        return cls(_lengthened(keys, added), _lengthened(values, added), range(length, length + added))

    def cache(self, length: int) -> KeyValueCache:
        """Return a cache of the first `length` positions."""
        return KeyValueCache(self.keys[:, :, :length], self.values[:, :, :length], self)

    def select(self, rows: np.ndarray, length: int) -> _Buffer:
        """Return a new buffer of the given rows, in the given order, whose positions from `length` on are free."""
        return _Buffer(_rows(self.keys, rows), _rows(self.values, rows), range(length, self.keys.shape[2]))


def _lengthened(x: tl.Tensor, added: int) -> tl.Tensor:
    zeros = tl.zeros((*x.shape[:2], added, x.shape[3]), dtype=x.dtype, backend=x.backend)
    return tl.concatenate([x, zeros], axis=2)
