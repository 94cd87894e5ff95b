"""Decoding state whose rows look up their keys and values by index, for the kernels of `prepared`.

A search drops, repeats and reorders rows at every step. Here that moves only indices: keys and values stay where they
were written, and those of the memory are kept once for each source, however many rows translate it.

Shape suffixes: B sources, S source length, R rows, T tokens so far, L positions there is room for, D width, E = 2 D
for keys and values side by side, K head width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import tensorlib as tl
from models.architectures.decoder_state import DecoderState, FreePositions, KeyValueCache
from models.architectures.layers import next_vectors
from models.architectures.prepared import PreparedDecoder
from tensorlib.ops.next_position import Memory, decoder_step

if TYPE_CHECKING:
    from models.architectures.transformer import Transformer

__all__ = ["IndexedState"]

MIN_ROOM = 16  # positions of a new buffer
Indices = NDArray[np.int64]


class _Buffer:
    """Keys and values of all rows and positions, an array (L, R, E) for each layer, and which positions are free."""

    def __init__(self, arrays: list[np.ndarray], free: range) -> None:
        self.arrays, self.free = arrays, FreePositions(free)

    def room_for(self, slot_RT: Indices) -> tuple[_Buffer, Indices]:
        """Claim the next position for these rows; return the buffer and the slots of the keys and values so far.

        If the position is taken, by another state that continues the same one, or if the buffer is full, the result is
        a copy of what the rows use.
        """
        (rows, length), (positions, slots, width) = slot_RT.shape, self.arrays[0].shape
        if rows <= slots and self.free.claim(length):
            return self, slot_RT
        shape = positions if length < positions else max(2 * length, MIN_ROOM), rows, width
        arrays = [np.empty(shape, old.dtype) for old in self.arrays]
        for new, old in zip(arrays, self.arrays, strict=True):
            new[:length] = old[np.arange(length)[:, None], slot_RT.T]
        every = np.broadcast_to(np.arange(rows)[:, None], (rows, length))
        return _Buffer(arrays, range(length + 1, shape[0])), every


@dataclass(frozen=True, eq=False)
class IndexedState:
    """The state between decoding steps. It is immutable: a step returns a new state.

    It holds a copy of the decoder's matrices. If a weight is replaced, a hook is registered or gradients are turned on,
    decoding continues through the modules; only elements written into an array of a weight go unnoticed.
    """

    decoder: PreparedDecoder
    visible_BS: np.ndarray
    """Source positions that may be attended to."""
    memory_BSE: tuple[np.ndarray, ...]
    """For each layer, keys and values of the memory."""
    buffer: _Buffer
    """Keys and values of the tokens so far."""
    slot_RT: Indices
    """The keys and values of row r at position t are ``buffer.arrays[layer][t, slot_RT[r, t]]``."""
    source_R: Indices
    """The source of each row."""

    selects_by_index = True  # see models.decoding.protocols.StepState

    @classmethod
    def starting(cls, model: Transformer, memory_BSD: tl.Tensor, visible: tl.Tensor | None) -> IndexedState:
        """Return the state before the first token, with one row for each source; see `prepared.can_prepare`."""
        sources, length, _ = memory_BSD.shape
        decoder = PreparedDecoder(model)
        memory_BSE = tuple(decoder.keys_values(memory_BSD.data))
        visible_BS = np.ones((sources, length), bool)
        if visible is not None:
            visible_BS &= visible.data.reshape(sources, length)
        buffer = _Buffer([np.empty((0, 0, m.shape[2]), m.dtype) for m in memory_BSE], range(0))
        return cls(decoder, visible_BS, memory_BSE, buffer, np.empty((sources, 0), np.int64), np.arange(sources))

    @property
    def length(self) -> int:
        """Number of tokens so far."""
        return self.slot_RT.shape[1]

    @property
    def rows(self) -> int:
        """Number of targets that are decoded."""
        return len(self.source_R)

    def select(self, rows: ArrayLike) -> IndexedState:
        """Return the state of the given rows (indices or booleans), which may drop, repeat or reorder them."""
        rows = np.asarray(rows)
        return replace(self, slot_RT=self.slot_RT[rows], source_R=self.source_R[rows])

    def next_logits(self, model: Transformer, ids_R: np.ndarray) -> tuple[tl.Tensor, IndexedState]:
        """Append a token to each row; return the logits (R, V) for the next token, and the new state."""
        decoder = self.decoder
        x_RD = next_vectors(model.target_embedding, model.target_positions, ids_R, self.length)
        buffer, slot_RT = self.buffer.room_for(self.slot_RT)
        slot_RT = np.concatenate([slot_RT, np.arange(self.rows)[:, None]], axis=1)
        memory = Memory(self.memory_BSE, self.visible_BS, self.source_R)
        y_RD: Any = decoder_step(x_RD, decoder.layers, buffer.arrays, slot_RT, memory, decoder.heads)
        return decoder.logits(y_RD), replace(self, buffer=buffer, slot_RT=slot_RT)

    def as_tensors(self) -> DecoderState:
        """Return the same state as Tensors of each row, for the steps of modules."""
        positions = np.arange(self.length)
        own = [self._heads(a[positions, self.slot_RT]) for a in self.buffer.arrays] if self.length else []
        return DecoderState(
            length=self.length,
            visible=tl.from_numpy(self.visible_BS[self.source_R][:, None, None]),
            cross=tuple(self._heads(m[self.source_R]) for m in self.memory_BSE),
            own=tuple(KeyValueCache(k, v) for k, v in own),
            source_B=self.source_R,
        )

    def _heads(self, keys_values_RTE: np.ndarray) -> tuple[tl.Tensor, tl.Tensor]:
        """Return keys and values as (R, H, T, K) each."""
        rows, length, _ = keys_values_RTE.shape
        heads, width = self.decoder.heads, self.decoder.width
        parts = keys_values_RTE.reshape(rows, length, 2, heads, width // heads).transpose(2, 0, 3, 1, 4)
        return tl.from_numpy(parts[0]), tl.from_numpy(parts[1])
