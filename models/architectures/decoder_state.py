"""What decoding remembers between tokens: keys and values of the source, and of the tokens so far.

Shape suffixes: B batch, H heads, S source length, t tokens so far, K head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import tensorlib as tl

__all__ = ["DecoderState", "KeyValueCache"]

LEAST_ROOM = 16  # places that are made at once


@dataclass(frozen=True)
class DecoderState:
    """What decoding remembers between tokens. A value: a step returns a new one."""

    length: int
    """Tokens so far."""
    visible: Any
    """Which source places may be attended to, (B, 1, 1, S), or None for all."""
    cross: tuple[tuple[Any, Any], ...]
    """For each layer, keys and values (B, H, S, K) of the memory."""
    own: tuple[KeyValueCache, ...]
    """For each layer, keys and values (B, H, length, K) of the tokens so far; empty before the first."""
    source_B: np.ndarray
    """Which row each row was at the start, that is, which source it is of; on the host."""

    def select(self, rows: Any) -> DecoderState:
        """Return the state of these rows (indices or booleans), in order: to drop, repeat or reorder sentences."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        if np.array_equal(rows, np.arange(len(self.source_B))):
            return self
        state = replace(self, source_B=self.source_B[rows], own=tuple(kept.select(rows) for kept in self.own))
        if np.array_equal(state.source_B, self.source_B):  # beam search has reordered the targets of each source
            return state
        return replace(
            state,
            visible=None if self.visible is None else _rows(self.visible, rows),
            cross=tuple((_rows(k, rows), _rows(v, rows)) for k, v in self.cross),
        )


def _rows(x: Any, rows: np.ndarray) -> Any:
    return x[rows if x.backend.xp is np else x.backend.asarray(rows)]


@dataclass(frozen=True, eq=False)
class KeyValueCache:
    """Keys and values (B, H, t, K) of one layer for the tokens so far. A value too, though not copied to grow.

    Like a slice in Go: `keys` and `values` are the first t places of a room that has more, and `append` writes into
    place t if nobody has yet. Whoever appends to the same value a second time, or finds no place left, moves to a room
    of his own, twice as long; so a token costs the same however many there are.
    """

    keys: Any
    values: Any
    room: _Buffer | None = None

    def __iter__(self) -> Iterator[Any]:
        """Yield keys and values: ``k, v = kept``."""
        return iter((self.keys, self.values))

    def append(self, keys_BH1K: Any, values_BH1K: Any) -> KeyValueCache:
        """Return these keys and values with one more place at the end."""
        if tl.is_grad_enabled():  # what is written into a place has no history
            new = (keys_BH1K, values_BH1K)
            return KeyValueCache(*[tl.concatenate(pair, axis=2) for pair in zip(self, new, strict=True)])
        place = self.keys.shape[2]
        room = self.room
        if room is None or not room.take(place):
            room = _Buffer.behind(self.keys, self.values)
            room.take(place)
        room.keys.data[:, :, place] = keys_BH1K.data[:, :, 0]
        room.values.data[:, :, place] = values_BH1K.data[:, :, 0]
        return KeyValueCache(room.keys[:, :, : place + 1], room.values[:, :, : place + 1], room)

    def select(self, rows: np.ndarray) -> KeyValueCache:
        """Return these rows, in order, with the room to grow that there is: else `append` would copy them once more."""
        if self.room is None:
            return KeyValueCache(_rows(self.keys, rows), _rows(self.values, rows))
        length = self.keys.shape[2]
        room = self.room.select(rows, length)
        return KeyValueCache(room.keys[:, :, :length], room.values[:, :, :length], room)


class _Buffer:
    """Room for keys and values, (B, H, places, K), and which places nobody has written to."""

    def __init__(self, keys: Any, values: Any, free: range) -> None:
        self.keys, self.values = keys, values
        self._free = set(free)

    @classmethod
    def behind(cls, keys: Any, values: Any) -> _Buffer:
        """Return a new room that begins with these keys and values and has about as many places again."""
        length = keys.shape[2]
        added = max(length, LEAST_ROOM)
        longer = (
            tl.concatenate([x, tl.zeros((*x.shape[:2], added, x.shape[3]), dtype=x.dtype, backend=x.backend)], axis=2)
            for x in (keys, values)
        )
        return cls(*longer, range(length, length + added))

    def select(self, rows: np.ndarray, length: int) -> _Buffer:
        """Return a new room of these rows, in order, whose places from `length` on are free."""
        return _Buffer(_rows(self.keys, rows), _rows(self.values, rows), range(length, self.keys.shape[2]))

    def take(self, place: int) -> bool:
        """Take a place, if it is there and free. Of several threads one gets it."""
        try:
            self._free.remove(place)
        except KeyError:
            return False
        return True
