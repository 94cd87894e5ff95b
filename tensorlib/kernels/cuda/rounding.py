"""Operands of products rounded to 16 bits in memory: bf16, as uint16, or fp16, as float16."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import cupy
import numpy as np

from tensorlib.arrays.cuda import THREADS
from tensorlib.engine.recording import STATE
from tensorlib.kernels.cuda.launch import kernel

__all__ = ["rounded", "rounded_pair"]

DTYPES = {"bf16": "uint16", "fp16": "float16"}
LEAST = 1 << 22  # elements; below, a launch costs more than products of bf16 operands in memory save (an estimate)
EACH = 8 * THREADS  # elements for each block of threads, as in products.cu
MOST_AXES = 4


def rounded(x: Any, precision: str | None = None) -> Any:
    """Return x as an operand that `gemm` multiplies in `precision` (default: that of the running op) as it lies.

    For float32 in "bf16" that is uint16, in "fp16" float16, in the memory order of x; other arrays and precisions are
    returned as they are, and so are arrays of fewer than 2^22 elements in "bf16", because cuBLAS rounds what it reads.
    `gemm` rounds float32 operands itself, one launch for both; round an operand here if several products read it, such
    as the gradient dz in dx = dz W^T and dW = x^T dz. The other operand is then rounded by `gemm`, if it is float32.
    """
    precision = precision or STATE.get().precision
    if x.dtype.char != "f" or precision not in DTYPES or (precision == "bf16" and x.size < LEAST):
        return x
    return _launched([x], precision)[0]


def rounded_pair(x: Any, y: Any, precision: str) -> tuple[Any, Any]:
    """Return both operands of a product rounded to "bf16" or "fp16", in one launch; one of them may be so already."""
    if x.dtype.char != "f":
        return x, _launched([y], precision)[0]
    if y.dtype.char != "f":
        return _launched([x], precision)[0], y
    x_16, y_16 = _launched([x, y], precision)
    return x_16, y_16


def _launched(arrays: list[Any], precision: str) -> list[Any]:
    results, arguments, blocks = [], [], 0
    for x in arrays:
        order = _order_of(x.shape, x.strides)
        if len(order.sizes) > MOST_AXES:
            x = cupy.ascontiguousarray(x)
            order = _order_of(x.shape, x.strides)
        missing = MOST_AXES - len(order.sizes)
        sizes, strides = (1,) * missing + order.sizes, (0,) * missing + order.strides
        count = int(np.prod(sizes))
        y = cupy.empty(order.shape, DTYPES[precision])
        arguments += [cupy.uint64(x.data.ptr), count, *sizes[1:], *strides, y]
        blocks += -(-count // EACH)
        results.append(cupy.broadcast_to(y.transpose(order.back), x.shape))
    if len(arrays) == 1:
        arguments += [cupy.uint64(0), *(0,) * 8, cupy.uint64(0)]
    if blocks:
        kernel("products.cu", "round_operands")((blocks,), (THREADS,), (*arguments, precision == "fp16"))
    return results


class _Order(NamedTuple):
    """How the elements of an array lie: sizes and strides of its merged axes, in the order of memory."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    shape: tuple[int, ...]  # of the new contiguous array, with the axes in that order; broadcast axes have size 1
    back: tuple[int, ...]  # the transposition that gives the axes of the array


@lru_cache(maxsize=4096)
def _order_of(shape: tuple[int, ...], strides: tuple[int, ...]) -> _Order:
    """Return how the elements of a float32 array with these strides, in bytes, lie."""
    own = [(1 if s == 0 else n, s // 4) for n, s in zip(shape, strides, strict=True)]
    axes = sorted(range(len(shape)), key=lambda i: -abs(own[i][1]) if own[i][0] > 1 else -np.inf)
    merged: list[tuple[int, int]] = []
    for size, stride in (own[i] for i in axes if own[i][0] != 1):
        if merged and merged[-1][1] == stride * size:
            merged[-1] = merged[-1][0] * size, stride
        else:
            merged.append((size, stride))
    new = tuple(own[i][0] for i in axes)
    back = tuple(axes.index(i) for i in range(len(shape)))
    return _Order(tuple(n for n, _ in merged) or (1,), tuple(s for _, s in merged) or (1,), new, back)
