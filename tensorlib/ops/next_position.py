"""A Transformer's sub-layers at the next position of many rows, as formulas on raw arrays.

Decoding token by token calls these where no gradient is wanted. They compute what the modules of a layer compute one
by one, in one call per sub-layer, which kernels make fast: matrices are prepared once (`panels_of`), keys and values
are written where they stay, and each row finds those of its earlier positions by index, so that a search that drops,
repeats or reorders rows copies only indices.

Shape suffixes: R rows, D width, E columns of a matrix, J panels, B sources, S source positions, T positions so far,
L positions there is room for, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.ops.normalize import layer_norm_formula
from tensorlib.ops.softmax import softmax_formula

__all__ = [
    "COLUMNS",
    "SubLayer",
    "cross_attention_step",
    "feed_forward_step",
    "panels_of",
    "projection_step",
    "self_attention_step",
]

COLUMNS = 16  # of a panel


def panels_of(weight_DE: Array) -> Array:
    """Return the columns of a matrix in panels (J, D, COLUMNS), which a product reads in order; the last ends in 0s.

    >>> panels_of(np.ones((3, 17))).shape
    (2, 3, 16)
    """
    xp = namespace_of(weight_DE)
    rows, columns = weight_DE.shape
    count = -(-columns // COLUMNS)
    padded = xp.zeros((rows, count * COLUMNS), weight_DE.dtype)
    padded[:, :columns] = weight_DE
    return xp.ascontiguousarray(padded.reshape(rows, count, COLUMNS).swapaxes(0, 1))


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


@singledispatch
def projection_step(x_RD: Array, panels_JDC: Array, columns: int) -> Array:
    """Return x W, where the panels hold W of this number of columns.

    Kernels: numba/next_position.py.
    """
    return _product(x_RD, panels_JDC, columns)


@singledispatch
def feed_forward_step(x_RD: Array, layer: SubLayer) -> Array:
    """Return the feed-forward sub-layer max(x W1 + b1, 0) W2 + b2, with Add & Norm.

    Kernels: numba/next_position.py.
    """

    def feed_forward(z_RD: Array) -> Array:
        hidden = _first(z_RD, layer)
        return _second(hidden * (hidden > 0), layer)

    return _add_norm(x_RD, feed_forward, layer)


@singledispatch
def self_attention_step(
    x_RD: Array, layer: SubLayer, kept_LRE: Array, place_RT: Array, heads: int
) -> Array:
    """Return self-attention of the rows' last position, T - 1, to all T positions, with Add & Norm.

    The first matrix projects to queries, keys and values, side by side. ``kept[t, place[r, t]]`` are the keys and values
    of row r at position t, side by side. Those of the last position are written there first.

    Kernels: numba/next_position.py.
    """
    xp, (rows, length), width = namespace_of(x_RD), place_RT.shape, x_RD.shape[1]

    def attention(z_RD: Array) -> Array:
        projected = _first(z_RD, layer)
        kept_LRE[length - 1, place_RT[:, -1]] = projected[:, width:]
        keys_values_RTE = kept_LRE[xp.arange(length), place_RT]
        return _second(_attend(projected[:, :width], keys_values_RTE, xp.ones((rows, length), bool), heads), layer)

    return _add_norm(x_RD, attention, layer)


@singledispatch
def cross_attention_step(
    x_RD: Array, layer: SubLayer, memory_BSE: Array, visible_BS: Array, source_R: Array, heads: int
) -> Array:
    """Return attention of each row to the visible positions of its source, with Add & Norm.

    The first matrix projects to queries; ``memory[source[r]]`` are the keys and values of row r, side by side.

    Kernels: numba/next_position.py.
    """

    def attention(z_RD: Array) -> Array:
        keys_values_RSE, visible_RS = memory_BSE[source_R], visible_BS[source_R]
        return _second(_attend(_first(z_RD, layer), keys_values_RSE, visible_RS, heads), layer)

    return _add_norm(x_RD, attention, layer)


# ---- what the formulas share -------------------------------------------------------------------------------------


def _product(x_RD: Array, panels_JDC: Array, columns: int) -> Array:
    return x_RD @ panels_JDC.swapaxes(0, 1).reshape(x_RD.shape[1], -1)[:, :columns]


def _first(x_RD: Array, layer: SubLayer) -> Array:
    return _product(x_RD, layer.first, len(layer.first_bias)) + layer.first_bias


def _second(x_RD: Array, layer: SubLayer) -> Array:
    return _product(x_RD, layer.second, len(layer.second_bias)) + layer.second_bias


def _add_norm(x_RD: Array, sublayer: Callable[[Array], Array], layer: SubLayer) -> Array:
    def normalized(z_RD: Array) -> Array:
        return layer_norm_formula(z_RD, layer.norm_weight, layer.norm_bias, layer.eps)[0]

    return x_RD + sublayer(normalized(x_RD)) if layer.pre else normalized(x_RD + sublayer(x_RD))


def _attend(q_RD: Array, keys_values_RTE: Array, visible_RT: Array, heads: int) -> Array:
    """Return softmax(q k^T / sqrt(K)) v of each head, for one query per row."""
    rows, length, _ = keys_values_RTE.shape
    parts_RTHK: Any = keys_values_RTE.reshape(rows, length, 2, heads, -1)
    k_RTHK, v_RTHK = parts_RTHK[:, :, 0], parts_RTHK[:, :, 1]
    q_R1HK = q_RD.reshape(rows, 1, heads, -1)
    scores_RTH = (q_R1HK * k_RTHK).sum(axis=-1) / float(np.sqrt(q_R1HK.shape[-1]))
    weights_RTH = softmax_formula(scores_RTH, 1, visible_RT[:, :, None])
    return (weights_RTH[..., None] * v_RTHK).sum(axis=1).reshape(q_RD.shape)
