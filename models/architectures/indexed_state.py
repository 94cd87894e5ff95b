"""Decoding state whose rows find their keys and values by index, for the sub-layers of `tensorlib.ops.next_position`.

A search drops, repeats and reorders rows at every step. Here that moves only indices: keys and values stay where they
were written, and those of the memory are kept once for each source, however many rows translate it.

Shape suffixes: B sources, S source length, R rows, T tokens so far, L positions there is room for, D width, E = 2 D
for keys and values side by side, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import nn
import tensorlib as tl
from models.architectures.decoder_state import DecoderState, KeyValueCache
from models.architectures.layers import next_vectors
from nn.layers import run_as_one_op
from tensorlib.kernels import chosen
from tensorlib.ops.next_position import Layer, Memory, SubLayer, decoder_step, panels_of, projection_step

if TYPE_CHECKING:
    from models.architectures.transformer import Decoder, DecoderLayer, Transformer

__all__ = ["IndexedState", "PreparedDecoder", "can_step"]

FEWEST_SOURCES = 8
MIN_ROOM = 16  # positions of a new buffer
Ids = NDArray[np.int64]


# ---- weights -----------------------------------------------------------------------------------------------------


def _prepared(layer: DecoderLayer) -> Layer:
    own, cross, feed_forward = layer.attention, layer.cross_attention, layer.feed_forward
    queries = slice(0, cross.output.weight.shape[0])
    return Layer(
        _sublayer(own.projection, own.output, layer.attention_residual),
        _sublayer(cross.projection, cross.output, layer.cross_attention_residual, queries),
        _sublayer(feed_forward.hidden, feed_forward.output, layer.feed_forward_residual),
    )


def _sublayer(first: Any, second: Any, residual: Any, columns: slice = slice(None)) -> SubLayer:
    norm = residual.norm
    return SubLayer(
        panels_of(first.weight.data[:, columns]), first.bias.data[columns], panels_of(second.weight.data),
        second.bias.data, norm.weight.data, norm.bias.data, norm.eps, residual.order == "pre",
    )  # fmt: skip


class PreparedDecoder:
    """A decoder's weights, and the matrix of the logits, in the layout that its steps read."""

    def __init__(self, decoder: Decoder, output_weight: tl.Tensor) -> None:
        self.layers = [_prepared(layer) for layer in decoder.layers]
        self.heads = decoder.layers[0].attention.heads
        self.output = panels_of(output_weight.data)
        self.width, self.vocabulary = output_weight.shape
        self._cross: list[Any] = [layer.cross_attention.projection for layer in decoder.layers]

    def keys_values(self, memory_BSD: np.ndarray) -> list[np.ndarray]:
        """Return each layer's keys and values (B, S, E) of the memory."""
        rows, keys_values = memory_BSD.reshape(-1, self.width), []
        for projection in self._cross:
            panels, bias = panels_of(projection.weight.data[:, self.width :]), projection.bias.data[self.width :]
            projected: Any = projection_step(rows, panels, len(bias))
            projected += bias
            keys_values.append(projected.reshape(*memory_BSD.shape[:2], len(bias)))
        return keys_values

    def logits(self, x_RD: np.ndarray) -> np.ndarray:
        """Return the logits (R, V)."""
        y_RV: Any = projection_step(x_RD, self.output, self.vocabulary)
        return y_RV


_ATTENTION = ["nn.attention.MultiHeadAttention", "nn.layers.Linear", "nn.layers.Linear"]
_ADD_NORM = ["models.architectures.transformer.AddNorm", "nn.layers.LayerNorm", "nn.layers.Dropout"]
_FEED_FORWARD = ["nn.layers.FeedForward", "nn.layers.LinearRelu", "nn.layers.Linear"]
LAYER = ["models.architectures.transformer.DecoderLayer", *2 * (_ATTENTION + _ADD_NORM), *_FEED_FORWARD, *_ADD_NORM]
"""The modules of a layer that these steps compute; any other is called as it is."""


def can_step(decoder: Decoder, sources: int) -> bool:
    """Return whether compiled kernels may compute the steps of this decoder instead of its modules.

    They must be installed, no gradient and no recording of every op wanted, and each module of the known class, with
    biases, in evaluation mode and without hooks. For a few sentences, nobody should wait until kernels are compiled.
    """
    if tl.is_grad_enabled() or chosen() != "numba" or sources < FEWEST_SOURCES:
        return False
    for layer in decoder.layers:
        modules = list(layer.modules())
        if [f"{type(m).__module__}.{type(m).__qualname__}" for m in modules] != LAYER:
            return False
        if any(m.training or m._hooks or m._pre_hooks or "forward" in vars(m) for m in modules):
            return False
        if not run_as_one_op(*[m for m in modules if isinstance(m, nn.Linear | nn.LayerNorm)]):
            return False
    return all(isinstance(p.data, np.ndarray) and p.dtype.char in "fd" for p in decoder.parameters())


