"""The optimizers' steps and moving averages: one pass over all arrays of a parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.compiling import compiled
from tensorlib.kernels.numba.rows import for_pieces, serves
from tensorlib.ops.update import adam_update, average_update, sgd_update


def _in_place(*arrays: np.ndarray) -> bool:
    """Return whether all arrays are served as they are; a copy could not be updated in place."""
    return serves(*arrays) and all(a.flags.c_contiguous for a in arrays)


@compiled
def adam(
    p: Any, g: Any, m: Any, v: Any, new: Any, beta1: Any, beta2: Any, other1: Any, other2: Any, eps: Any, rate: Any,
    root: Any, added: Any, shrunk: Any,
) -> None:  # fmt: skip
    """Update the moments and write the parameter's new value.

    other1, other2: 1 - b1 and 1 - b2, rounded once; rate: learning rate / (1 - b1^t); root: 1 / sqrt(1 - b2^t); added:
    the weight decay that is added to the gradient; shrunk: the factor of p, 1 - learning rate · weight decay.
    """
    for i in range(p.size):
        slope = g[i] + added * p[i]
        m[i] = beta1 * m[i] + other1 * slope
        v[i] = beta2 * v[i] + other2 * (slope * slope)
        new[i] = shrunk * p[i] - m[i] / (np.sqrt(v[i]) * root + eps) * rate


@compiled
def sgd(p: Any, g: Any, velocity: Any, new: Any, rate: Any, momentum: Any, added: Any, nesterov: bool) -> None:
    """Update the velocity, which may have no elements, and write the parameter's new value."""
    if velocity.size:
        for i in range(p.size):
            slope = g[i] + added * p[i]
            velocity[i] = momentum * velocity[i] + slope
            new[i] = p[i] - rate * (slope + momentum * velocity[i] if nesterov else velocity[i])
    else:
        for i in range(p.size):
            new[i] = p[i] - rate * (g[i] + added * p[i])


@compiled
def average(e: Any, w: Any, rate: Any) -> None:
    """Move the average e towards w."""
    for i in range(e.size):
        e[i] += rate * (w[i] - e[i])


@overrides(adam_update)
def _adam_update_kernel(
    before: Callable[..., Array], p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, *, step: int,
    learning_rate: float, beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool,
) -> Array:  # fmt: skip
    if not _in_place(p, g, m, v):
        return before(p, g, m, v, step=step, learning_rate=learning_rate, beta1=beta1, beta2=beta2, eps=eps,
                      weight_decay=weight_decay, decoupled=decoupled)  # fmt: skip
    new, number = np.empty(p.shape, p.dtype), p.dtype.type
    arrays = [a.reshape(-1) for a in (p, g, m, v, new)]
    numbers = [
        number(x)
        for x in (
            beta1, beta2, 1 - beta1, 1 - beta2, eps, learning_rate / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step),
            0 if decoupled else weight_decay, 1 - learning_rate * weight_decay if decoupled else 1,
        )
    ]  # fmt: skip
    for_pieces(lambda b: adam(*[a[b] for a in arrays], *numbers), p.size)
    return new


@overrides(sgd_update)
def _sgd_update_kernel(
    before: Callable[..., Array], p: np.ndarray, g: np.ndarray, velocity: np.ndarray | None, learning_rate: float,
    momentum: float, weight_decay: float, nesterov: bool,
) -> Array:  # fmt: skip
    if not _in_place(p, g, *([] if velocity is None else [velocity])):
        return before(p, g, velocity, learning_rate, momentum, weight_decay, nesterov)
    new, number = np.empty(p.shape, p.dtype), p.dtype.type
    p_flat, g_flat, new_flat = p.reshape(-1), g.reshape(-1), new.reshape(-1)
    v_flat = np.empty(0, p.dtype) if velocity is None else velocity.reshape(-1)
    numbers = number(learning_rate), number(momentum), number(weight_decay)
    for_pieces(lambda b: sgd(p_flat[b], g_flat[b], v_flat[b], new_flat[b], *numbers, nesterov), p.size)
    return new


@overrides(average_update)
def _average_update_kernel(before: Callable[..., None], e: np.ndarray, w: np.ndarray, decay: float) -> None:
    if not _in_place(e, w):
        before(e, w, decay)
        return
    e_flat, w_flat, rate = e.reshape(-1), w.reshape(-1), e.dtype.type(1 - decay)
    for_pieces(lambda b: average(e_flat[b], w_flat[b], rate), e.size)
