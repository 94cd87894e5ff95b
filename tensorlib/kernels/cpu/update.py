"""Adam by blocks: five passes over four arrays, made while a block of each is in the cache."""

from __future__ import annotations

import math

import numpy as np

from tensorlib.kernels.cpu.blocks import row_blocks
from tensorlib.ops.update import adam_update


@adam_update.register(np.ndarray)
def _(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, *, step: int, lr: float, beta1: float, beta2: float,
    eps: float, weight_decay: float, decoupled: bool,
) -> np.ndarray:  # fmt: skip
    options = {"step": step, "lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
    if not all(a.flags.c_contiguous for a in (p, g, m, v)):  # flattening would update a copy
        return adam_update.dispatch(object)(p, g, m, v, **options, decoupled=decoupled)
    shape, updated = p.shape, np.empty(p.size, p.dtype)
    p, g, m, v = (a.reshape(-1) for a in (p, g, m, v))
    rate, root = lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    for block in row_blocks(p.size, 4 * p.itemsize):
        slope = g[block]
        if weight_decay and not decoupled:
            slope = slope + weight_decay * p[block]
        m[block] *= beta1
        scratch = slope * (1 - beta1)
        m[block] += scratch
        np.multiply(slope, slope, out=scratch)
        scratch *= 1 - beta2
        v[block] *= beta2
        v[block] += scratch
        np.sqrt(v[block], out=scratch)
        scratch *= root
        scratch += eps
        np.divide(m[block], scratch, out=scratch)
        scratch *= rate
        if weight_decay and decoupled:
            np.multiply(p[block], 1 - lr * weight_decay, out=updated[block])
            updated[block] -= scratch
        else:
            np.subtract(p[block], scratch, out=updated[block])
    return updated.reshape(shape)
