"""Adam and moving averages by blocks: all passes over a block are made while it is in the cache."""

from __future__ import annotations

import math

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.kernels.numpy.blocks import for_blocks, same_float_dtype
from tensorlib.ops.update import adam_update, average_update


@adam_update.register(np.ndarray)
def _adam_update_kernel(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, *, step: int, learning_rate: float, beta1: float,
    beta2: float, eps: float, weight_decay: float, decoupled: bool,
) -> Array:  # fmt: skip
    options = {
        "step": step, "learning_rate": learning_rate, "beta1": beta1, "beta2": beta2, "eps": eps,
        "weight_decay": weight_decay,
    }  # fmt: skip
    if not (same_float_dtype(p, g, m, v) and all(a.flags.c_contiguous for a in (p, g, m, v))):  # flattening would copy
        return adam_update.dispatch(object)(p, g, m, v, **options, decoupled=decoupled)
    shape, updated = p.shape, np.empty(p.size, p.dtype)
    p, g, m, v = (a.reshape(-1) for a in (p, g, m, v))
    rate, root = learning_rate / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)

    def update(block: slice) -> None:
        slope = g[block]
        if weight_decay and not decoupled:
            slope = slope + weight_decay * p[block]
        scratch, new = slope * (1 - beta1), updated[block]
        m_block, v_block = m[block], v[block]
        m_block *= beta1
        m_block += scratch
        np.multiply(slope, slope, out=scratch)
        scratch *= 1 - beta2
        v_block *= beta2
        v_block += scratch
        np.sqrt(v_block, out=scratch)
        scratch *= root
        scratch += eps
        np.divide(m_block, scratch, out=scratch)
        scratch *= rate
        if weight_decay and decoupled:
            np.multiply(p[block], 1 - learning_rate * weight_decay, out=new)
            new -= scratch
        else:
            np.subtract(p[block], scratch, out=new)

    for_blocks(update, p.size, 4 * p.itemsize)
    return updated.reshape(shape)


@average_update.register(np.ndarray)
def _average_update_kernel(e: np.ndarray, w: np.ndarray, decay: float) -> None:
    if not (same_float_dtype(e, w) and e.flags.c_contiguous and w.flags.c_contiguous):
        average_update.dispatch(object)(e, w, decay)
        return
    e, w = e.reshape(-1), w.reshape(-1)

    def update(block: slice) -> None:
        scratch, average = w[block] - e[block], e[block]
        scratch *= 1 - decay
        average += scratch

    for_blocks(update, e.size, 2 * e.itemsize)
