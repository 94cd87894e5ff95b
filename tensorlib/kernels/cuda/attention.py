"""Attention: batched products with one softmax kernel between them; for long sequences, kernels that hold no weights.

Shape suffixes: B sentences, H heads, T queries, S keys, K head width, M width of the values.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import cupy
import numpy as np

from tensorlib.arrays.cuda import seeds
from tensorlib.kernels.cuda.launch import NOT_SERVED, contiguous, fits, kernel, on_current_device, overrides
from tensorlib.kernels.cuda.products import gemm
from tensorlib.ops.attention import AttentionPattern, attention_formula, attention_gradient
from tensorlib.ops.dropout import dropout_scale, dropped_levels

__all__ = ["Kept", "attend", "attend_gradient", "serves_pattern"]

# Weights of a head, T · S, above which no matrix of them is made: an estimate, to be measured. In float32, products
# and softmax take as long as the kernels without a matrix; in TF32 and bf16 they are faster at all lengths. Memory then
# decides: at 512 positions the scores of 64 sentences and 8 heads are half a gigabyte, and backward has two of them.
LONG = 512 * 512
WIDEST = 128  # the widest heads that the kernels without a matrix serve

WARPS = 8  # rows that a block computes at a time; as in attention_rows.cuh
THREADS, ROWS = 256, 64  # of a block; queries or keys that it holds; as in attention_tiles.cuh

PATTERN = np.dtype(
    [(name, "u8") for name in ("visible", "slot", "key0", "key1", "number")]
    + [(name, "i8") for name in ("stride_batch", "stride_head", "stride_query")]
    + [("scale", "f8"), ("dropout_scale", "f8"), ("dropped_levels", "u4")]
    + [(name, "i4") for name in ("stride_key", "heads", "queries", "keys", "causal")]
)  # as Pattern in attention.cuh


class Kept(NamedTuple):
    """What backward needs besides q, k and v: the weights, or statistics from which it computes them again."""

    tops: Any = None  # (B, H, T, 1): the largest score of each query
    totals: Any = None  # (B, H, T, 1): the sum of the exponentials of its scores, less the top
    weights: Any = None  # (B, H, T, S), before dropout; short sequences whose weights are not larger than q, k, v and y
    y: Any = None  # (B, H, T, M); long sequences


def attend(q: Any, k: Any, v: Any, pattern: AttentionPattern) -> tuple[Any, Kept]:
    """Return y (B, H, T, M), for q (B, H, T, K), k (B, H, S, K) and v (B, H, S, M); and what backward needs.

    The y of a long sequence lies in memory as (B, T, H, M).
    """
    return (_attend_long if _is_long(q, k, v) else _attend_short)(q, k, v, pattern)


def attend_gradient(
    dy: Any, q: Any, k: Any, v: Any, pattern: AttentionPattern, kept: Any, needs: tuple[bool, ...],
    out: tuple[Any, ...] = (None, None, None),
) -> tuple[Any, ...]:  # fmt: skip
    """Return dq, dk and dv, in the contiguous arrays `out` if they are given; None if it is not needed.

    What another kernel has kept is computed again, because its exponentials may be rounded differently.
    """
    if not isinstance(kept, Kept):
        kept = attend(q, k, v, pattern)[1]._replace(y=None)
    gradient = _long_gradient if kept.weights is None and _is_long(q, k, v) else _short_gradient
    return gradient(dy, q, k, v, pattern, kept, needs, out)


def serves_pattern(pattern: AttentionPattern) -> bool:
    """Return whether a pattern's mask can be read by kernels."""
    return pattern.visible is None or on_current_device(pattern.visible)


def _is_long(q: Any, k: Any, v: Any) -> bool:
    return q.shape[-2] * k.shape[-2] > LONG and max(q.shape[-1], v.shape[-1]) <= WIDEST


def _scale(q: Any) -> float:
    return 1 / math.sqrt(q.shape[-1])


def _pattern(pattern: AttentionPattern, q: Any, k: Any) -> np.ndarray:
    """Return a pattern as kernels read it."""
    shape = (*q.shape[:3], k.shape[2])
    address, strides, visible = 0, (0, 0, 0, 0), cast(Any, pattern.visible)
    if visible is not None:
        address, strides = visible.data.ptr, cupy.broadcast_to(visible, shape).strides
    slot, *numbers = seeds(pattern.key, pattern.draw)
    draw = getattr(getattr(slot, "data", None), "ptr", 0), *numbers
    scales = _scale(q), dropout_scale(pattern.p), dropped_levels(pattern.p)
    return np.array((address, *draw, *strides[:3], *scales, strides[3], *shape[1:], pattern.causal), PATTERN)


