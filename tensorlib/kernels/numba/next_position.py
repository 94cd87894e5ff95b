"""A Transformer's decoder at the next position: some rows go through a sub-layer in one compiled call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.threads import share
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.compiling import compiled, summing
from tensorlib.kernels.numba.linear import add_bias
from tensorlib.kernels.numba.normalize import normalize_row
from tensorlib.kernels.numba.rows import contiguous, for_pieces, serves
from tensorlib.kernels.numba.softmax import exponentials, largest
from tensorlib.kernels.numba.tiles import product_of_panels
from tensorlib.kernels.numpy.blocks import even_blocks
from tensorlib.ops.next_position import (
    COLUMNS,
    DecoderLayer,
    Memory,
    SubLayer,
    decoder_step,
    largest_and_total,
    panel_product,
    panels_of,
)

FEWEST, MOST = 8, 64  # rows of a piece: each piece reads all matrices, but must fit in the cache
BLOCK = 64  # logits that are compared with the largest so far at once
MOST_CANDIDATES = 64  # of the largest logits: inserting one takes longer the more there are


# ---- compiled ----------------------------------------------------------------------------------------------------


@compiled
def project(x: Any, panels: Any, bias: Any, z: Any) -> None:
    """Write x W + b to z."""
    product_of_panels(x, panels, z)
    add_bias(bias, z)


@summing
def normalize(x: Any, weight: Any, bias: Any, eps: Any, y: Any) -> None:
    """Write LayerNorm of each row to y."""
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
def scores(q: Any, i: int, keys_values: Any, row: Any, scale: Any, s: Any) -> None:
    """Write q k^T / sqrt(K) of query i to s (H, N), for the rows of k that it sees; -inf where it sees none."""
    for n in range(s.shape[1]):
        r = row[i, n]
        for h in range(s.shape[0]):
            if r < 0:
                s[h, n] = -math.inf
            else:
                total = s.dtype.type(0)
                for c in range(q.shape[2]):
                    total += q[i, h, c] * keys_values[r, h, c]
                s[h, n] = total * scale


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
def weighted_sums(w: Any, keys_values: Any, row: Any, i: int, total: Any, y: Any) -> None:
    """Write w v of query i to y[i], for weights (H, N); `total` (H, K) holds the sums."""
    total[:] = 0
    heads = total.shape[0]
    for n in range(w.shape[1]):
        r = row[i, n]
        if r >= 0:
            for h in range(heads):
                weight = w[h, n]
                for c in range(total.shape[1]):
                    total[h, c] += weight * keys_values[r, heads + h, c]
    for h in range(heads):
        for c in range(total.shape[1]):
            y[i, h, c] = total[h, c]


@compiled
def attend(q: Any, keys_values: Any, row: Any, y: Any) -> None:
    """Write the output (R, H, K) of all heads, for queries that see the keys and values ``row[i]``, if not < 0.

    q: (R, H or more, K), of which the first H are queries. keys_values: (N, 2 H, K). All heads of a row are computed
    before the next row, because they lie side by side in memory.
    """
    (queries, heads, width), scale = y.shape, q.dtype.type(1 / math.sqrt(y.shape[2]))
    s, total = np.empty((heads, row.shape[1]), q.dtype), np.empty((heads, width), q.dtype)
    for i in range(queries):
        scores(q, i, keys_values, row, scale, s)
        softmax_in_place(s)
        weighted_sums(s, keys_values, row, i, total, y)


@compiled
def self_attention_rows(
    x: Any, first: Any, first_bias: Any, second: Any, second_bias: Any, norm: Any, kept: Any, slot: Any, heads: int,
    y: Any,
) -> None:  # fmt: skip
    """Compute self-attention of some rows, and write their keys and values to `kept` (L, R, E)."""
    d, last = x.shape[1], slot.shape[1] - 1
    qkv, attended, f = np.empty((len(x), 3 * d), x.dtype), np.empty_like(x), np.empty_like(x)
    project(sublayer_input(x, norm), first, first_bias, qkv)
    row, rows = np.empty(slot.shape, np.int64), kept.reshape(-1, 2 * d)
    for i in range(slot.shape[0]):
        for t in range(slot.shape[1]):
            row[i, t] = t * kept.shape[1] + slot[i, t]
        for c in range(2 * d):  # not rows[...] = qkv[...]: compiling its error messages takes seconds
            rows[row[i, last], c] = qkv[i, d + c]
    k = d // heads
    attend(qkv.reshape(-1, 3 * heads, k), rows.reshape(-1, 2 * heads, k), row, attended.reshape(-1, heads, k))
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
    k = x.shape[1] // heads
    attend(q.reshape(-1, heads, k), memory.reshape(-1, 2 * heads, k), row, attended.reshape(-1, heads, k))
    project(attended, second, second_bias, f)
    add_and_normalize(x, f, norm, y)


@compiled
def fill_panels(weight: Any, first: int, last: int, panels: Any) -> None:
    """Copy the panels first to last of `weight` (D, J, COLUMNS) to `panels` (J, D, COLUMNS)."""
    step = 8  # rows, each of which the processor fetches ahead
    for low in range(0, weight.shape[0], step):
        for n in range(first, last):
            for p in range(low, min(low + step, weight.shape[0])):
                for c in range(weight.shape[2]):
                    panels[n, p, c] = weight[p, n, c]


@summing
def largest_of_rows(x: Any, values: Any, columns: Any, totals: Any) -> None:
    """Write the largest numbers of each row, their columns, and log sum exp."""
    width, last = x.shape[1], values.shape[1] - 1
    blocks = np.empty((width // BLOCK + 1, BLOCK), x.dtype)
    row = blocks.reshape(1, -1)
    for i in range(x.shape[0]):
        row[0, width:] = -math.inf
        for j in range(width):
            row[0, j] = x[i, j]
        values[i, :], columns[i, :], found = -math.inf, 0, 0
        for n in range(blocks.shape[0]):
            # The largest of a block is seldom among the largest so far, so few blocks are read again.
            if found <= last or not largest(blocks, n) <= values[i, last]:
                for j in range(min(BLOCK, width - n * BLOCK)):
                    if found <= last or blocks[n, j] > values[i, last]:
                        _insert(values, columns, i, min(found, last), blocks[n, j], n * BLOCK + j)
                        found += 1
        top = largest(row, 0)
        totals[i] = top if top == math.inf else top + math.log(exponentials(row, 0, top))


@compiled
def _insert(values: Any, columns: Any, i: int, last: int, value: Any, column: int) -> None:
    """Insert a number into the first `last` + 1 places of row i, in falling order, after its equals."""
    j = last
    while j > 0 and values[i, j - 1] < value:
        values[i, j], columns[i, j] = values[i, j - 1], columns[i, j - 1]
        j -= 1
    values[i, j], columns[i, j] = value, column


# ---- the kernels -------------------------------------------------------------------------------------------------


def _pieces(rows: int) -> list[slice]:
    if rows < 2 * FEWEST:
        return [slice(0, rows)]
    return even_blocks(rows, 2 * -(-rows // (2 * MOST)))


def _arguments(layer: SubLayer, dtype: np.dtype) -> tuple[Any, ...]:
    *arrays, weight, bias = (contiguous(a) for a in layer[:6])  # type: ignore[arg-type]
    return (*arrays, (weight, bias, dtype.type(layer.eps), layer.pre))


@overrides(decoder_step)
def _decoder_kernel(
    before: Callable[..., Array], x: np.ndarray, layers: Sequence[DecoderLayer], kept: Sequence[np.ndarray],
    slot: np.ndarray, memory: Memory, heads: int,
) -> Array:  # fmt: skip
    arrays: list[Any] = [a for layer in layers for sublayer in layer for a in sublayer[:6]]
    arrays += [*kept, *memory.keys_values_BSE]
    if not serves(x, *arrays) or not x.size or not memory.visible_BS.size:
        return before(x, layers, kept, slot, memory, heads)
    x, slot, (visible, source) = contiguous(x), contiguous(slot), (contiguous(a) for a in memory[1:])  # type: ignore[arg-type]
    keys_values_BSE: list[Any] = [contiguous(a) for a in memory.keys_values_BSE]  # type: ignore[arg-type]
    prepared = [[_arguments(sublayer, x.dtype) for sublayer in layer] for layer in layers]
    y = np.empty_like(x)

    def piece(n: slice) -> None:
        """Take some rows through all layers, so that threads meet only once."""
        z = x[n]
        a, b = np.empty((2, *z.shape), x.dtype)
        for (own, cross, feed_forward), kept_LRE, keys_values in zip(prepared, kept, keys_values_BSE, strict=True):
            self_attention_rows(z, *own, kept_LRE, slot[n], heads, a)
            cross_attention_rows(a, *cross, keys_values, visible, source[n], heads, b)
            feed_forward_rows(b, *feed_forward, a)
            z = a
        y[n] = z

    share(piece, _pieces(len(x)))
    return y


@overrides(panel_product)
def _panel_product_kernel(before: Callable[..., Array], x: np.ndarray, panels: np.ndarray, columns: int) -> Array:
    if not serves(x, panels) or not x.size:
        return before(x, panels, columns)
    x, panels, y = contiguous(x), contiguous(panels), np.empty((len(x), columns), x.dtype)
    share(lambda n: product_of_panels(x[n], panels, y[n]), _pieces(len(x)))
    return y


@overrides(panels_of)
def _panels_kernel(before: Callable[..., Array], weight: np.ndarray) -> Array:
    if not serves(weight) or weight.ndim != 2 or not weight.size or weight.shape[1] % COLUMNS:
        return before(weight)
    parts = contiguous(weight).reshape(len(weight), -1, COLUMNS)
    panels = np.empty((parts.shape[1], len(weight), COLUMNS), weight.dtype)
    for_pieces(lambda n: fill_panels(parts, n.start, n.stop, panels), len(panels), panels[0].size)
    return panels


@overrides(largest_and_total)
def _largest_kernel(before: Callable[..., Any], logits: np.ndarray, count: int) -> tuple[Array, Array, Array]:
    if not serves(logits) or logits.ndim != 2 or not 0 < count <= min(MOST_CANDIDATES, logits.shape[1]):
        return before(logits, count)
    x, rows_ = contiguous(logits), len(logits)
    values, columns, totals = np.empty((rows_, count), x.dtype), np.empty((rows_, count), np.int64), x[:, 0].copy()
    for_pieces(lambda n: largest_of_rows(x[n], values[n], columns[n], totals[n]), rows_, x.shape[1])
    return values, columns, totals
