"""Attention by blocks: a block holds whole sentences if they are short, otherwise some queries of one head.

A block has all keys of its queries, so its softmax is complete. Each thread has only one block of scores at a time,
which fits in the cache. Backward computes the weights again from the scores and the kept sums of their exponentials.

Shape suffixes: B sentences, H heads, T queries, S keys, K head width, M width of the values; lower-case letters
are the same sizes of one block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.philox import philox_bits
from tensorlib.arrays.threads import BLAS, share
from tensorlib.kernels.numpy.blocks import same_float_dtype
from tensorlib.kernels.numpy.dropout import zero_where_not
from tensorlib.ops.attention import AttentionPattern, attention_formula, attention_gradient
from tensorlib.ops.dropout import dropout_scale, dropped_levels

BLOCK_WEIGHTS = 1 << 17  # the most weights in a block: half a megabyte of float32
SHARED_WEIGHTS = 1 << 16  # sharing the work among threads is faster from this number of weights on
SAFE_SCORE = 60.0  # exp(60) is far from overflow, and so is a sum of such numbers
SAFE_SUM = 1e-20  # a sum above this is far from underflow

Task = tuple[slice, slice, list[slice]]  # sentences, heads, and blocks of their queries


class _AttentionBlocks:
    """The operands of one attention with axes (B, H, ...), which computes scores and weights one block at a time.

    `ceiling` is inf where a key is visible and -inf where it is hidden, or None if all keys are visible.
    """

    def __init__(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, pattern: AttentionPattern) -> None:
        lead = self.lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
        batch, heads = (1, 1, *lead)[-2:]
        self.q_BHTK, self.k_BHSK, self.v_BHSM = (
            np.broadcast_to(x, (*lead, *x.shape[-2:])).reshape(batch, heads, *x.shape[-2:]) for x in (q, k, v)
        )
        self.batch, self.heads, self.queries, self.keys = batch, heads, q.shape[-2], k.shape[-2]
        self.pattern, self.scale, self.dtype = pattern, 1 / math.sqrt(q.shape[-1]), q.dtype
        self.ceiling = None
        visible: Any = pattern.visible
        if visible is not None and not visible.all():
            ceiling = np.where(visible, q.dtype.type(math.inf), q.dtype.type(-math.inf))
            ceiling = np.broadcast_to(ceiling, (*lead, self.queries, self.keys))
            self.ceiling = ceiling.reshape(batch, heads, self.queries, self.keys) if len(lead) < 2 else ceiling

    def tasks(self) -> list[Task]:
        """Return the tasks. The blocks of a task run in order on one thread, so that sums over them have one order."""
        per_sentence = self.heads * self.queries * self.keys
        if per_sentence <= BLOCK_WEIGHTS:
            step, all_heads = BLOCK_WEIGHTS // per_sentence, slice(0, self.heads)
            if self.batch * per_sentence >= SHARED_WEIGHTS:  # enough work for two threads, so at least two tasks
                step = min(step, -(-self.batch // 2))
            all_queries = [slice(0, self.queries)]
            return [(slice(b, min(b + step, self.batch)), all_heads, all_queries) for b in range(0, self.batch, step)]
        step = max(1, BLOCK_WEIGHTS // self.keys)
        blocks = [slice(t, min(t + step, self.queries)) for t in range(0, self.queries, step)]
        return [(slice(b, b + 1), slice(h, h + 1), blocks) for b, h in np.ndindex(self.batch, self.heads)]

    def run(self, work: Callable[[Task], Any]) -> None:
        """Call ``work(task)`` for all tasks, on several threads if there is enough to do."""
        tasks = self.tasks()
        with BLAS:
            if self.batch * self.heads * self.queries * self.keys >= SHARED_WEIGHTS:
                share(work, tasks)
            else:
                for task in tasks:
                    work(task)

    def seen_keys(self, t: slice) -> slice:
        """Return the keys that at least one of these queries may see."""
        return slice(0, min(t.stop, self.keys) if self.pattern.causal else self.keys)

    def scores(self, b: slice, h: slice, t: slice) -> np.ndarray:
        """Return q k^T / sqrt(K) of a block for the keys that it sees, (b, h, t, s); -inf where a key is hidden."""
        s = self.seen_keys(t)
        scores = np.matmul(self.q_BHTK[b, h, t], self.k_BHSK[b, h, s].swapaxes(-1, -2))
        scores *= self.dtype.type(self.scale)  # scaling the queries is slower: they are not contiguous
        if self.ceiling is not None:  # fmin instead of a sum, because it replaces even a hidden NaN by -inf
            np.fmin(scores, self.ceiling[b, h, t, s], out=scores)
        if self.pattern.causal:  # all queries of the block see the keys before its first query
            last = scores[..., t.start :]
            past = np.tri(t.stop - t.start, last.shape[-1], dtype=bool)
            np.fmin(last, np.where(past, self.dtype.type(math.inf), self.dtype.type(-math.inf)), out=last)
        return scores

    def exponentials(self, b: slice, h: slice, t: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return e = exp(scores - top), top, and the sum of e for each row: the weights are e / sum."""
        e = self.scores(b, h, t)
        if e.max() <= SAFE_SCORE:  # nearly always: top = 0, which saves two passes
            np.exp(e, out=e)
            total = row_sums(e)
            if total.min() > SAFE_SUM:
                return e, np.zeros_like(total), total
            e = self.scores(b, h, t)  # a row sees nothing, or its scores are all far below zero
        top = e.max(axis=-1, keepdims=True)
        top[top == -math.inf] = 0
        e -= top
        np.exp(e, out=e)
        total = row_sums(e)
        total[total == 0] = 1
        return e, top, total

    def dropout_mask(self, b: slice, h: slice, t: slice) -> np.ndarray:
        """Return a boolean mask of the weights of a block that dropout keeps: its part of the mask (B, H, T, S)."""
        sizes = [x.stop - x.start for x in (b, h, t)]
        start = ((b.start * self.heads + h.start) * self.queries + t.start) * self.keys
        bits = philox_bits(self.pattern.key, self.pattern.draw, start, math.prod(sizes) * self.keys)
        return (bits >= dropped_levels(self.pattern.p)).reshape(*sizes, self.keys)[..., self.seen_keys(t)]

    def with_original_axes(self, x: np.ndarray) -> np.ndarray:
        """Reshape a result (B, H, ...) to the leading axes of the operands."""
        return x.reshape(*self.lead, *x.shape[-2:]) if len(self.lead) < 2 else x