# ---- short sequences: products of heads, with one kernel between them --------------------------------------------


def _attend_short(q: Any, k: Any, v: Any, pattern: AttentionPattern) -> tuple[Any, Kept]:
    weights = gemm(q, k.swapaxes(-1, -2), alpha=_scale(q))  # scores, then weights after dropout
    shape, keys = weights.shape[:3], weights.shape[3]
    if math.prod(shape) * keys <= q.size + k.size + v.size + math.prod(shape) * v.shape[-1]:
        kept = Kept(weights=cupy.empty_like(weights) if pattern.p else weights)
    else:
        kept = Kept(*(cupy.empty((*shape, 1), q.dtype) for _ in range(2)))
    before = kept.weights if pattern.p else None
    arguments = _pattern(pattern, q, k), *(0 if a is None else a for a in (before, kept.tops, kept.totals))
    _by_warps(kernel(f"attention_rows_{_at_once(keys)}.cu", "weights", q.dtype.char), weights, arguments)
    return gemm(weights, v), kept


def _short_gradient(
    dy: Any, q: Any, k: Any, v: Any, pattern: AttentionPattern, kept: Kept, needs: tuple[bool, ...],
    out: tuple[Any, ...],
) -> tuple[Any, ...]:  # fmt: skip
    again = kept.weights is None
    if again:
        weights = gemm(q, k.swapaxes(-1, -2), alpha=_scale(q))  # scores, then weights after dropout
        statistics: tuple[Any, Any] = kept.tops, kept.totals
    else:
        weights, statistics = kept.weights, (0, 0)
    dropped = cupy.empty_like(weights) if pattern.p and not again else weights
    dweights: Any = gemm(dy, v.swapaxes(-1, -2)) if needs[0] or needs[1] else None
    arguments = (
        _pattern(pattern, q, k), *statistics, 0 if dweights is None else dweights,
        dropped if needs[2] and (pattern.p or again) else 0,
    )  # fmt: skip
    held = _at_once(weights.shape[3])
    _by_warps(kernel(f"attention_rows_{held}.cu", "weights_gradient", q.dtype.char), weights, arguments)
    dq = gemm(dweights, k, out[0], _scale(q)) if needs[0] else None
    dk = gemm(dweights.swapaxes(-1, -2), q, out[1], _scale(q)) if needs[1] else None
    return dq, dk, gemm(dropped.swapaxes(-1, -2), dy, out[2]) if needs[2] else None


def _at_once(keys: int) -> int:
    """Return how many elements of a row a warp holds at once."""
    return 32 if keys <= 32 else 128 if keys <= 128 else 512


