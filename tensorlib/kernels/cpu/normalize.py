"""Layer normalisation by row blocks, in place."""

from __future__ import annotations

import numpy as np

from tensorlib.kernels.cpu.blocks import row_blocks
from tensorlib.ops.normalize import layer_norm_formula, layer_norm_gradient


@layer_norm_formula.register(np.ndarray)
def _(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    if x.size == 0 or np.result_type(x, weight, bias) != x.dtype:  # what is done in place below would stay narrow
        return layer_norm_formula.dispatch(object)(x, weight, bias, eps)
    width = x.shape[-1]
    rows = x.reshape(-1, width)
    y = np.empty_like(rows)
    mean, rstd = np.empty((len(rows), 1), x.dtype), np.empty((len(rows), 1), x.dtype)
    for block in row_blocks(len(rows), width * x.itemsize):
        rows[block].mean(axis=-1, keepdims=True, out=mean[block])
        h = np.subtract(rows[block], mean[block], out=y[block])
        variance = np.einsum("nd,nd->n", h, h)[:, None] / width
        rstd[block] = 1 / np.sqrt(variance + eps)
        h *= rstd[block]
        h *= weight
        h += bias
    kept = (*x.shape[:-1], 1)
    return y.reshape(x.shape), (mean.reshape(kept), rstd.reshape(kept))


@layer_norm_gradient.register(np.ndarray)
def _(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, rstd: np.ndarray, needs: tuple[bool, ...]
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    if x.size == 0 or np.result_type(dy, x, weight) != x.dtype:
        return layer_norm_gradient.dispatch(object)(dy, x, weight, mean, rstd, needs)
    width = x.shape[-1]
    dy_rows, x_rows = dy.reshape(-1, width), x.reshape(-1, width)
    mean_rows, rstd_rows = mean.reshape(-1, 1), rstd.reshape(-1, 1)
    dx = np.empty_like(x_rows) if needs[0] else None
    dweight, dbias = (np.zeros(width, x.dtype) if needed else None for needed in needs[1:])
    for block in row_blocks(len(x_rows), width * x.itemsize):
        if dbias is not None:
            dbias += dy_rows[block].sum(axis=0)
        if dx is None and dweight is None:
            continue
        h = x_rows[block] - mean_rows[block]
        h *= rstd_rows[block]
        if dweight is not None:
            dweight += np.einsum("nd,nd->d", dy_rows[block], h)
        if dx is None:
            continue
        g = np.multiply(dy_rows[block], weight, out=dx[block])
        h *= np.einsum("nd,nd->n", g, h)[:, None] / width
        g -= g.mean(axis=-1, keepdims=True)
        g -= h
        g *= rstd_rows[block]
    return None if dx is None else dx.reshape(x.shape), dweight, dbias
