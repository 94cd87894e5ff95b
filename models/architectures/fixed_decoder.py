"""A Transformer's decoder with arrays of fixed shapes on a device, so that one recorded step serves every position.

A `DecoderState` grows with every token, so each step has other shapes. Here all rows stay, keys and values have room
for all positions, and the position is a number on the device: a step is the same work each time, which `tl.capture`
records once. Later positions, which hold nothing yet, are hidden by a mask.

Shape suffixes: B sources, N targets of each source, R = B N rows, S source length, L positions there is room for,
D width, H heads, K head width, V vocabulary.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from threading import RLock
from typing import TYPE_CHECKING, Any

import nn
import tensorlib as tl
from models.architectures.prepared import takes_part_alone
from tensorlib.engine.recording import STATE
from tensorlib.engine.value import wrap
from tensorlib.ops.next_position import reorder_rows

if TYPE_CHECKING:
    from models.architectures.transformer import DecoderLayer, Transformer

__all__ = ["FixedDecoder", "FixedDecoders", "can_fix"]

KEPT = 6  # decoders, each with its room and its recordings
FIRST = 8  # rows, source lengths and rooms are rounded up to 8, 12, 16, 24, 32, 48, 64, ...


def can_fix(model: Transformer, layer: type) -> bool:
    """Return whether a step can be recorded and computes what the model's modules do, with layers of this class.

    The device must record, no gradients be recorded, and no module have hooks or dropout that acts.
    """
    if not model.backend.records or tl.is_grad_enabled() or STATE.get().formulas:
        return False
    known = all(type(one) is layer for one in model.decoder.layers)
    return known and all(takes_part_alone(module) for module in model.modules())


def rounded_up(number: int) -> int:
    """Return the smallest of 8, 12, 16, 24, 32, 48, 64, ... that is at least `number`.

    >>> [rounded_up(number) for number in (1, 9, 13, 33, 100)]
    [8, 12, 16, 48, 128]
    """
    power = FIRST
    while power < number:
        power *= 2
    return 3 * power // 4 if number <= 3 * power // 4 and power > FIRST else power


class FixedDecoder:
    """Keys, values and the position of B sources with N targets each. `begin` reads sources, `next_logits` steps.

    All arrays are written in place, and stay where they are. `searches` holds what a search keeps beside them.
    """

    def __init__(self, model: Transformer, sources: int, beam: int, room: int, source_length: int) -> None:
        config, xp = model.config, model.backend.xp
        dtype = model.first_embedding.weight.dtype
        heads, width = config.heads, config.width // config.heads
        self.model, self.sources, self.beam, self.room, self.source_length = model, sources, beam, room, source_length
        self.searches: dict[Any, Any] = {}
        self.lock = RLock()
        rows, each = sources * beam, range(config.layers)
        self.own: list[tuple[Any, Any]] = [_pair(xp, (rows, heads, room, width), dtype) for _ in each]
        self.cross: list[tuple[Any, Any]] = [_pair(xp, (sources, heads, source_length, width), dtype) for _ in each]
        self.visible: Any = xp.zeros((sources, 1, 1, source_length), bool)
        self.position: Any = xp.zeros(1, "int64")
        self._table = _position_table(model, room)

    def begin(self, source_BS: Any) -> None:
        """Read sources, ids on the device: their keys and values, after which no target has a token."""
        model = self.model
        visible_BS = model.visible(source_BS)
        memory_BSD = model.encode(source_BS, visible_BS)
        self.visible[...] = visible_BS.data.reshape(self.visible.shape)
        for layer, arrays in zip(model.decoder.layers, self.cross, strict=True):
            for array, new in zip(arrays, layer.cross_attention.keys_values(memory_BSD), strict=True):
                array[...] = new.data
        for pair in self.own:  # hidden positions weigh nothing, but 0 times a NaN of an earlier search would be NaN
            for array in pair:
                array.fill(0)
        self.position.fill(0)

    def reorder(self, rows_R: Any) -> None:
        """Let row r continue the target of row rows_R[r], a row of the same source; on the device."""
        for pair in self.own:
            for array in pair:
                reorder_rows(array, rows_R, self.position, self.beam)

    def next_logits(self, ids_BN: Any) -> tl.Tensor:
        """Append a token to each row, ids on the device; return the logits (R, V) for the next token.

        They equal those of `Transformer.decode_step`.
        """
        model = self.model
        x_BND = model.target_embedding(ids_BN) * math.sqrt(model.config.width)
        if self._table is not None:
            x_BND = x_BND + self._table[wrap(self.position)]
        for number, layer in enumerate(model.decoder.layers):
            x_BND = self._layer(x_BND, layer, number)
        if model.decoder.norm is not None:
            x_BND = model.decoder.norm(x_BND)
        self.position += 1
        return model.logits(x_BND).reshape(self.sources * self.beam, -1)

    def _layer(self, x_BND: tl.Tensor, layer: DecoderLayer, number: int) -> tl.Tensor:
        x_BND = layer.attention_residual(x_BND, self._attend_to_past, layer.attention, self.own[number])
        x_BND = layer.cross_attention_residual(x_BND, self._attend_to_source, layer.cross_attention, self.cross[number])
        return layer.feed_forward_residual(x_BND, layer.feed_forward)

    def _attend_to_past(self, x_BND: tl.Tensor, attention: nn.MultiHeadAttention, kept: tuple[Any, Any]) -> tl.Tensor:
        """Return self-attention of the position, after writing its keys and values; each row has its own past."""
        x_R1D = x_BND.reshape(self.sources * self.beam, 1, -1)
        q_RH1K, *new = attention.queries_keys_values(x_R1D, wrap(self.position))
        for array, one in zip(kept, new, strict=True):
            array[:, :, self.position] = one.data
        seen = self.model.backend.xp.arange(self.room) <= self.position
        keys_RHLK, values_RHLK = map(wrap, kept)
        y_R1D = attention.attend(q_RH1K, keys_RHLK, values_RHLK, wrap(seen.reshape(1, 1, 1, self.room)))
        return y_R1D.reshape(x_BND.shape)

    def _attend_to_source(self, x_BND: tl.Tensor, attention: nn.MultiHeadAttention, kept: tuple[Any, Any]) -> tl.Tensor:
        """Return attention to the source, which all targets of a source share: they are its queries."""
        keys_BHSK, values_BHSK = map(wrap, kept)
        return attention.attend(attention.queries(x_BND), keys_BHSK, values_BHSK, wrap(self.visible))


def _pair(xp: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    return xp.zeros(shape, dtype), xp.zeros(shape, dtype)


def _position_table(model: Transformer, room: int) -> tl.Tensor | None:
    """Return the encodings (L, D) that are added to embeddings, if there are any; rotary ones are prepared."""
    positions = model.target_positions
    if isinstance(positions, nn.LearnedPositions):
        return positions.weight
    if isinstance(positions, nn.SinusoidalPositions):
        return positions.rows(0, room)
    for layer in model.decoder.layers:
        if layer.attention.rotary is not None:
            layer.attention.rotary.prepare(room, model.first_embedding.weight)
    return None


class FixedDecoders:
    """The decoders of one model that were used last, by their shapes. A copy of the model has none."""

    def __init__(self) -> None:
        self._decoders: OrderedDict[Any, FixedDecoder] = OrderedDict()
        self._lock = RLock()

    def get(self, model: Transformer, sources: int, beam: int, longest: int, source_length: int) -> FixedDecoder:
        """Return a decoder with at least this room, a new one if there is none; the one used the longest ago goes.

        Shapes are rounded up, so that a few decoders serve.
        """
        shape = rounded_up(sources), beam, rounded_up(longest), rounded_up(source_length)
        key = shape, model.first_embedding.weight.dtype, model.backend.name
        with self._lock:
            decoder = self._decoders.pop(key, None) or FixedDecoder(model, *shape)
            self._decoders[key] = decoder
            while len(self._decoders) > KEPT:
                self._decoders.popitem(last=False)
            return decoder

    def __deepcopy__(self, memo: dict[int, Any]) -> FixedDecoders:
        return FixedDecoders()

    def __reduce__(self) -> Any:
        return FixedDecoders, ()
