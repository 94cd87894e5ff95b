"""Attention with its projections: a few sentences go through projections, heads and output in one call.

A piece contributes to the gradients of the weights; the contributions are added in the order of the pieces.

B sentences have T queries and S keys each; their rows are those of matrices (B T, D) and (B S, D).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.threads import BLAS, share
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.attention import (
    attend_head,
    attend_head_gradient,
    block_of,
    head_mask,
    mask_for,
    pattern_numbers,
)
from tensorlib.kernels.numba.bf16 import factors, operand
from tensorlib.kernels.numba.blas import FOUND, gemm
from tensorlib.kernels.numba.compiling import compiled
from tensorlib.kernels.numba.dropout import room_for_bits
from tensorlib.kernels.numba.linear import linear_rows, sum_of_rows
from tensorlib.kernels.numba.rows import Partial, contiguous, product_pieces, rows, serves
from tensorlib.kernels.numpy.blocks import even_blocks
from tensorlib.kernels.numpy.linalg import FEW_ROWS
from tensorlib.ops.attention import AttentionPattern
from tensorlib.ops.multi_head_attention import (
    cross_attention_formula,
    cross_attention_gradient,
    self_attention_formula,
    self_attention_gradient,
)

# ---- compiled: a few sentences -----------------------------------------------------------------------------------


@compiled
def attend_sentences(
    q: Any, k: Any, v: Any, y: Any, pattern: Any, begin: int, end: int, visible: Any, tops: Any, totals: Any
) -> None:
    """Write the heads' outputs of the sentences begin to end, side by side, to y, whose rows are those of q.

    pattern: causality, the dropout mask, and 1/sqrt(K) with the scale of dropout.
    """
    causal, mask, numbers = pattern
    heads, queries = tops.shape[1], tops.shape[2]
    keys, width = queries * k.shape[0] // q.shape[0], q.shape[1] // heads
    size = block_of(queries, keys) * keys
    scratch, words = np.empty(size, q.dtype), room_for_bits(size if mask[3] else 0)
    for b in range(begin, end):
        t0, s0 = b * queries, b * keys
        for h in range(heads):
            c0, c1 = h * width, (h + 1) * width
            attend_head(
                q[t0 : t0 + queries, c0:c1], k[s0 : s0 + keys, c0:c1], v[s0 : s0 + keys, c0:c1],
                head_mask(visible, b, h), causal, mask, numbers, b * heads + h, tops[b, h], totals[b, h], scratch,
                words, y[t0 : t0 + queries, c0:c1],
            )  # fmt: skip


@compiled
def attend_sentences_gradient(
    dy: Any, q: Any, k: Any, v: Any, pattern: Any, begin: int, end: int, visible: Any, tops: Any, totals: Any, dq: Any,
    dk: Any, dv: Any,
) -> bool:  # fmt: skip
    """Write the gradients of the projections; return whether they are finite."""
    causal, mask, numbers = pattern
    heads, queries = tops.shape[1], tops.shape[2]
    keys, width = queries * k.shape[0] // q.shape[0], q.shape[1] // heads
    size, finite = block_of(queries, keys) * keys, True
    scratch, words = np.empty(2 * size, q.dtype), room_for_bits(size if mask[3] else 0)
    for b in range(begin, end):
        t0, s0 = b * queries, b * keys
        t1, s1 = t0 + queries, s0 + keys
        for h in range(heads):
            c0, c1 = h * width, (h + 1) * width
            finite = (
                attend_head_gradient(
                    dy[t0:t1, c0:c1], q[t0:t1, c0:c1], k[s0:s1, c0:c1], v[s0:s1, c0:c1], head_mask(visible, b, h),
                    causal, mask, numbers, b * heads + h, tops[b, h], totals[b, h], scratch, words, dq[t0:t1, c0:c1],
                    dk[s0:s1, c0:c1], dv[s0:s1, c0:c1],
                )
                and finite
            )  # fmt: skip
    return finite


@compiled
def project(x: Any, w: Any, b: Any, begin: int, end: int, z: Any) -> None:
    """Write x W + b of the rows begin to end."""
    linear_rows(x[begin:end], w, b, z[begin:end])


@compiled
def self_attention(
    x: Any, w: Any, b: Any, wo: Any, bo: Any, pattern: Any, begin: int, end: int, visible: Any, tops: Any, totals: Any,
    qkv: Any, merged: Any, y: Any,
) -> None:  # fmt: skip
    """Compute the sentences begin to end."""
    d, length = x.shape[1], tops.shape[2]
    low, high = begin * length, end * length
    project(x, w, b, low, high, qkv)
    attend_sentences(qkv[:, :d], qkv[:, d : 2 * d], qkv[:, 2 * d :], merged, pattern, begin, end, visible, tops, totals)
    project(merged, wo, bo, low, high, y)


@compiled
def self_attention_gradient_piece(
    dy: Any, x: Any, w: Any, wo: Any, pattern: Any, begin: int, end: int, visible: Any, tops: Any, totals: Any,
    qkv: Any, merged: Any, dmerged: Any, dqkv: Any, dx: Any, dw: Any, db: Any, dwo: Any, dbo: Any,
) -> bool:  # fmt: skip
    """Compute dx of the sentences begin to end, and their contribution to the gradients of the weights."""
    d, length = x.shape[1], tops.shape[2]
    low, high = begin * length, end * length
    gradient_of_output(dy[low:high], merged[low:high], wo, dmerged[low:high], dwo, dbo)
    finite = attend_sentences_gradient(
        dmerged, qkv[:, :d], qkv[:, d : 2 * d], qkv[:, 2 * d :], pattern, begin, end, visible, tops, totals,
        dqkv[:, :d], dqkv[:, d : 2 * d], dqkv[:, 2 * d :],
    )  # fmt: skip
    gradient_of_output(dqkv[low:high], x[low:high], w, dx[low:high], dw, db)
    return finite


@compiled
def gradient_of_output(dz: Any, x: Any, w: Any, dx: Any, dw: Any, db: Any) -> None:
    """Write the gradients of z = x W + b."""
    one, zero, dz_factor = x.dtype.type(1), x.dtype.type(0), operand(dz, w)
    gemm(dz_factor, w.T, dx, one, zero)
    gemm(operand(x, w).T, dz_factor, dw, one, zero)
    sum_of_rows(dz, db)


@compiled
def cross_attention(
    x: Any, memory: Any, w: Any, b: Any, wo: Any, bo: Any, pattern: Any, begin: int, end: int, visible: Any, tops: Any,
    totals: Any, q: Any, kv: Any, merged: Any, y: Any,
) -> None:  # fmt: skip
    """Compute the sentences begin to end."""
    d, queries = x.shape[1], tops.shape[2]
    keys = queries * memory.shape[0] // x.shape[0]
    project(x, w[:, :d], b[:d], begin * queries, end * queries, q)
    project(memory, w[:, d:], b[d:], begin * keys, end * keys, kv)
    attend_sentences(q[:, :d], kv[:, :d], kv[:, d:], merged, pattern, begin, end, visible, tops, totals)
    project(merged, wo, bo, begin * queries, end * queries, y)


@compiled
def cross_attention_gradient_piece(
    dy: Any, x: Any, memory: Any, w: Any, wo: Any, pattern: Any, begin: int, end: int, visible: Any, tops: Any,
    totals: Any, q: Any, kv: Any, merged: Any, dmerged: Any, dq: Any, dkv: Any, dx: Any, dmemory: Any, dw: Any,
    db: Any, dwo: Any, dbo: Any,
) -> bool:  # fmt: skip
    """Compute dx and dmemory of the sentences begin to end, and their contribution to the gradients of the weights."""
    d, queries = x.shape[1], tops.shape[2]
    keys = queries * memory.shape[0] // x.shape[0]
    t0, t1, s0, s1 = begin * queries, end * queries, begin * keys, end * keys
    gradient_of_output(dy[t0:t1], merged[t0:t1], wo, dmerged[t0:t1], dwo, dbo)
    finite = attend_sentences_gradient(
        dmerged, q[:, :d], kv[:, :d], kv[:, d:], pattern, begin, end, visible, tops, totals, dq[:, :d], dkv[:, :d],
        dkv[:, d:],
    )  # fmt: skip
    gradient_of_output(dq[t0:t1], x[t0:t1], w[:, :d], dx[t0:t1], dw[:, :d], db[:d])
    gradient_of_output(dkv[s0:s1], memory[s0:s1], w[:, d:], dmemory[s0:s1], dw[:, d:], db[d:])
    return finite


# ---- the kernels -------------------------------------------------------------------------------------------------


class _Call:
    """What the kernels of one call have in common: pieces of sentences, the mask and the numbers of the pattern."""

    def __init__(self, x: np.ndarray, source: np.ndarray, heads: int, pattern: AttentionPattern) -> None:
        width = x.shape[2]
        self.visible = mask_for(pattern, source.shape[1])
        self.pattern = pattern.causal, *pattern_numbers(pattern, width // heads, x.dtype)
        self.pieces = even_blocks(len(x), len(product_pieces(x.size // width, 4 * x.size * width)))
        self.statistics = len(x), heads, x.shape[1]

    def run(self, work: Callable[[int, slice], Any]) -> list[Any]:
        """Return the results of ``work(number, sentences)`` for all pieces."""
        results: list[Any] = [None] * len(self.pieces)

        def piece(number: int) -> None:
            results[number] = work(number, self.pieces[number])

        with BLAS:
            share(piece, range(len(self.pieces)))
        return results


def _fits(x: np.ndarray, source: np.ndarray, *others: np.ndarray) -> bool:
    """Return whether the kernels serve these operands: enough sentences to divide, and enough rows."""
    return (
        FOUND and serves(x, source, *others) and all(a.size for a in (x, source, *others)) and len(x) >= 8
        and x.shape[0] * x.shape[1] > FEW_ROWS
    )  # fmt: skip


@overrides(self_attention_formula)
def _self_attention_kernel(
    before: Callable[..., Any], x: np.ndarray, w: np.ndarray, b: np.ndarray, wo: np.ndarray, bo: np.ndarray,
    heads: int, pattern: AttentionPattern,
) -> tuple[Array, Any]:  # fmt: skip
    if not _fits(x, x, w, b, wo, bo):
        return before(x, w, b, wo, bo, heads, pattern)
    call, x_rows = _Call(x, x, heads, pattern), rows(x)
    qkv, (merged, y) = np.empty((*x.shape[:2], w.shape[1]), x.dtype), np.empty((2, *x.shape), x.dtype)
    tops, totals = np.empty((2, *call.statistics), x.dtype)
    (w, wo), b, bo = factors(w, wo), contiguous(b), contiguous(bo)

    def work(number: int, n: slice) -> None:
        arguments = call.pattern, n.start, n.stop, call.visible, tops, totals, rows(qkv), rows(merged), rows(y)
        self_attention(x_rows, w, b, wo, bo, *arguments)

    call.run(work)
    return y, (qkv, None, merged, (tops[..., None], totals[..., None]))


@overrides(self_attention_gradient)
def _self_attention_gradient_kernel(
    before: Callable[..., Any], dy: np.ndarray, x: np.ndarray, w: np.ndarray, wo: np.ndarray, kept: Any, heads: int,
    pattern: AttentionPattern, needs: tuple[bool, ...],
) -> tuple[Array | None, ...]:  # fmt: skip
    if kept[3] is None or not all(needs) or not _fits(x, x, w, wo, dy, kept[0]):
        return before(dy, x, w, wo, kept, heads, pattern, needs)
    call, x_rows, dy_rows, (w_factor, wo_factor) = _Call(x, x, heads, pattern), rows(x), rows(dy), factors(w, wo)
    qkv, merged = rows(kept[0]), rows(kept[2])
    tops, totals = (contiguous(k.reshape(call.statistics)) for k in kept[3])
    dqkv, dmerged, dx = np.empty(qkv.shape, x.dtype), np.empty(merged.shape, x.dtype), np.empty(x.shape, x.dtype)
    shapes = w.shape, w.shape[1:], wo.shape, wo.shape[1:]
    sums = [Partial(shape, x.dtype, len(call.pieces)) for shape in shapes]

    def work(number: int, n: slice) -> bool:
        arguments = call.pattern, n.start, n.stop, call.visible, tops, totals, qkv, merged, dmerged, dqkv, rows(dx)
        return self_attention_gradient_piece(
            dy_rows, x_rows, w_factor, wo_factor, *arguments, *[s[number] for s in sums]
        )

    if not all(call.run(work)):  # a gradient is infinite or NaN, perhaps only at hidden positions
        return before(dy, x, w, wo, kept, heads, pattern, needs)
    return dx, *[s.total() for s in sums]


@overrides(cross_attention_formula)
def _cross_attention_kernel(
    before: Callable[..., Any], x: np.ndarray, memory: np.ndarray, w: np.ndarray, b: np.ndarray, wo: np.ndarray,
    bo: np.ndarray, heads: int, pattern: AttentionPattern,
) -> tuple[Array, Any]:  # fmt: skip
    if not _fits(x, memory, w, b, wo, bo):
        return before(x, memory, w, b, wo, bo, heads, pattern)
    call, x_rows, memory_rows = _Call(x, memory, heads, pattern), rows(x), rows(memory)
    kv, (q, merged, y) = np.empty((*memory.shape[:2], 2 * x.shape[2]), x.dtype), np.empty((3, *x.shape), x.dtype)
    tops, totals = np.empty((2, *call.statistics), x.dtype)
    (w, wo), b, bo = factors(w, wo), contiguous(b), contiguous(bo)

    def work(number: int, n: slice) -> None:
        projected = rows(q), rows(kv), rows(merged), rows(y)
        cross_attention(
            x_rows, memory_rows, w, b, wo, bo, call.pattern, n.start, n.stop, call.visible, tops, totals, *projected
        )

    call.run(work)
    return y, (q, kv, merged, (tops[..., None], totals[..., None]))


@overrides(cross_attention_gradient)
def _cross_attention_gradient_kernel(
    before: Callable[..., Any], dy: np.ndarray, x: np.ndarray, memory: np.ndarray, w: np.ndarray, wo: np.ndarray,
    kept: Any, heads: int, pattern: AttentionPattern, needs: tuple[bool, ...],
) -> tuple[Array | None, ...]:  # fmt: skip
    if kept[3] is None or not all(needs) or not _fits(x, memory, w, wo, dy, kept[0]):
        return before(dy, x, memory, w, wo, kept, heads, pattern, needs)
    call, x_rows, memory_rows, dy_rows = _Call(x, memory, heads, pattern), rows(x), rows(memory), rows(dy)
    (w_factor, wo_factor), q, kv, merged = factors(w, wo), rows(kept[0]), rows(kept[1]), rows(kept[2])
    tops, totals = (contiguous(k.reshape(call.statistics)) for k in kept[3])
    (dq, dmerged), dkv = np.empty((2, *q.shape), x.dtype), np.empty(kv.shape, x.dtype)
    dx, dmemory = np.empty(x.shape, x.dtype), np.empty(memory.shape, x.dtype)
    shapes = w.shape, w.shape[1:], wo.shape, wo.shape[1:]
    sums = [Partial(shape, x.dtype, len(call.pieces)) for shape in shapes]

    def work(number: int, n: slice) -> bool:
        statistics = call.pattern, n.start, n.stop, call.visible, tops, totals
        gradients = dmerged, dq, dkv, rows(dx), rows(dmemory), *[s[number] for s in sums]
        return cross_attention_gradient_piece(
            dy_rows, x_rows, memory_rows, w_factor, wo_factor, *statistics, q, kv, merged, *gradients
        )

    if not all(call.run(work)):
        return before(dy, x, memory, w, wo, kept, heads, pattern, needs)
    return dx, dmemory, *[s.total() for s in sums]