def row_sums(x: np.ndarray) -> np.ndarray:
    """Return the sums over the last axis, kept, by a product with ones: np.sum is much slower on short rows."""
    width = x.shape[-1]
    return np.matmul(x.reshape(-1, width), np.ones((width, 1), x.dtype)).reshape(*x.shape[:-1], 1)


def empty_heads(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an empty array (batch, heads, length, width) with the memory layout (batch, length, heads · width)."""
    batch, heads, length, width = shape
    return np.empty((batch, length, heads, width), dtype).transpose(0, 2, 1, 3)


def _fits(q: np.ndarray, k: np.ndarray, v: np.ndarray, p: float) -> bool:
    """Return whether the kernel serves these operands."""
    if p and len({np.broadcast_shapes(*[x.shape[:-2] for x in some]) for some in ((q, k), (q, k, v))}) > 1:
        return False  # several v share the weights of one q and k, and so their dropout mask
    return max(q.ndim, k.ndim, v.ndim) <= 4 and same_float_dtype(q, k, v) and 0 not in (*q.shape, *k.shape, *v.shape)


@attention_formula.register(np.ndarray)
def _attention_kernel(q: np.ndarray, k: np.ndarray, v: np.ndarray, pattern: AttentionPattern) -> tuple[Array, Any]:
    if not _fits(q, k, v, pattern.p):
        return attention_formula.dispatch(object)(q, k, v, pattern)
    x = _AttentionBlocks(q, k, v, pattern)
    y_BHTM = empty_heads((x.batch, x.heads, x.queries, v.shape[-1]), q.dtype)
    top_BHT1, total_BHT1 = (np.empty((x.batch, x.heads, x.queries, 1), q.dtype) for _ in range(2))

    def attend(task: Task) -> None:
        b, h, blocks = task
        for t in blocks:
            e, top_BHT1[b, h, t], total = x.exponentials(b, h, t)
            total_BHT1[b, h, t] = total
            if pattern.p:
                zero_where_not(x.dropout_mask(b, h, t), e)
                total /= total.dtype.type(dropout_scale(pattern.p))
            e /= total  # divide before the product, which could otherwise overflow
            np.matmul(e, x.v_BHSM[b, h, x.seen_keys(t)], out=y_BHTM[b, h, t])

    x.run(attend)
    return x.with_original_axes(y_BHTM), (top_BHT1, total_BHT1)


@attention_gradient.register(np.ndarray)
def _attention_gradient_kernel(
    dy: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    pattern: AttentionPattern,
    kept: Any,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None]:
    if kept is not None and same_float_dtype(q, dy):
        x = _AttentionBlocks(q, k, v, pattern)
        gradients = _AttentionGradients(x, dy, kept, needs)
        with np.errstate(invalid="ignore", over="ignore"):
            x.run(gradients.accumulate)
        if gradients.finite:
            results = (gradients.dq, gradients.dk, gradients.dv)
            dq, dk, dv = (None if d is None else x.with_original_axes(d) for d in results)
            return dq, dk, dv
    # The dtypes differ, or a gradient is infinite or NaN, perhaps only at hidden positions.
    return attention_gradient.dispatch(object)(dy, q, k, v, pattern, kept, needs)


class _AttentionGradients:
    """The gradients of one attention, accumulated block by block."""

    def __init__(self, x: _AttentionBlocks, dy: np.ndarray, kept: Any, needs: tuple[bool, ...]) -> None:
        self.x, self.finite = x, True
        self.dy_BHTM = dy.reshape(x.batch, x.heads, *dy.shape[-2:]) if dy.ndim < 4 else dy
        self.top_BHT1, self.total_BHT1 = kept
        self.dq, self.dk, self.dv = (
            empty_heads(operand.shape, operand.dtype) if needed else None
            for operand, needed in zip((x.q_BHTK, x.k_BHSK, x.v_BHSM), needs, strict=True)
        )

    def accumulate(self, task: Task) -> None:
        """Add the contributions of the blocks of one task."""
        x = self.x
        b, h, blocks = task
        for t in blocks:
            dy_t, s, first = self.dy_BHTM[b, h, t], x.seen_keys(t), t.start == 0
            w = self.weights(b, h, t)
            mask = x.dropout_mask(b, h, t) if x.pattern.p else None
            if self.dv is not None:
                dropped = w if mask is None else self.drop(w.copy(), mask)
                _add_product(dropped.swapaxes(-1, -2), dy_t, self.dv[b, h], s, first)
            dw = np.matmul(dy_t, x.v_BHSM[b, h, s].swapaxes(-1, -2))
            ds = self.score_gradient(w, dw if mask is None else self.drop(dw, mask))
            if self.dq is not None:
                np.matmul(ds, x.k_BHSK[b, h, s], out=self.dq[b, h, t])
            if self.dk is not None:
                _add_product(ds.swapaxes(-1, -2), x.q_BHTK[b, h, t], self.dk[b, h], s, first)

    def weights(self, b: slice, h: slice, t: slice) -> np.ndarray:
        """Return the weights of a block, computed again by the same steps as in the forward pass."""
        w = self.x.scores(b, h, t)
        if self.top_BHT1[b, h, t].any():
            w -= self.top_BHT1[b, h, t]
        np.exp(w, out=w)
        w /= self.total_BHT1[b, h, t]
        return w

    def drop(self, w: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Apply dropout to w in place and return it."""
        w *= w.dtype.type(dropout_scale(self.x.pattern.p))
        zero_where_not(mask, w)
        return w

    def score_gradient(self, w: np.ndarray, dw: np.ndarray) -> np.ndarray:
        """Return the gradient of q k^T, given the weights and their gradient, which it overwrites."""
        dw *= w
        expected = row_sums(dw)
        self.finite = self.finite and bool(np.isfinite(expected).all())
        w *= expected
        dw -= w
        dw *= dw.dtype.type(self.x.scale)
        return dw


def _add_product(x: np.ndarray, y: np.ndarray, z: np.ndarray, rows: slice, first: bool) -> None:
    """Add x @ y to these rows of z (..., S, width). The first call writes all of z."""
    if first:
        np.matmul(x, y, out=z[..., rows, :])
        z[..., rows.stop :, :] = 0
    else:
        z[..., rows, :] += np.matmul(x, y)