# ---- the state ---------------------------------------------------------------------------------------------------


class _Kept:
    """Keys and values of all rows and positions, an array (L, R, E) for each layer, and which positions are free."""

    def __init__(self, arrays: list[np.ndarray], free: range) -> None:
        self.arrays = arrays
        self._free = set(free)

    def with_position(self, position: int, rows: int) -> _Kept:
        """Return what has this position free, for so many rows, and claim it: this, or a copy with more room.

        A position is claimed only once, so states that continue the same state do not overwrite each other's.
        """
        length, room, width = self.arrays[0].shape
        if rows <= room and self._claim(position):
            return self
        shape = length if position < length else max(2 * length, MIN_ROOM), max(rows, room), width
        arrays = [np.empty(shape, a.dtype) for a in self.arrays]
        for new, old in zip(arrays, self.arrays, strict=True):
            new[:position, :room] = old[:position]
        return _Kept(arrays, range(position + 1, shape[0]))

    def _claim(self, position: int) -> bool:
        try:
            self._free.remove(position)
        except KeyError:
            return False
        return True


@dataclass(frozen=True, eq=False)
class IndexedState:
    """The state between decoding steps. It is immutable: a step returns a new state. Weights are those of the start."""

    decoder: PreparedDecoder
    visible_BS: np.ndarray
    """Source positions that may be attended to."""
    memory: tuple[np.ndarray, ...]
    """For each layer, keys and values (B, S, E) of the memory."""
    kept: _Kept
    """Keys and values of the tokens so far."""
    place_RT: Ids
    """The keys and values of row r at position t are ``kept.arrays[layer][t, place_RT[r, t]]``."""
    source_R: Ids
    """The source of each row."""

    selects_by_index = True

    @classmethod
    def starting(cls, model: Transformer, memory_BSD: tl.Tensor, visible: tl.Tensor | None) -> IndexedState:
        """Return the state before the first token, with one row for each source; see `Transformer.start`."""
        sources, length, _ = memory_BSD.shape
        visible_BS = np.ones((sources, length), bool)
        if visible is not None:
            visible_BS &= visible.numpy().reshape(sources, length)
        decoder = PreparedDecoder(model.decoder, model.output_weight())
        memory = tuple(decoder.keys_values(memory_BSD.data))
        kept = _Kept([np.empty((0, 0, m.shape[2]), m.dtype) for m in memory], range(0))
        nowhere, every = np.empty((sources, 0), np.int64), np.arange(sources)
        return cls(decoder, visible_BS, memory, kept, nowhere, every)

    @property
    def length(self) -> int:
        """Number of tokens so far."""
        return self.place_RT.shape[1]

    @property
    def rows(self) -> int:
        """Number of targets that are decoded."""
        return len(self.source_R)

    def select(self, rows: ArrayLike) -> IndexedState:
        """Return the state of the given rows (indices or booleans), which may drop, repeat or reorder them."""
        rows = np.asarray(rows)
        return replace(self, place_RT=self.place_RT[rows], source_R=self.source_R[rows])

    def next_logits(self, model: Transformer, ids_R: np.ndarray) -> tuple[tl.Tensor, IndexedState]:
        """Append a token to each row; return the logits (R, V) for the next token, and the new state."""
        decoder, kept = self.decoder, self.kept.with_position(self.length, self.rows)
        place_RT = np.concatenate([self.place_RT, np.arange(self.rows)[:, None]], axis=1)
        x_RD = next_vectors(model.target_embedding, model.target_positions, ids_R, self.length)
        memory = Memory(self.memory, self.visible_BS, self.source_R)
        y_RD: Any = decoder_step(x_RD, decoder.layers, kept.arrays, place_RT, memory, decoder.heads)
        if model.decoder.norm is not None:
            y_RD = model.decoder.norm(tl.from_numpy(y_RD)).data
        return tl.from_numpy(decoder.logits(y_RD)), replace(self, kept=kept, place_RT=place_RT)

    def as_tensors(self) -> DecoderState:
        """Return the same state as Tensors of each row, for steps that record a graph."""
        positions = np.arange(self.length)
        own = [self._heads(a[positions, self.place_RT]) for a in self.kept.arrays] if self.length else []
        return DecoderState(
            length=self.length,
            visible=tl.from_numpy(self.visible_BS[self.source_R][:, None, None]),
            cross=tuple(self._heads(m[self.source_R]) for m in self.memory),
            own=tuple(KeyValueCache(k, v) for k, v in own),
            source_B=self.source_R,
        )

    def _heads(self, keys_values_RTE: np.ndarray) -> tuple[tl.Tensor, tl.Tensor]:
        rows, length, _ = keys_values_RTE.shape
        parts = keys_values_RTE.reshape(rows, length, 2, self.decoder.heads, -1).transpose(2, 0, 3, 1, 4)
        return tl.from_numpy(parts[0]), tl.from_numpy(parts[1])
