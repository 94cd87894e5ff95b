"""Attention by blocks: of whole sentences while these are short, of the queries of one head when they are long.

A block has all keys of its queries, so its softmax is complete, and a piece of scores that fits the cache is all that
ever exists of them. In backward the weights are made again from the scores and what their exponentials sum up to.

Shape suffixes: B sentences, H heads, T queries, S keys, K head width, M width of the values; small letters: of a block.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorlib.arrays.backend import philox_bits
from tensorlib.arrays.threads import BLAS, share
from tensorlib.kernels.numpy.blocks import same_float_dtype
from tensorlib.kernels.numpy.dropout import zero_where_not
from tensorlib.ops.attention import AttentionPattern, attention_formula, attention_gradient
from tensorlib.ops.dropout import dropout_scale, dropped_levels

BLOCK = 1 << 17  # weights of a block at most: half a megabyte of float32
SHARED = 1 << 16  # weights in all from which it pays to share the work
SAFE, UNSAFE = 60.0, 1e-20  # exp of the one is far from overflow, also summed; the other is far above underflow

Task = tuple[slice, slice, list[slice]]  # sentences, heads, and blocks of their queries


class _Heads:
    """The operands of one attention with axes (B, H, ...), and its weights a block at a time."""

    def __init__(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, pattern: AttentionPattern) -> None:
        lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
        self.lead = lead
        batch, heads = (1, 1, *lead)[-2:]
        self.q_BHTK, self.k_BHSK, self.v_BHSM = (
            np.broadcast_to(x, (*lead, *x.shape[-2:])).reshape(batch, heads, *x.shape[-2:]) for x in (q, k, v)
        )
        self.batch, self.heads, self.queries, self.keys = batch, heads, q.shape[-2], k.shape[-2]
        self.pattern, self.scale, self.dtype = pattern, 1 / math.sqrt(q.shape[-1]), q.dtype
        self.ceiling = None
        if pattern.visible is not None and not pattern.visible.all():
            ceiling = np.where(pattern.visible, q.dtype.type(math.inf), q.dtype.type(-math.inf))
            ceiling = np.broadcast_to(ceiling, (*lead, self.queries, self.keys))
            self.ceiling = ceiling.reshape(batch, heads, self.queries, self.keys) if len(lead) < 2 else ceiling

    def tasks(self) -> list[Task]:
        """Cut the work: what one thread does in order, so that sums over blocks of queries have one order."""
        of_sentence = self.heads * self.queries * self.keys
        if of_sentence <= BLOCK:
            step, every = BLOCK // of_sentence, slice(0, self.heads)
            # Two tasks at least, for two threads, if there is enough for both.
            step = min(step, -(-self.batch // 2)) if self.batch * of_sentence >= SHARED else step
            whole = [slice(0, self.queries)]
            return [(slice(b, min(b + step, self.batch)), every, whole) for b in range(0, self.batch, step)]
        step = max(1, BLOCK // self.keys)
        blocks = [slice(t, min(t + step, self.queries)) for t in range(0, self.queries, step)]
        return [(slice(b, b + 1), slice(h, h + 1), blocks) for b, h in np.ndindex(self.batch, self.heads)]

    def run(self, work: Any) -> None:
        """Call ``work(task)`` for all tasks, on several threads if there is enough to do."""
        tasks = self.tasks()
        with BLAS:
            if self.batch * self.heads * self.queries * self.keys >= SHARED:
                share(work, tasks)
            else:
                for task in tasks:
                    work(task)

    def seen(self, t: slice) -> slice:
        """Return which keys any of these queries may see."""
        return slice(0, min(t.stop, self.keys) if self.pattern.causal else self.keys)

    def scores(self, b: slice, h: slice, t: slice) -> np.ndarray:
        """Return q k^T / sqrt(K) of a block, (b, h, t, s) for the keys that are seen; -inf where one is hidden."""
        s = self.seen(t)
        scores = np.matmul(self.q_BHTK[b, h, t], self.k_BHSK[b, h, s].swapaxes(-1, -2))
        scores *= self.dtype.type(self.scale)  # contiguous, as the queries are not
        if self.ceiling is not None:  # fmin and not a sum: it also puts -inf in the place of a NaN
            np.fmin(scores, self.ceiling[b, h, t, s], out=scores)
        if self.pattern.causal:  # keys before the block's first query are seen by all of it
            last = scores[..., t.start :]
            past = np.tri(t.stop - t.start, last.shape[-1], dtype=bool)
            np.fmin(last, np.where(past, self.dtype.type(math.inf), self.dtype.type(-math.inf)), out=last)
        return scores

    def exponentials(self, b: slice, h: slice, t: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return e = exp(scores - top), top and the sums of e for each row: the weights are e / sum."""
        e = self.scores(b, h, t)
        if e.max() <= SAFE:  # as nearly always: no shift is needed, which saves two passes with a step for each row
            np.exp(e, out=e)
            total = row_sums(e)
            if total.min() > UNSAFE:
                return e, np.zeros_like(total), total
            e = self.scores(b, h, t)  # a row that sees nothing, or whose scores are all far below zero
        top = e.max(axis=-1, keepdims=True)
        top[top == -math.inf] = 0
        e -= top
        np.exp(e, out=e)
        total = row_sums(e)
        total[total == 0] = 1
        return e, top, total

    def kept(self, b: slice, h: slice, t: slice) -> np.ndarray:
        """Return which weights of a block dropout keeps: its stretch of the mask of all (B, H, T, S) weights."""
        sizes = [x.stop - x.start for x in (b, h, t)]
        start = ((b.start * self.heads + h.start) * self.queries + t.start) * self.keys
        bits = philox_bits(self.pattern.key, self.pattern.draw, start, math.prod(sizes) * self.keys)
        return (bits >= dropped_levels(self.pattern.p)).reshape(*sizes, self.keys)[..., self.seen(t)]

    def without_added_axes(self, x: np.ndarray) -> np.ndarray:
        """Return a result with the leading axes that the operands had."""
        return x.reshape(*self.lead, *x.shape[-2:]) if len(self.lead) < 2 else x


