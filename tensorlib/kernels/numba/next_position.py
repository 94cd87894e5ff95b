"""A Transformer's sub-layers at the next position: some rows go through a whole sub-layer in one compiled call."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.threads import share
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.compiling import compiled, summing
from tensorlib.kernels.numba.linear import add_bias
from tensorlib.kernels.numba.normalize import normalize_row
from tensorlib.kernels.numba.rows import serves
from tensorlib.kernels.numba.softmax import exponentials, largest
from tensorlib.kernels.numba.tiles import product_of_panels
from tensorlib.kernels.numpy.blocks import even_blocks
from tensorlib.ops.next_position import (
    SubLayer,
    cross_attention_step,
    feed_forward_step,
    projection_step,
    self_attention_step,
)

FEWEST, MOST = 8, 64  # rows of a piece: each piece reads all matrices, but must fit in the cache


# ---- compiled ----------------------------------------------------------------------------------------------------


@compiled
def project(x: Any, panels: Any, bias: Any, z: Any) -> None:
    """Write x W + b to z."""
    product_of_panels(x, panels, z)
    add_bias(bias, z)


@summing
def normalize(x: Any, weight: Any, bias: Any, eps: Any, y: Any) -> None:
    """Write LayerNorm of each row to y, which may be x."""
    for i in range(x.shape[0]):
        normalize_row(x, i, weight, bias, eps, y)


@compiled
def sublayer_input(x: Any, norm: Any) -> Any:
    """Return x or, with pre-normalization, LayerNorm(x)."""
    weight, bias, eps, pre = norm
    if not pre:
        return x
    z = np.empty_like(x)
    normalize(x, weight, bias, eps, z)
    return z


@compiled
def add_and_normalize(x: Any, f: Any, norm: Any, y: Any) -> None:
    """Write x + f to y, where f is the output of the sub-layer; normalized, unless its input was."""
    weight, bias, eps, pre = norm
    if pre:
        add(x, f, y)
    else:
        z = np.empty_like(f)
        add(x, f, z)
        normalize(z, weight, bias, eps, y)


@compiled
def add(x: Any, f: Any, y: Any) -> None:
    """Write x + f to y."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] + f[i, j]


@compiled
def feed_forward_rows(x: Any, first: Any, first_bias: Any, second: Any, second_bias: Any, norm: Any, y: Any) -> None:
    """Compute the feed-forward sub-layer of some rows."""
    h, f, zero = np.empty((len(x), len(first_bias)), x.dtype), np.empty_like(x), x.dtype.type(0)
    product_of_panels(sublayer_input(x, norm), first, h)
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            z = h[i, j] + first_bias[j]
            h[i, j] = zero if z < zero else z
    project(h, second, second_bias, f)
    add_and_normalize(x, f, norm, y)


@summing
def scores(q: Any, h: int, keys_values: Any, row: Any, scale: Any, s: Any) -> None:
    """Write q k^T / sqrt(K) of head h, for each query and the rows of k that it sees; -inf where it sees none."""
    for i in range(q.shape[0]):
        for n in range(row.shape[1]):
            r = row[i, n]
            if r < 0:
                s[i, n] = -math.inf
            else:
                total = s.dtype.type(0)
                for c in range(q.shape[2]):
                    total += q[i, h, c] * keys_values[r, h, c]
                s[i, n] = total * scale


@summing
def softmax_in_place(s: Any) -> None:
    """Replace each row by its softmax; 0 everywhere if all are -inf."""
    zero, one = s.dtype.type(0), s.dtype.type(1)
    for i in range(s.shape[0]):
        total = exponentials(s, i, largest(s, i))
        factor = one / (one if total == zero else total)
        for n in range(s.shape[1]):
            s[i, n] *= factor


@compiled
def weighted_sums(w: Any, keys_values: Any, row: Any, h: int, y: Any) -> None:
    """Write w v of head h to y."""
    heads, total = y.shape[1], np.empty(y.shape[2], y.dtype)
    for i in range(y.shape[0]):
        total[:] = 0
        for n in range(row.shape[1]):
            r = row[i, n]
            if r >= 0:
                weight = w[i, n]
                for c in range(total.shape[0]):
                    total[c] += weight * keys_values[r, heads + h, c]
        y[i, h] = total


@compiled
def attend(q: Any, keys_values: Any, row: Any, y: Any) -> None:
    """Write the output (R, H, K) of each head, for queries that see the keys and values ``row[i]``, if not < 0.

    q: (R, H or more, K), of which the first H are queries. keys_values: (N, 2 H, K).
    """
    s, scale = np.empty(row.shape, q.dtype), q.dtype.type(1 / math.sqrt(y.shape[2]))
    for h in range(y.shape[1]):
        scores(q, h, keys_values, row, scale, s)
        softmax_in_place(s)
        weighted_sums(s, keys_values, row, h, y)