def _by_warps(launch: Any, rows: Any, arguments: tuple[Any, ...]) -> None:
    """Launch a kernel of attention_rows.cuh, of which each warp computes some rows of an array (B, H, T, S)."""
    keys = rows.shape[-1]
    count = rows.size // keys
    each = max(1, min(4, 128 // keys))  # a few rows share the cost of drawing bits
    launch((-(-count // (WARPS * each)),), (32 * WARPS,), (rows, count, cupy.int32(each), *arguments))


# ---- long sequences: tiles of weights ----------------------------------------------------------------------------


def _attend_long(q: Any, k: Any, v: Any, pattern: AttentionPattern) -> tuple[Any, Kept]:
    batch, heads, queries, _ = q.shape
    y = cupy.empty((batch, queries, heads, v.shape[-1]), q.dtype).transpose(0, 2, 1, 3)
    tops, totals = (cupy.empty((batch, heads, queries, 1), q.dtype) for _ in range(2))
    arguments = (*_operands(q, k, v), _pattern(pattern, q, k), y, *_steps(y), tops, totals)
    launch = kernel(f"attention_tiles_{_width(q, v)}.cu", "attend", q.dtype.char)
    launch((_tiles(q),), (THREADS,), arguments)
    return y, Kept(tops, totals, None, y)


def _long_gradient(
    dy: Any, q: Any, k: Any, v: Any, pattern: AttentionPattern, kept: Kept, needs: tuple[bool, ...],
    out: tuple[Any, ...],
) -> tuple[Any, ...]:  # fmt: skip
    read, dy = _pattern(pattern, q, k), contiguous(dy)
    operands, statistics = _operands(q, k, v), (kept.tops, kept.totals)
    deltas, kind, width = cupy.empty(q.shape[:3], q.dtype), q.dtype.char, _width(q, v)
    if kept.y is None:
        arguments: tuple[Any, ...] = (dy, *operands, read, *statistics, deltas)
        kernel("attention_deltas.cu", "deltas_of_weights", kind)((_tiles(q),), (THREADS,), arguments)
    else:
        blocks = -(-deltas.size // (THREADS // 32))
        arguments = (dy, kept.y, deltas.size, cupy.int32(v.shape[-1]), read, *_steps(kept.y), deltas)
        kernel("attention_deltas.cu", "deltas_of_outputs", kind)((blocks,), (THREADS,), arguments)
    dq, dk, dv = (
        cupy.empty(x.shape, x.dtype) if given is None else given for x, given in zip((q, k, v), out, strict=True)
    )
    arguments = dy, *operands, read, *statistics, deltas
    if needs[0]:
        launch = kernel(f"attention_tiles_{width}.cu", "gradient_of_queries", kind)
        launch((_tiles(q),), (THREADS,), (*arguments, dq))
    if needs[1] or needs[2]:
        launch = kernel(f"attention_tiles_{width}.cu", "gradient_of_keys", kind)
        launch((_tiles(k),), (THREADS,), (*arguments, dk, dv))
    return tuple(d if needed else None for d, needed in zip((dq, dk, dv), needs, strict=True))


def _operands(q: Any, k: Any, v: Any) -> tuple[Any, ...]:
    return contiguous(q), contiguous(k), contiguous(v), cupy.int32(q.shape[-1]), cupy.int32(v.shape[-1])


def _steps(y: Any) -> tuple[int, ...]:
    """Return the strides of sentences, heads and queries, in elements."""
    return tuple(stride // y.itemsize for stride in y.strides[:3])


def _tiles(held: Any) -> int:
    """Return the number of blocks for the rows of `held`, (B, H, L, width)."""
    return held.shape[0] * held.shape[1] * -(-held.shape[2] // ROWS)


def _width(q: Any, v: Any) -> int:
    """Return the width for which kernels are compiled that serves these heads."""
    widest = max(q.shape[-1], v.shape[-1])
    return 32 if widest <= 32 else 64 if widest <= 64 else 128


# ---- the kernels -------------------------------------------------------------------------------------------------


def _served(q: Any, k: Any, v: Any, pattern: AttentionPattern, *others: Any) -> bool:
    """Return whether the kernels serve these operands; several v that share one matrix of weights they do not."""
    if max(q.ndim, k.ndim, v.ndim) > 4 or not fits(q, k, v, *others) or not (k.size and v.size):
        return False
    return _lead(q, k) == _lead(q, k, v) and serves_pattern(pattern)


def _lead(*operands: Any) -> tuple[int, ...]:
    return np.broadcast_shapes(*(x.shape[:-2] for x in operands))


def _with_heads(x: Any, lead: tuple[int, ...]) -> Any:
    """Return an operand as (B, H, length, width)."""
    x = x if x.shape[:-2] == lead else cupy.broadcast_to(x, (*lead, *x.shape[-2:]))
    return x[(None,) * (4 - x.ndim)] if x.ndim < 4 else x


@overrides(attention_formula)
def _attention(q: Any, k: Any, v: Any, pattern: AttentionPattern) -> Any:
    if not _served(q, k, v, pattern):
        return NOT_SERVED
    lead = _lead(q, k)
    y, kept = attend(_with_heads(q, lead), _with_heads(k, lead), _with_heads(v, lead), pattern)
    return y[(0,) * (2 - len(lead))], kept


@overrides(attention_gradient)
def _attention_gradient(
    dy: Any, q: Any, k: Any, v: Any, pattern: AttentionPattern, kept: Any, needs: tuple[bool, ...]
) -> Any:
    if kept is None or not _served(q, k, v, pattern, dy):
        return NOT_SERVED
    lead = _lead(q, k)
    dy, q, k, v = [_with_heads(x, lead) for x in (dy, q, k, v)]
    gradients = attend_gradient(dy, q, k, v, pattern, kept, needs)
    return tuple(None if d is None else d[(0,) * (2 - len(lead))] for d in gradients)