def row_sums(x: np.ndarray) -> np.ndarray:
    """Return the sums over the last axis, kept, as a product with ones: over short rows a reduction is much slower."""
    width = x.shape[-1]
    return np.matmul(x.reshape(-1, width), np.ones((width, 1), x.dtype)).reshape(*x.shape[:-1], 1)


def as_heads(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an empty (batch, heads, length, width) that lies in memory as (batch, length, heads · width)."""
    batch, heads, length, width = shape
    return np.empty((batch, length, heads, width), dtype).transpose(0, 2, 1, 3)


def _fits(q: np.ndarray, k: np.ndarray, v: np.ndarray, p: float) -> bool:
    if p and len({np.broadcast_shapes(*[x.shape[:-2] for x in some]) for some in ((q, k), (q, k, v))}) > 1:
        return False  # the mask is that of q's and k's weights, which several v would share
    return (
        q.ndim <= 4
        and k.ndim <= 4
        and v.ndim <= 4
        and same_float_dtype(q, k, v)
        and 0 not in (*q.shape, *k.shape, *v.shape)
    )


@attention_formula.register(np.ndarray)
def _(q: np.ndarray, k: np.ndarray, v: np.ndarray, pattern: AttentionPattern) -> tuple[np.ndarray, Any]:
    if not _fits(q, k, v, pattern.p):
        return attention_formula.dispatch(object)(q, k, v, pattern)
    x = _Heads(q, k, v, pattern)
    y_BHTM = as_heads((x.batch, x.heads, x.queries, v.shape[-1]), q.dtype)
    top_BHT1, total_BHT1 = (np.empty((x.batch, x.heads, x.queries, 1), q.dtype) for _ in range(2))

    def attend(task: Task) -> None:
        b, h, blocks = task
        for t in blocks:
            e, top_BHT1[b, h, t], total = x.exponentials(b, h, t)
            total_BHT1[b, h, t] = total
            if pattern.p:
                zero_where_not(x.kept(b, h, t), e)
                total /= total.dtype.type(dropout_scale(pattern.p))
            e /= total  # before the product, which could overflow otherwise
            np.matmul(e, x.v_BHSM[b, h, x.seen(t)], out=y_BHTM[b, h, t])

    x.run(attend)
    return x.without_added_axes(y_BHTM), (top_BHT1, total_BHT1)


@attention_gradient.register(np.ndarray)
def _(
    dy: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    pattern: AttentionPattern,
    kept: Any,
    needs: tuple[bool, ...],
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    if kept is not None and same_float_dtype(q, dy):
        x = _Backward(_Heads(q, k, v, pattern), dy, kept, needs)
        with np.errstate(invalid="ignore", over="ignore"):
            x.heads.run(x.gradients)
        if x.finite:
            dq, dk, dv = (None if d is None else x.heads.without_added_axes(d) for d in (x.dq, x.dk, x.dv))
            return dq, dk, dv
    # Else another dtype, or a gradient that is infinite or NaN, perhaps at hidden places only.
    return attention_gradient.dispatch(object)(dy, q, k, v, pattern, kept, needs)


class _Backward:
    """The gradients of one attention, built up block by block."""

    def __init__(self, heads: _Heads, dy: np.ndarray, kept: Any, needs: tuple[bool, ...]) -> None:
        x = heads
        self.heads, self.finite = x, True
        self.dy_BHTM = dy.reshape(x.batch, x.heads, *dy.shape[-2:]) if dy.ndim < 4 else dy
        self.top_BHT1, self.total_BHT1 = kept
        self.dq, self.dk, self.dv = (
            as_heads(like.shape, like.dtype) if needed else None
            for like, needed in zip((x.q_BHTK, x.k_BHSK, x.v_BHSM), needs, strict=True)
        )

    def gradients(self, task: Task) -> None:
        """Add what the blocks of one task contribute."""
        b, h, blocks = task
        for t in blocks:
            x, dy_t, s = self.heads, self.dy_BHTM[b, h, t], self.heads.seen(t)
            w = self.weights(b, h, t)
            mask = x.kept(b, h, t) if x.pattern.p else None
            if self.dv is not None:
                dropped = w if mask is None else self.dropped(w.copy(), mask)
                _add_product(dropped.swapaxes(-1, -2), dy_t, self.dv[b, h], s, first=t.start == 0)
            dw = np.matmul(dy_t, x.v_BHSM[b, h, s].swapaxes(-1, -2))
            ds = self.of_scores(w, dw if mask is None else self.dropped(dw, mask))
            if self.dq is not None:
                np.matmul(ds, x.k_BHSK[b, h, s], out=self.dq[b, h, t])
            if self.dk is not None:
                _add_product(ds.swapaxes(-1, -2), x.q_BHTK[b, h, t], self.dk[b, h], s, first=t.start == 0)

    def weights(self, b: slice, h: slice, t: slice) -> np.ndarray:
        """Return the weights of a block once more, by the same steps as in the forward pass."""
        w = self.heads.scores(b, h, t)
        if self.top_BHT1[b, h, t].any():
            w -= self.top_BHT1[b, h, t]
        np.exp(w, out=w)
        w /= self.total_BHT1[b, h, t]
        return w

    def dropped(self, w: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Apply dropout in place."""
        w *= w.dtype.type(dropout_scale(self.heads.pattern.p))
        zero_where_not(mask, w)
        return w

    def of_scores(self, w: np.ndarray, dw: np.ndarray) -> np.ndarray:
        """Turn the gradient of the weights into that of the scores before they were scaled, in place."""
        dw *= w
        expected = row_sums(dw)
        self.finite = self.finite and bool(np.isfinite(expected).all())
        w *= expected
        dw -= w
        dw *= dw.dtype.type(self.heads.scale)
        return dw


def _add_product(x: np.ndarray, y: np.ndarray, z: np.ndarray, rows: slice, first: bool) -> None:
    """Add x @ y to these rows of z (..., S, width), of which the first block's are all there is so far."""
    if first:
        np.matmul(x, y, out=z[..., rows, :])
        z[..., rows.stop :, :] = 0
    else:
        z[..., rows, :] += np.matmul(x, y)