@compiled
def self_attention_rows(
    x: Any, first: Any, first_bias: Any, second: Any, second_bias: Any, norm: Any, kept: Any, place: Any, heads: int,
    y: Any,
) -> None:  # fmt: skip
    """Compute self-attention of some rows, and write their keys and values to `kept` (L, R, E)."""
    d, last = x.shape[1], place.shape[1] - 1
    qkv, attended, f = np.empty((len(x), 3 * d), x.dtype), np.empty_like(x), np.empty_like(x)
    project(sublayer_input(x, norm), first, first_bias, qkv)
    row, rows = np.empty(place.shape, np.int64), kept.reshape(-1, 2 * d)
    for i in range(place.shape[0]):
        for t in range(place.shape[1]):
            row[i, t] = t * kept.shape[1] + place[i, t]
        rows[row[i, last]] = qkv[i, d:]
    by_head = len(x), heads, d // heads
    attend(qkv.reshape(len(x), 3 * heads, d // heads), rows.reshape(-1, 2 * heads, d // heads), row, attended.reshape(by_head))
    project(attended, second, second_bias, f)
    add_and_normalize(x, f, norm, y)


@compiled
def cross_attention_rows(
    x: Any, first: Any, first_bias: Any, second: Any, second_bias: Any, norm: Any, memory: Any, visible: Any,
    source: Any, heads: int, y: Any,
) -> None:  # fmt: skip
    """Compute attention to the memory (B, S, E) of some rows."""
    q, attended, f = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    project(sublayer_input(x, norm), first, first_bias, q)
    length = memory.shape[1]
    row = np.empty((len(x), length), np.int64)
    for i in range(row.shape[0]):
        for s in range(length):
            row[i, s] = source[i] * length + s if visible[source[i], s] else -1
    by_head, width = (len(x), heads, x.shape[1] // heads), x.shape[1] // heads
    attend(q.reshape(by_head), memory.reshape(-1, 2 * heads, width), row, attended.reshape(by_head))
    project(attended, second, second_bias, f)
    add_and_normalize(x, f, norm, y)


# ---- the kernels -------------------------------------------------------------------------------------------------


def _pieces(rows: int) -> list[slice]:
    if rows < 2 * FEWEST:
        return [slice(0, rows)]
    return even_blocks(rows, 2 * -(-rows // (2 * MOST)))


def _arguments(layer: SubLayer, dtype: np.dtype) -> tuple[Any, ...]:
    return (*layer[:4], (layer.norm_weight, layer.norm_bias, dtype.type(layer.eps), layer.pre))


@overrides(projection_step)
def _projection_kernel(before: Callable[..., Array], x: np.ndarray, panels: np.ndarray, columns: int) -> Array:
    if not serves(x, panels) or not x.size:
        return before(x, panels, columns)
    y = np.empty((len(x), columns), x.dtype)
    share(lambda n: product_of_panels(x[n], panels, y[n]), _pieces(len(x)))
    return y


@overrides(feed_forward_step)
def _feed_forward_kernel(before: Callable[..., Array], x: np.ndarray, layer: SubLayer) -> Array:
    if not serves(x, *layer[:6]) or not x.size:
        return before(x, layer)
    y, arguments = np.empty_like(x), _arguments(layer, x.dtype)
    share(lambda n: feed_forward_rows(x[n], *arguments, y[n]), _pieces(len(x)))
    return y


@overrides(self_attention_step)
def _self_attention_kernel(
    before: Callable[..., Array], x: np.ndarray, layer: SubLayer, kept: np.ndarray, place: np.ndarray, heads: int
) -> Array:
    if not serves(x, kept, *layer[:6]) or not x.size:
        return before(x, layer, kept, place, heads)
    y, arguments = np.empty_like(x), _arguments(layer, x.dtype)
    share(lambda n: self_attention_rows(x[n], *arguments, kept, place[n], heads, y[n]), _pieces(len(x)))
    return y


@overrides(cross_attention_step)
def _cross_attention_kernel(
    before: Callable[..., Array], x: np.ndarray, layer: SubLayer, memory: np.ndarray, visible: np.ndarray,
    source: np.ndarray, heads: int,
) -> Array:  # fmt: skip
    if not serves(x, memory, *layer[:6]) or not x.size:
        return before(x, layer, memory, visible, source, heads)
    y, arguments = np.empty_like(x), _arguments(layer, x.dtype)
    share(
        lambda n: cross_attention_rows(x[n], *arguments, memory, visible, source[n], heads, y[n]), _pieces(len(x))
    )
    return y
