"""Residual sum, dropout and layer normalization: a few rows at a time, which stay in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.threads import share
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.compiling import compiled, summing
from tensorlib.kernels.numba.dropout import CHUNK, Mask, bits_of_rows, keep_or_zero, mask_of, room_for_bits
from tensorlib.kernels.numba.normalize import layer_norm_gradient_rows, layer_norm_rows
from tensorlib.kernels.numba.rows import Partial, contiguous, flat, pieces, rows, serves
from tensorlib.ops.add_norm import add_norm_formula, add_norm_gradient
from tensorlib.ops.dropout import dropout_scale


@compiled
def _sum_rows(x: Any, s: Any, bits: Any, level: Any, scale: Any, z: Any) -> None:
    """Write x + dropout(s) to z; without dropout there are no bits."""
    if bits.size:
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                z[i, j] = x[i, j] + keep_or_zero(s[i, j] * scale, bits[i, j], level)
    else:
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                z[i, j] = x[i, j] + s[i, j]


@summing
def forward_rows(
    x: Any, s: Any, weight: Any, bias: Any, eps: Any, mask: Any, scale: Any, start: int, y: Any, mean: Any, rstd: Any
) -> None:
    """Compute y and the statistics of z for rows of which the first has the number `start`."""
    width = x.shape[1]
    step = max(1, CHUNK // width)
    words, z = room_for_bits(step * width), np.empty((step, width), x.dtype)
    for low in range(0, x.shape[0], step):
        high = min(low + step, x.shape[0])
        z_some = z[: high - low]
        bits = bits_of_rows(mask, start + low, high - low, width, words)
        _sum_rows(x[low:high], s[low:high], bits, mask[3], scale, z_some)
        layer_norm_rows(z_some, weight, bias, eps, y[low:high], mean[low:high], rstd[low:high])


@compiled
def _drop_rows(dz: Any, bits: Any, level: Any, scale: Any, ds: Any) -> None:
    for i in range(dz.shape[0]):
        for j in range(dz.shape[1]):
            ds[i, j] = keep_or_zero(dz[i, j] * scale, bits[i, j], level)


@compiled
def backward_rows(
    dy: Any, x: Any, s: Any, weight: Any, mean: Any, rstd: Any, mask: Any, scale: Any, start: int, dx: Any, ds: Any,
    dweight: Any, dbias: Any,
) -> None:  # fmt: skip
    """Compute dx and, with dropout, ds, and these rows' contribution to dweight and dbias."""
    width = x.shape[1]
    step = max(1, CHUNK // width)
    words, z = room_for_bits(step * width), np.empty((step, width), x.dtype)
    dweight[:] = 0
    dbias[:] = 0
    for low in range(0, x.shape[0], step):
        high = min(low + step, x.shape[0])
        z_some, dx_some = z[: high - low], dx[low:high]
        bits = bits_of_rows(mask, start + low, high - low, width, words)
        _sum_rows(x[low:high], s[low:high], bits, mask[3], scale, z_some)
        layer_norm_gradient_rows(dy[low:high], z_some, weight, mean[low:high], rstd[low:high], dx_some, dweight, dbias)
        if bits.size:
            _drop_rows(dx_some, bits, mask[3], scale, ds[low:high])


def _drawn(drop: tuple[float, int, int], dtype: Any) -> tuple[Mask, Any]:
    p, key, draw = drop
    return mask_of(p, key, draw), dtype.type(dropout_scale(p))


@overrides(add_norm_formula)
def _add_norm_kernel(
    before: Callable[..., Any], x: np.ndarray, s: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float,
    drop: tuple[float, int, int],
) -> tuple[Array, tuple[Array, Array]]:  # fmt: skip
    if not x.size or not serves(x, s, weight, bias):
        return before(x, s, weight, bias, eps, drop)
    y, (mask, scale) = np.empty(x.shape, x.dtype), _drawn(drop, x.dtype)
    x_rows, s_rows, y_rows, weight, bias = rows(x), rows(s), rows(y), contiguous(weight), contiguous(bias)
    mean, rstd = np.empty(len(x_rows), x.dtype), np.empty(len(x_rows), x.dtype)
    number = x.dtype.type(eps)

    def piece(n: slice) -> None:
        forward_rows(x_rows[n], s_rows[n], weight, bias, number, mask, scale, n.start, y_rows[n], mean[n], rstd[n])

    share(piece, pieces(len(x_rows), 2 * x.size))
    kept = (*x.shape[:-1], 1)
    return y, (mean.reshape(kept), rstd.reshape(kept))


@overrides(add_norm_gradient)
def _add_norm_gradient_kernel(
    before: Callable[..., Any], dy: np.ndarray, x: np.ndarray, s: np.ndarray, weight: np.ndarray, kept: Any,
    drop: tuple[float, int, int], needs: tuple[bool, ...],
) -> tuple[Array | None, ...]:  # fmt: skip
    if not x.size or not serves(x, s, weight, dy, *kept):
        return before(dy, x, s, weight, kept, drop, needs)
    dx, (mask, scale) = np.empty(x.shape, x.dtype), _drawn(drop, x.dtype)
    ds = np.empty(x.shape, x.dtype) if mask[3] else dx
    dy_rows, x_rows, s_rows, dx_rows, ds_rows = rows(dy), rows(x), rows(s), rows(dx), rows(ds)
    weight, mean, rstd = contiguous(weight), flat(kept[0]), flat(kept[1])
    parts = pieces(len(x_rows), 3 * x.size)
    dweight, dbias = (Partial(weight.shape, x.dtype, len(parts)) for _ in range(2))

    def piece(number: int) -> None:
        n = parts[number]
        backward_rows(
            dy_rows[n], x_rows[n], s_rows[n], weight, mean[n], rstd[n], mask, scale, n.start, dx_rows[n], ds_rows[n],
            dweight[number], dbias[number],
        )  # fmt: skip

    share(piece, range(len(parts)))
    results = dx, ds, dweight.total(), dbias.total()
    return tuple([d if needed else None for d, needed in zip(results, needs, strict=True)])
