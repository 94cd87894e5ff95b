"""Cross-entropy by row blocks: the logits (N, V) are a step's largest array, so memory is read once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.kernels.numpy.blocks import for_blocks
from tensorlib.ops.crossentropy import cross_entropy_formula, cross_entropy_gradient


@cross_entropy_formula.register(np.ndarray)
def _cross_entropy_kernel(
    logits: np.ndarray, targets: np.ndarray, counted: np.ndarray, smoothing: float
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    rows, classes = logits.shape
    tops, log_totals = (np.empty((rows, 1), logits.dtype) for _ in range(2))
    loss = np.empty(rows, logits.dtype)

    def losses(block: slice) -> None:
        x, ignored = logits[block], ~counted[block]
        top = np.max(x, axis=-1, keepdims=True, out=tops[block])
        top[ignored[:, None] | (top == -math.inf)] = 0  # -inf - -inf would be NaN
        e = x - top
        e[ignored] = 0  # an ignored row counts as zeros, as in the formula, whatever it contains
        chosen = np.take_along_axis(e, targets[block, None], axis=-1)[:, 0]
        expected = (1 - smoothing) * chosen + smoothing * e.mean(axis=-1) if smoothing else chosen
        np.exp(e, out=e)
        total = e.sum(axis=-1, keepdims=True)
        total[total == 0] = 1  # all logits are -inf, and log 0 would cause a warning
        log_total = np.log(total, out=log_totals[block])
        loss[block] = log_total[:, 0] - expected

    for_blocks(losses, rows, classes * logits.itemsize)
    loss[~counted] = 0
    return loss, (tops, log_totals)


@cross_entropy_gradient.register(np.ndarray)
def _cross_entropy_gradient_kernel(
    dloss: np.ndarray,
    logits: np.ndarray,
    kept: Any,
    targets: np.ndarray,
    counted: np.ndarray,
    smoothing: float,
) -> Array:
    if kept is None:
        return cross_entropy_gradient.dispatch(object)(dloss, logits, kept, targets, counted, smoothing)
    rows, classes = logits.shape
    tops, log_totals = kept
    dx = np.empty((rows, classes), logits.dtype)
    weight = np.where(counted, dloss, 0).astype(logits.dtype).reshape(-1, 1)

    def gradient(block: slice) -> None:
        p = dx[block]
        np.subtract(logits[block], tops[block], out=p)
        p -= log_totals[block]
        p[~counted[block]] = 0
        np.exp(p, out=p)
        if smoothing:
            p -= smoothing / classes
        p[np.arange(len(p)), targets[block]] -= 1 - smoothing
        p *= weight[block]

    for_blocks(gradient, rows, classes * logits.itemsize)
    return dx
