"""Cross-entropy: a row of logits, a step's largest array, is read while it is in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.compiling import compiled, summing
from tensorlib.kernels.numba.elementary import exp
from tensorlib.kernels.numba.rows import flat, for_pieces, rows, serves
from tensorlib.kernels.numba.softmax import largest
from tensorlib.ops.crossentropy import cross_entropy_formula, cross_entropy_gradient


@summing
def losses(x: Any, targets: Any, counted: Any, smoothing: Any, loss: Any, tops: Any, log_totals: Any) -> None:
    """Write the loss of each row, its largest logit, and the logarithm of the sum of exponentials."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    classes = x.dtype.type(x.shape[1])
    for i in range(x.shape[0]):
        if not counted[i]:  # such a row may hold anything; it counts as zeros
            loss[i], tops[i], log_totals[i] = zero, zero, np.log(classes)
            continue
        top = largest(x, i)
        total, plain = zero, zero
        for j in range(x.shape[1]):
            shifted = x[i, j] - top
            total += exp(shifted)
            plain += shifted
        log_total = np.log(one if total == zero else total)
        expected = (one - smoothing) * (x[i, targets[i]] - top)
        if smoothing:  # 0 · -inf would be NaN
            expected += smoothing * (plain / classes)
        loss[i], tops[i], log_totals[i] = log_total - expected, top, log_total


@compiled  # top and logarithm stay apart: their sum would lose the logarithm beside 1e30
def gradients(
    x: Any, tops: Any, log_totals: Any, targets: Any, counted: Any, smoothing: Any, dloss: Any, dx: Any
) -> None:
    """Write dloss (softmax - q) for each row, 0 for ignored ones."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(x.shape[0]):
        if not counted[i]:
            for j in range(x.shape[1]):
                dx[i, j] = zero
            continue
        top, log_total, factor = tops[i], log_totals[i], dloss[i]
        share_of_each = smoothing / x.dtype.type(x.shape[1])
        for j in range(x.shape[1]):
            dx[i, j] = factor * (exp(x[i, j] - top - log_total) - share_of_each)
        t = targets[i]
        dx[i, t] = factor * (exp(x[i, t] - top - log_total) - share_of_each - (one - smoothing))


@overrides(cross_entropy_formula)
def _cross_entropy_kernel(
    before: Callable[..., Any], logits: np.ndarray, targets: np.ndarray, counted: np.ndarray, smoothing: float
) -> tuple[Array, Any]:
    if not serves(logits) or not logits.size:
        return before(logits, targets, counted, smoothing)
    x, targets = rows(logits), targets.astype(np.int64, copy=False)
    loss, tops, log_totals = (np.empty(len(x), x.dtype) for _ in range(3))
    smooth = x.dtype.type(smoothing)
    for_pieces(
        lambda b: losses(x[b], targets[b], counted[b], smooth, loss[b], tops[b], log_totals[b]), len(x), 2 * x.shape[1]
    )
    return loss, (tops[:, None], log_totals[:, None])


@overrides(cross_entropy_gradient)
def _cross_entropy_gradient_kernel(
    before: Callable[..., Array], dloss: np.ndarray, logits: np.ndarray, kept: Any, targets: np.ndarray,
    counted: np.ndarray, smoothing: float,
) -> Array:  # fmt: skip
    if kept is None or not serves(logits, *kept) or not logits.size:
        return before(dloss, logits, kept, targets, counted, smoothing)
    x, targets = rows(logits), targets.astype(np.int64, copy=False)
    tops, log_totals = (flat(k) for k in kept)
    factors = np.ascontiguousarray(np.broadcast_to(dloss, len(x)), x.dtype)
    dx, smooth = np.empty(x.shape, x.dtype), x.dtype.type(smoothing)
    for_pieces(
        lambda b: gradients(x[b], tops[b], log_totals[b], targets[b], counted[b], smooth, factors[b], dx[b]),
        len(x),
        2 * x.shape[1],
    )
    return dx
