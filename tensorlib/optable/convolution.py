"""Rows of the op table: convolution and pooling."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import DISTINCT, Row, sample

__all__ = ["ROWS"]


def _convolution(
    x: np.ndarray, weight: np.ndarray, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> np.ndarray:  # fmt: skip
    """Return the sum, over positions in the window, of shifted inputs times weights, one group at a time."""
    n = x.ndim - 2
    stride, padding, dilation = (np.broadcast_to(v, n) for v in (stride, padding, dilation))
    padded = np.pad(x, [(0, 0), (0, 0), *[(p, p) for p in padding]])
    kernel = weight.shape[2:]
    counts = [
        (m - d * (k - 1) - 1) // s + 1 for m, d, k, s in zip(padded.shape[2:], dilation, kernel, stride, strict=True)
    ]
    y = np.zeros((len(x), len(weight), *counts))
    for position in product(*map(range, kernel)):
        starts = np.multiply(position, dilation)
        spans = zip(starts, stride, counts, strict=True)
        everywhere: Any = (..., *[slice(i, i + s * (c - 1) + 1, s) for i, s, c in spans])
        here: Any = (..., *position)
        by_group = zip(np.split(padded[everywhere], groups, 1), np.split(weight[here], groups, 0), strict=True)
        y += np.concatenate([np.einsum("bc...,oc->bo...", i, o) for i, o in by_group], axis=1)
    return y if bias is None else y + np.reshape(bias, (-1, *[1] * n))


def _pooled(x: np.ndarray, kernel: Any, stride: Any, padding: Any, fill: float, reduce: Any) -> np.ndarray:
    """Apply `reduce` to one window after another."""
    n = len(kernel) if isinstance(kernel, tuple | list) else x.ndim - 2
    kernel, padding = np.broadcast_to(kernel, n), np.broadcast_to(padding, n)
    stride = kernel if stride is None else np.broadcast_to(stride, n)
    padded = np.pad(x, [(0, 0)] * (x.ndim - n) + [(p, p) for p in padding], constant_values=fill)
    counts = (np.array(padded.shape[x.ndim - n :]) - kernel) // stride + 1
    y = np.zeros((*x.shape[: x.ndim - n], *counts))
    for window in np.ndindex(*counts):
        spans = zip(window, stride, kernel, strict=True)
        inside: Any = (..., *[slice(i * s, i * s + k) for i, s, k in spans])
        here: Any = (..., *window)
        y[here] = reduce(padded[inside], axis=tuple(range(-n, 0)))
    return y


def _max_pool(x: np.ndarray, kernel_size: Any, stride: Any = None, padding: Any = 0) -> np.ndarray:
    return _pooled(x, kernel_size, stride, padding, -np.inf, np.max)


def _avg_pool(x: np.ndarray, kernel_size: Any, stride: Any = None, padding: Any = 0) -> np.ndarray:
    return _pooled(x, kernel_size, stride, padding, 0.0, np.mean)


POOLED = [
    sample((1, 2, 4), 2), sample((1, 1, 4, 5), [2, 3], stride=[1, 2]), sample((5,), [3], 1, [1]),
    sample((2, 1, 3, 3), 2, 1, 1),
    sample((0, 2, 4), 2), sample((1, 1, 1), 1), sample((1, 1, 3, 2, 2), [3, 1, 2], padding=[1, 0, 1]),
    sample((3, 4), [2], stride=3),
]  # fmt: skip

ROWS: list[Row] = [
    Row(
        "conv1d", tl.conv1d, _convolution,
        [sample((2, 2, 4), (3, 2, 3), (3,)), sample((1, 2, 5), (2, 2, 2), stride=2, padding=1),
         sample((1, 1, 1), (1, 1, 1), (1,)),
         sample((0, 2, 3), (1, 2, 2)), sample((1, 4, 4), (2, 2, 2), (2,), dilation=2, groups=2),
         sample((1, 2, 2), (1, 2, 3), None, 1, 2)],
    ),
    Row(
        "conv2d", tl.conv2d, _convolution,
        [sample((1, 2, 3, 4), (2, 2, 2, 2), (2,)), sample((2, 1, 3, 3), (1, 1, 2, 1), stride=[2, 1], padding=[1, 0]),
         sample((1, 2, 3, 5), (4, 1, 2, 2), (4,), dilation=[1, 2], groups=2), sample((1, 1, 2, 2), (1, 1, 2, 2), (1,)),
         sample((0, 1, 2, 2), (2, 1, 1, 1), (2,)), sample((1, 2, 4, 2), (2, 1, 3, 2), None, 2, 1, 1, 2),
         sample((1, 1, 3, 3), np.full((1, 1, 2, 2), 0.5), padding=2)],
    ),
    Row("max_pool", tl.max_pool, _max_pool, POOLED, DISTINCT),
    Row("avg_pool", tl.avg_pool, _avg_pool, POOLED),
]  # fmt: skip
