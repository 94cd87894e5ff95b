"""Cross-entropy by row blocks: (N, V) is by far the largest array of a training step, so it is passed over once."""

from __future__ import annotations

import numpy as np

from tensorlib.kernels.cpu.blocks import row_blocks
from tensorlib.ops.crossentropy import cross_entropy_formula, cross_entropy_gradient


@cross_entropy_formula.register(np.ndarray)
def _(logits: np.ndarray, targets: np.ndarray, counted: np.ndarray, smoothing: float) -> tuple[np.ndarray, np.ndarray]:
    rows, classes = logits.shape
    lse = np.empty((rows, 1), logits.dtype)
    loss = np.empty(rows, logits.dtype)
    for block in row_blocks(rows, classes * logits.itemsize):
        x = _without_ignored(logits[block], counted[block])
        top = x.max(axis=-1, keepdims=True)
        e = x - top
        np.exp(e, out=e)
        np.log(e.sum(axis=-1, keepdims=True), out=lse[block])
        lse[block] += top
        chosen = np.take_along_axis(x, targets[block, None], axis=-1)
        loss[block] = (lse[block] - (1 - smoothing) * chosen)[:, 0]
        if smoothing:
            loss[block] -= smoothing * x.mean(axis=-1)
    loss[~counted] = 0
    return loss, lse


@cross_entropy_gradient.register(np.ndarray)
def _(
    dloss: np.ndarray,
    logits: np.ndarray,
    lse: np.ndarray,
    targets: np.ndarray,
    counted: np.ndarray,
    smoothing: float,
) -> np.ndarray:
    rows, classes = logits.shape
    dx = np.empty((rows, classes), logits.dtype)
    weight = np.where(counted, dloss, 0).astype(logits.dtype).reshape(-1, 1)
    for block in row_blocks(rows, classes * logits.itemsize):
        p = dx[block]
        np.subtract(_without_ignored(logits[block], counted[block]), lse[block], out=p)
        np.exp(p, out=p)
        if smoothing:
            p -= smoothing / classes
        p[np.arange(len(p)), targets[block]] -= 1 - smoothing
        p *= weight[block]
    return dx


def _without_ignored(x: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return x with zeros in ignored rows, which may hold anything; x itself where all rows count."""
    return x if counted.all() else np.where(counted[:, None], x, x.dtype.type(0))
