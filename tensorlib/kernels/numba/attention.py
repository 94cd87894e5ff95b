"""Attention, a block of queries of one head at a time: scores, softmax, dropout and products in one compiled call.

A block has all keys of its queries, so its softmax is complete, and it fits in the cache. Backward computes the weights
again from the scores and the kept sums of their exponentials, by the same steps.

Shape suffixes: B sentences, H heads, T queries, S keys, K head width, M width of the values; t and s, of one block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.threads import BLAS, share
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.blas import FOUND, for_blas, gemm
from tensorlib.kernels.numba.compiling import AnyLayout, compiled, summing
from tensorlib.kernels.numba.dropout import Mask, bits_of_rows, keep_or_zero, mask_of, room_for_bits
from tensorlib.kernels.numba.rows import contiguous, pieces, serves
from tensorlib.kernels.numba.softmax import exponentials, largest
from tensorlib.kernels.numpy.attention import empty_heads
from tensorlib.ops.attention import AttentionPattern, attention_formula, attention_gradient
from tensorlib.ops.dropout import dropout_scale

__all__ = ["EVERY_KEY", "attend_head", "attend_head_gradient", "block_of", "mask_for", "pattern_numbers"]

BLOCK_WEIGHTS = 1 << 16  # the most weights in a block: a quarter of a megabyte of float32
SAFE_LEAST, SAFE_MOST = 1e-20, 1e20  # sums of exponentials that are far from underflow and overflow


# ---- compiled: one head ------------------------------------------------------------------------------------------


@compiled
def block_of(queries: int, keys: int) -> int:
    """Return how many queries a block has."""
    return max(1, min(queries, BLOCK_WEIGHTS // max(keys, 1)))


@compiled
def seen_keys(visible: Any, keys: int) -> int:
    """Return how many keys are needed: not those after the last visible one, if a mask is the same for all queries."""
    if visible.shape[0] != 1:
        return keys
    for s in range(keys - 1, -1, -1):
        if visible[0, s]:
            return s + 1
    return 1  # of a row that sees nothing, one key is enough to see that


@compiled
def scores(q: Any, k: Any, scale: Any, visible: Any, causal: bool, first: int, e_ts: Any) -> None:
    """Write q k^T / sqrt(K) of a block that begins with query `first`; -inf where a key is hidden."""
    hidden = e_ts.dtype.type(-math.inf)
    gemm(q, k.T, e_ts, scale, e_ts.dtype.type(0))
    if visible.size:
        every = visible.shape[0] == 1
        for i in range(e_ts.shape[0]):
            row = 0 if every else first + i
            for j in range(e_ts.shape[1]):
                e_ts[i, j] = e_ts[i, j] if visible[row, j] else hidden
    if causal:
        for i in range(e_ts.shape[0]):
            e_ts[i, first + i + 1 :] = hidden


@summing
def sums_are_safe(e_ts: Any, totals: Any) -> bool:
    """Replace the scores by their exponentials, and write the sum of each row; return whether all sums are safe."""
    safe = True
    for i in range(e_ts.shape[0]):
        total = exponentials(e_ts, i, e_ts.dtype.type(0))
        totals[i] = total
        safe = safe and total > SAFE_LEAST and total < SAFE_MOST
    return safe


@summing
def exponentials_below_top(e_ts: Any, tops: Any, totals: Any) -> None:
    """As `sums_are_safe`, for exp(score - largest score of the row)."""
    one = e_ts.dtype.type(1)
    for i in range(e_ts.shape[0]):
        tops[i] = largest(e_ts, i)
        total = exponentials(e_ts, i, tops[i])
        totals[i] = one if total == 0 else total  # a row that sees nothing


@compiled
def drop_and_divide(e_ts: Any, totals: Any, bits: Any, level: Any, scale: Any) -> None:
    """Divide each row by its sum, and apply dropout if there are bits."""
    for i in range(e_ts.shape[0]):
        factor = scale / totals[i]
        if bits.size:
            for j in range(e_ts.shape[1]):
                e_ts[i, j] = keep_or_zero(e_ts[i, j] * factor, bits[i, j], level)
        else:
            for j in range(e_ts.shape[1]):
                e_ts[i, j] *= factor


@compiled
def attend_head(
    q_TK: Any, k_SK: Any, v_SM: Any, visible: Any, causal: bool, mask: Any, numbers: Any, head: int, tops: Any,
    totals: Any, scratch: Any, words: Any, y_TM: Any,
) -> None:  # fmt: skip
    """Write the output of one head, and for each query the top and the sum of exponentials.

    visible: (1 or T, S), or no elements if all keys are visible. numbers: 1/sqrt(K), and the scale of dropout.
    """
    queries, all_keys = q_TK.shape[0], k_SK.shape[0]
    keys = seen_keys(visible, all_keys) if visible.size else all_keys
    step = block_of(queries, all_keys)
    zero, one = q_TK.dtype.type(0), q_TK.dtype.type(1)
    for first in range(0, queries, step):
        last = min(first + step, queries)
        count, seen = last - first, min(keys, last) if causal else keys
        e_ts = scratch[: count * seen].reshape((count, seen))
        q, k = q_TK[first:last], k_SK[:seen]
        scores(q, k, numbers[0], visible, causal, first, e_ts)
        top, total = tops[first:last], totals[first:last]
        top[:] = zero
        if not sums_are_safe(e_ts, total):
            scores(q, k, numbers[0], visible, causal, first, e_ts)
            exponentials_below_top(e_ts, top, total)
        bits = bits_of_rows(mask, head * queries + first, count, all_keys, words)
        drop_and_divide(e_ts, total, bits, mask[3], numbers[1])
        gemm(e_ts, v_SM[:seen], y_TM[first:last], one, zero)


@summing
def score_gradients(e_ts: Any, dw_ts: Any, tops: Any, totals: Any, bits: Any, level: Any, numbers: Any) -> bool:
    """Write the gradient of q k^T to dw, and the weights after dropout to e, which held scores.

    ds = w (dw - <dw, w>) / sqrt(K). Returns whether all sums are finite.
    """
    finite = True
    for i in range(e_ts.shape[0]):
        inverse = e_ts.dtype.type(1) / totals[i]
        expected = e_ts.dtype.type(0)
        exponentials(e_ts, i, tops[i])
        if bits.size:
            for j in range(e_ts.shape[1]):
                w = e_ts[i, j] * inverse
                dw = keep_or_zero(dw_ts[i, j] * numbers[1], bits[i, j], level)
                dw_ts[i, j] = dw
                e_ts[i, j] = w
                expected += dw * w
        else:
            for j in range(e_ts.shape[1]):
                w = e_ts[i, j] * inverse
                e_ts[i, j] = w
                expected += dw_ts[i, j] * w
        finite = finite and abs(expected) < math.inf
        for j in range(e_ts.shape[1]):
            dw_ts[i, j] = e_ts[i, j] * (dw_ts[i, j] - expected) * numbers[0]
        if bits.size:
            for j in range(e_ts.shape[1]):
                e_ts[i, j] = keep_or_zero(e_ts[i, j] * numbers[1], bits[i, j], level)
    return finite


@compiled
def attend_head_gradient(
    dy_TM: Any, q_TK: Any, k_SK: Any, v_SM: Any, visible: Any, causal: bool, mask: Any, numbers: Any, head: int,
    tops: Any, totals: Any, scratch: Any, words: Any, dq_TK: Any, dk_SK: Any, dv_SM: Any,
) -> bool:  # fmt: skip
    """Write the gradients of one head; return whether they are finite. `scratch` holds two blocks."""
    queries, all_keys = q_TK.shape[0], k_SK.shape[0]
    keys = seen_keys(visible, all_keys) if visible.size else all_keys
    step = block_of(queries, all_keys)
    zero, one, finite = q_TK.dtype.type(0), q_TK.dtype.type(1), True
    for first in range(0, queries, step):
        last = min(first + step, queries)
        count, seen = last - first, min(keys, last) if causal else keys
        size = count * seen
        e_ts, dw_ts = scratch[:size].reshape((count, seen)), scratch[size : 2 * size].reshape((count, seen))
        q, k, v, dy = q_TK[first:last], k_SK[:seen], v_SM[:seen], dy_TM[first:last]
        scores(q, k, numbers[0], visible, causal, first, e_ts)
        gemm(dy, v.T, dw_ts, one, zero)
        bits = bits_of_rows(mask, head * queries + first, count, all_keys, words)
        top, total = tops[first:last], totals[first:last]
        finite = score_gradients(e_ts, dw_ts, top, total, bits, mask[3], numbers) and finite
        gemm(dw_ts, k, dq_TK[first:last], one, zero)
        kept = zero if first == 0 else one
        if first == 0:  # also of keys that only later, causal blocks see, which add to them
            dk_SK[seen:] = 0
            dv_SM[seen:] = 0
        gemm(dw_ts.T, q, dk_SK[:seen], one, kept)
        gemm(e_ts.T, dy, dv_SM[:seen], one, kept)
    return finite


# ---- compiled: the heads of a few sentences ----------------------------------------------------------------------


@compiled
def head_mask(visible: Any, b: int, h: int) -> Any:
    """Return the mask (1 or T, S) of a head, from one whose first two axes may be 1."""
    return visible[b if visible.shape[0] > 1 else 0, h if visible.shape[1] > 1 else 0]


@AnyLayout
def attend(q: Any, k: Any, v: Any, visible: Any, causal: bool, mask: Any, numbers: Any, begin: int, end: int, tops: Any,
           totals: Any, y: Any) -> None:  # fmt: skip
    """Compute the heads with the numbers begin to end, counted through all sentences."""
    heads, queries, keys = q.shape[1], q.shape[2], k.shape[2]
    size = block_of(queries, keys) * keys
    scratch, words = np.empty(size, q.dtype), room_for_bits(size if mask[3] else 0)
    for number in range(begin, end):
        b, h = number // heads, number % heads
        attend_head(
            q[b, h], k[b, h], v[b, h], head_mask(visible, b, h), causal, mask, numbers, number, tops[b, h],
            totals[b, h], scratch, words, y[b, h],
        )  # fmt: skip


@AnyLayout
def attend_gradient(dy: Any, q: Any, k: Any, v: Any, visible: Any, causal: bool, mask: Any, numbers: Any, begin: int,
                    end: int, tops: Any, totals: Any, dq: Any, dk: Any, dv: Any) -> bool:  # fmt: skip
    """Compute the gradients of these heads; return whether they are finite."""
    heads, queries, keys = q.shape[1], q.shape[2], k.shape[2]
    size = block_of(queries, keys) * keys
    scratch, words, finite = np.empty(2 * size, q.dtype), room_for_bits(size if mask[3] else 0), True
    for number in range(begin, end):
        b, h = number // heads, number % heads
        finite = (
            attend_head_gradient(
                dy[b, h], q[b, h], k[b, h], v[b, h], head_mask(visible, b, h), causal, mask, numbers, number,
                tops[b, h], totals[b, h], scratch, words, dq[b, h], dk[b, h], dv[b, h],
            )
            and finite
        )  # fmt: skip
    return finite


# ---- the kernels -------------------------------------------------------------------------------------------------

EVERY_KEY = np.empty((1, 1, 0, 0), bool)


def mask_for(pattern: AttentionPattern, keys: int) -> np.ndarray:
    """Return the mask with axes (B or 1, H or 1, T or 1, S); without elements if every key is visible."""
    visible: Any = pattern.visible
    if visible is None or visible.all():
        return EVERY_KEY
    visible = visible.reshape((1,) * (4 - visible.ndim) + visible.shape)
    return contiguous(np.broadcast_to(visible, (*visible.shape[:3], keys)))


def pattern_numbers(pattern: AttentionPattern, head_width: int, dtype: Any) -> tuple[Mask, tuple[Any, Any]]:
    """Return the dropout mask, and 1/sqrt(K) with the scale of dropout."""
    mask = mask_of(pattern.p, pattern.key, pattern.draw)
    return mask, (dtype.type(1 / math.sqrt(head_width)), dtype.type(dropout_scale(pattern.p)))


def _with_heads(x: np.ndarray, lead: tuple[int, ...]) -> np.ndarray:
    """Return an operand as (B, H, length, width)."""
    x = x if x.shape[:-2] == lead else np.broadcast_to(x, (*lead, *x.shape[-2:]))
    x = x.reshape(*(1, 1, *lead)[-2:], *x.shape[-2:]) if len(lead) < 2 else x
    return for_blas(x)


def _fits(pattern: AttentionPattern, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> bool:
    """Return whether the kernel serves these operands."""
    leads = {np.broadcast_shapes(q.shape[:-2], x.shape[:-2]) for x in (k, v)}
    some_share_weights = pattern.p and len(leads) > 1
    return (
        FOUND and max(q.ndim, k.ndim, v.ndim) <= 4 and serves(q, k, v) and 0 not in (*q.shape, *k.shape, *v.shape)
        and not some_share_weights
    )  # fmt: skip


def _pieces(q: np.ndarray, k: np.ndarray) -> list[slice]:
    batch, heads, queries, width = q.shape
    return pieces(batch * heads, batch * heads * queries * k.shape[2] * (1 + width // 8))


@overrides(attention_formula)
def _attention_kernel(
    before: Callable[..., Any], q: np.ndarray, k: np.ndarray, v: np.ndarray, pattern: AttentionPattern
) -> tuple[Array, Any]:
    if not _fits(pattern, q, k, v):
        return before(q, k, v, pattern)
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    q, k, v = (_with_heads(x, lead) for x in (q, k, v))
    y = empty_heads((*q.shape[:3], v.shape[-1]), q.dtype)
    tops, totals = np.empty(q.shape[:3], q.dtype), np.empty(q.shape[:3], q.dtype)
    visible, (mask, numbers) = mask_for(pattern, k.shape[2]), pattern_numbers(pattern, q.shape[-1], q.dtype)

    def piece(n: slice) -> None:
        attend(q, k, v, visible, pattern.causal, mask, numbers, n.start, n.stop, tops, totals, y)

    with BLAS:
        share(piece, _pieces(q, k))
    y = y.reshape(*lead, *y.shape[-2:]) if len(lead) < 2 else y
    return y, (tops[..., None], totals[..., None])


@overrides(attention_gradient)
def _attention_gradient_kernel(
    before: Callable[..., Any], dy: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, pattern: AttentionPattern,
    kept: Any, needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    if kept is None or not _fits(pattern, q, k, v) or not serves(q, dy):
        return before(dy, q, k, v, pattern, kept, needs)
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    q_, k_, v_, dy_ = (_with_heads(x, lead) for x in (q, k, v, dy))
    dq, dk, dv = (empty_heads(x.shape, x.dtype) for x in (q_, k_, v_))
    tops, totals = (contiguous(x.reshape(q_.shape[:3])) for x in kept)
    visible, (mask, numbers) = mask_for(pattern, k_.shape[2]), pattern_numbers(pattern, q_.shape[-1], q.dtype)
    finite: list[bool] = []

    def piece(n: slice) -> None:
        arguments = visible, pattern.causal, mask, numbers, n.start, n.stop, tops, totals, dq, dk, dv
        finite.append(attend_gradient(dy_, q_, k_, v_, *arguments))

    with BLAS:
        share(piece, _pieces(q_, k_))
    if not all(finite):  # a gradient is infinite or NaN, perhaps only at hidden positions
        return before(dy, q, k, v, pattern, kept, needs)
    shaped = [d.reshape(*lead, *d.shape[-2:]) if len(lead) < 2 else d for d in (dq, dk, dv)]
    return tuple([d if need else None for d, need in zip(shaped, needs, strict=True)])  # type: ignore[return-value]
