"""A Transformer's decoder at the next position of many rows, as formulas on raw arrays.

Decoding token by token calls these when gradients are off. They compute what the modules of the layers compute one by
one, in one call, which a kernel makes fast: matrices are prepared once (`panels_of`), keys and values are written where
they stay, and each row looks up those of its earlier positions by index, so that a search that drops, repeats or
reorders rows copies only indices.

Shape suffixes: R rows, D width, E columns of a matrix, J panels, B sources, S source positions, T positions so far,
L positions there is room for, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any, NamedTuple, cast

import numpy as np

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.function import as_tensor
from tensorlib.ops.linalg import product
from tensorlib.ops.normalize import layer_norm_formula
from tensorlib.ops.reduce import logsumexp
from tensorlib.ops.softmax import softmax_formula
from tensorlib.ops.sorting import topk

__all__ = [
    "COLUMNS",
    "DecoderLayer",
    "Memory",
    "SubLayer",
    "decoder_step",
    "largest_and_total",
    "panel_product",
    "panels_of",
    "reorder_rows",
]

COLUMNS = 16  # in a panel


@singledispatch
def panels_of(weight_DE: Array) -> Array:
    """Return the columns of a matrix in panels (J, D, COLUMNS), which a product reads in order.

    The last panel is padded with zeros.

    Kernels: numba/next_position.py.

    >>> panels_of(np.ones((3, 17))).shape
    (2, 3, 16)
    """
    rows, columns = weight_DE.shape
    full, rest = divmod(columns, COLUMNS)
    panels_JDC = namespace_of(weight_DE).empty((full + (rest > 0), rows, COLUMNS), weight_DE.dtype)
    panels_JDC[:full] = weight_DE[:, : columns - rest].reshape(rows, full, COLUMNS).swapaxes(0, 1)
    if rest:
        panels_JDC[full, :, :rest] = weight_DE[:, columns - rest :]
        panels_JDC[full, :, rest:] = 0
    return panels_JDC


class SubLayer(NamedTuple):
    """The parameters of a sub-layer with two matrices, and of its Add & Norm."""

    first: Array
    """The matrix (D, E) that is applied first, as panels."""
    first_bias: Array
    second: Array
    second_bias: Array
    norm_weight: Array
    norm_bias: Array
    eps: float
    pre: bool
    """Whether x + f(LayerNorm(x)) is computed instead of LayerNorm(x + f(x))."""


class DecoderLayer(NamedTuple):
    """The sub-layers of a decoder layer."""

    own: SubLayer
    cross: SubLayer
    feed_forward: SubLayer


class Memory(NamedTuple):
    """What all rows may read: their sources' keys and values, side by side, for each layer."""

    keys_values_BSE: Sequence[Array]
    visible_BS: Array
    source_R: Array
    """The source of each row."""


@singledispatch
def decoder_step(
    x_RD: Array, layers: Sequence[DecoderLayer], kept_LRE: Sequence[Array], slot_RT: Array, memory: Memory, heads: int
) -> Array:
    """Return the output of all layers for the rows' last position, T - 1.

    ``kept[layer][t, slot[r, t]]`` are the keys and values of row r at position t, side by side. Those of the last
    position are written there.

    Kernels: numba/next_position.py.
    """
    for number, layer in enumerate(layers):
        x_RD = self_attention_step(x_RD, layer.own, kept_LRE[number], slot_RT, heads)
        keys_values_RSE = memory.keys_values_BSE[number][memory.source_R]
        x_RD = cross_attention_step(x_RD, layer.cross, keys_values_RSE, memory.visible_BS[memory.source_R], heads)
        x_RD = feed_forward_step(x_RD, layer.feed_forward)
    return x_RD


@singledispatch
def panel_product(x_RD: Array, panels_JDC: Array, columns: int) -> Array:
    """Return x W, where the panels hold W of this number of columns.

    Kernels: numba/next_position.py.
    """
    return product(x_RD, panels_JDC.swapaxes(0, 1).reshape((x_RD.shape[1], -1))[:, :columns])


@singledispatch
def largest_and_total(logits_RV: Array, count: int) -> tuple[Array, Array, Array]:
    """Return for each row the `count` largest logits, the largest first, their columns, and log sum exp of the row.

    Equal logits keep their order. A NaN makes the total NaN.

    Kernels: numba/next_position.py, cuda/next_position.py.
    """
    logits = as_tensor(logits_RV)
    best, columns = topk(logits, count)
    return best.array, columns.array, logsumexp(logits, axis=-1).array


