"""Optimizer updates: one elementwise kernel each."""

from __future__ import annotations

import math
from typing import Any

import cupy

from tensorlib.kernels.cuda.launch import NOT_SERVED, elementwise, fits, overrides
from tensorlib.ops.update import adam_update, average_update


@overrides(adam_update)
def _adam(
    p: Any, g: Any, m: Any, v: Any, *, step: int, learning_rate: float, beta1: float, beta2: float, eps: float,
    weight_decay: float, decoupled: bool,
) -> Any:  # fmt: skip
    if not fits(p, g, m, v):
        return NOT_SERVED
    update = elementwise(
        "T p, T g, T beta1, T beta2, T rest1, T rest2, T rate, T root, T eps, T added, T shrunk",
        "T m, T v, T updated",
        """
        const T slope = added ? g + added * p : g;  // 0 times an infinite p would be NaN
        m = beta1 * m + rest1 * slope;
        v = beta2 * v + rest2 * slope * slope;
        updated = shrunk * p - rate * m / (sqrt(v) * root + eps);
        """,
    )
    added, shrunk = (0.0, 1 - learning_rate * weight_decay) if decoupled else (weight_decay, 1.0)
    rate, root = learning_rate / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    new = cupy.empty(p.shape, p.dtype)
    update(p, g, beta1, beta2, 1 - beta1, 1 - beta2, rate, root, eps, added, shrunk, m, v, new)
    return new


@overrides(average_update)
def _average(e: Any, w: Any, decay: float) -> Any:
    if not fits(e, w):
        return NOT_SERVED
    elementwise("T w, T rest", "T e", "e += rest * (w - e)")(w, 1 - decay, e)
    return None