@singledispatch
def reorder_rows(kept_RHLK: Array, row_R: Array, position: Array, beam: int) -> None:
    """Let row r continue row ``row_R[r]``, in place, at the positions before ``position[0]``.

    Each source has `beam` rows, side by side, and a row may only continue one of its own source.

    Kernels: cuda/next_position.py.

    >>> kept = np.array([3.0, 4.0]).reshape(2, 1, 1, 1)
    >>> reorder_rows(kept, np.array([1, 1]), np.array([1]), 2)
    >>> kept.reshape(-1)
    array([4., 4.])
    """
    xp, kept = namespace_of(kept_RHLK), cast("Any", kept_RHLK)
    moves_L1 = (xp.arange(kept.shape[2]) < position)[:, None]
    kept[...] = xp.where(moves_L1, kept[row_R], kept)


# ---- the sub-layers ----------------------------------------------------------------------------------------------


def self_attention_step(x_RD: Array, layer: SubLayer, kept_LRE: Array, slot_RT: Array, heads: int) -> Array:
    """Return self-attention of the last position to all positions; the first matrix projects to q, k and v."""
    xp, (rows, length), width = namespace_of(x_RD), slot_RT.shape, x_RD.shape[1]

    def attention(z_RD: Array) -> Array:
        projected = _first(z_RD, layer)
        kept: Any = kept_LRE
        kept[length - 1, slot_RT[:, -1]] = projected[:, width:]
        keys_values_RTE = kept_LRE[xp.arange(length), slot_RT]
        return _second(_attend(projected[:, :width], keys_values_RTE, xp.ones((rows, length), bool), heads), layer)

    return _add_norm(x_RD, attention, layer)


def cross_attention_step(x_RD: Array, layer: SubLayer, keys_values_RSE: Array, visible_RS: Array, heads: int) -> Array:
    """Return attention of each row to the visible positions of its source; the first matrix projects to queries."""
    return _add_norm(
        x_RD, lambda z_RD: _second(_attend(_first(z_RD, layer), keys_values_RSE, visible_RS, heads), layer), layer
    )


def feed_forward_step(x_RD: Array, layer: SubLayer) -> Array:
    """Return max(x W1 + b1, 0) W2 + b2."""

    def feed_forward(z_RD: Array) -> Array:
        hidden = _first(z_RD, layer)
        return _second(namespace_of(hidden).maximum(hidden, 0), layer)

    return _add_norm(x_RD, feed_forward, layer)


def _first(x_RD: Array, layer: SubLayer) -> Array:
    return panel_product(x_RD, layer.first, len(layer.first_bias)) + layer.first_bias


def _second(x_RD: Array, layer: SubLayer) -> Array:
    return panel_product(x_RD, layer.second, len(layer.second_bias)) + layer.second_bias


def _add_norm(x_RD: Array, sublayer: Callable[[Array], Array], layer: SubLayer) -> Array:
    def normalized(z_RD: Array) -> Array:
        return layer_norm_formula(z_RD, layer.norm_weight, layer.norm_bias, layer.eps)[0]

    return x_RD + sublayer(normalized(x_RD)) if layer.pre else normalized(x_RD + sublayer(x_RD))


def _attend(q_RD: Array, keys_values_RTE: Array, visible_RT: Array, heads: int) -> Array:
    """Return softmax(q k^T / sqrt(K)) v of each head, for one query per row."""
    rows, length, _ = keys_values_RTE.shape
    parts_RT2HK = keys_values_RTE.reshape((rows, length, 2, heads, q_RD.shape[1] // heads))
    k_RTHK, v_RTHK = parts_RT2HK[:, :, 0], parts_RT2HK[:, :, 1]
    q_R1HK = q_RD.reshape((rows, 1, heads, q_RD.shape[1] // heads))
    scores_RTH = (q_R1HK * k_RTHK).sum(axis=-1) / float(np.sqrt(q_R1HK.shape[-1]))
    weights_RTH = softmax_formula(scores_RTH, 1, visible_RT[:, :, None])
    return (weights_RTH[..., None] * v_RTHK).sum(axis=1).reshape(q_RD.shape)
