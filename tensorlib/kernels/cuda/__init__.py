"""Kernels for CuPy arrays. With `backend.py` the only file that imports cupy; get_backend("cupy") imports it.

What a GPU's step costs at the sizes of a translation model is launching, not arithmetic: a formula of ten NumPy calls
is ten launches, and a kernel one. The kernels compute in the dtype of their arrays, float32 or float64; whatever else
is given goes to the formula.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

import cupy

from tensorlib.kernels import enabled
from tensorlib.ops.crossentropy import cross_entropy_formula, cross_entropy_gradient
from tensorlib.ops.dropout import add_dropout_formula, dropout_formula, dropout_scale, dropped_levels
from tensorlib.ops.linalg import product
from tensorlib.ops.linear import linear_relu_formula, linear_relu_gradient
from tensorlib.ops.normalize import layer_norm_formula, layer_norm_gradient
from tensorlib.ops.softmax import softmax_formula, softmax_gradient
from tensorlib.ops.update import adam_update, average_update

__all__ = ["SOURCES", "options", "random_bits", "source"]

SOURCES = Path(__file__).parent

_THREADS = 256
_MOST_THREADS = 1024
_MOST_BLOCKS = 2**31 - 1
_WARP = 32
_C_NAMES = {"f": "float", "d": "double"}
_REFUSED: Any = object()


# ---- how a kernel is found and launched --------------------------------------------------------------------------


def source(file: str) -> str:
    """Return a CUDA source with its headers written into it: CuPy's cache of binaries would not notice their edits."""
    text = (SOURCES / f"{file}.cu").read_text(encoding="utf-8")
    return re.sub(r'#include "(.+)"', lambda m: (SOURCES / m[1]).read_text(encoding="utf-8"), text)


def options(kind: str) -> tuple[str, ...]:
    """Return what the compiler is told for a dtype, "f" or "d".

    Products are rounded before they are added, as in the formulas: else a row of one element has no gradient of 0.
    """
    return f"-Dreal={_C_NAMES[kind]}", "--fmad=false"


@cache
def _kernel(file: str, name: str, kind: str = "f") -> Any:
    """Return the function `name` of a source, compiled for a dtype: "f" or "d".

    It is called as f(blocks, threads, arguments). An argument is an array, of which it gets the memory alone: so it is
    contiguous, and on the device in use; or a Python int (long long, or bool, of which 0 is also a pointer to nothing),
    a float (double), or a NumPy scalar, where the type is another.
    """
    return cupy.RawKernel(source(file), name, options(kind))


def _by_rows(file: str, name: str, kind: str, rows: int, width: int, arguments: tuple[Any, ...]) -> None:
    """Launch a block of threads for each row; of one warp for rows that it can fill, of several for longer ones."""
    threads = min(_MOST_THREADS, -(-width // _WARP) * _WARP)
    _kernel(file, name, kind)((rows,), (threads,), arguments)


def _overrides(formula: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a kernel, which may answer `_REFUSED`: then the formula computes."""

    def register(kernel: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(kernel)
        def run(*given: Any, **named: Any) -> Any:
            result = kernel(*given, **named)
            return formula.dispatch(object)(*given, **named) if result is _REFUSED else result

        if enabled():
            formula.register(cupy.ndarray, run)
        return kernel

    return register


def _fits(x: Any, *others: Any) -> bool:
    """Say whether a kernel serves these arrays: all of one dtype, float32 or float64, and the first not empty."""
    return x.dtype.char in _C_NAMES and x.size > 0 and all(o.dtype == x.dtype for o in others) and _here(x, *others)


def _fits_by_rows(x: Any, *others: Any) -> bool:
    """Say whether a kernel with a block for each row serves these arrays."""
    return _fits(x, *others) and x.ndim > 0 and x.size // x.shape[-1] <= _MOST_BLOCKS


def _here(*arrays: Any) -> bool:
    """Say whether all are on the device in use: a kernel asks nobody whether it may read from another."""
    device = cupy.cuda.runtime.getDevice()
    return all(a.data.device_id == device for a in arrays)


_flat = cupy.ascontiguousarray  # the kernels know of no strides


# ---- random numbers, and dropout ---------------------------------------------------------------------------------


def random_bits(key: int, draw: int, count: int, dtype: str = "uint16") -> Any:
    """Return `count` numbers of an unsigned dtype, the same as NumPy's backend returns for (key, draw)."""
    blocks = -(-count * cupy.dtype(dtype).itemsize // 32)  # a block of the counter is 4 words of 64 bits
    words = cupy.empty(4 * blocks, cupy.uint64)
    if blocks:  # a grid of no threads cannot be launched
        _kernel("philox", "philox")((-(-blocks // _THREADS),), (_THREADS,), (*_seeds(key, draw), blocks, words))
    return words.view(cupy.dtype(dtype))[:count]


def _seeds(key: int, draw: int) -> tuple[Any, ...]:
    return cupy.uint64(key & (2**64 - 1)), cupy.uint64(key >> 64), cupy.uint64(draw)


def _after(x: Any, p: float, key: int, draw: int, bias: Any = None, relu: bool = False, residual: Any = None) -> Any:
    """Return residual + dropout(relu(x + bias)), in one pass after whatever made x; without what is not given."""
    x, y = _flat(x), cupy.empty(x.shape, x.dtype)
    levels, scale = (dropped_levels(p), dropout_scale(p)) if p else (0, 1.0)
    width = x.shape[-1] if x.ndim else 1
    arguments = (
        x, x.size, 0 if bias is None else _flat(bias), width, relu, cupy.uint32(levels), scale, *_seeds(key, draw),
        0 if residual is None else _flat(residual), y,
    )  # fmt: skip
    blocks = -(-x.size // (16 * _THREADS))
    _kernel("dropout", "dropout", x.dtype.char)((blocks,), (_THREADS,), arguments)
    return y


@_overrides(dropout_formula)
def _dropout(x: Any, p: float, key: int, draw: int) -> Any:
    return _after(x, p, key, draw) if _fits(x) else _REFUSED


@_overrides(add_dropout_formula)
def _add_dropout(x: Any, y: Any, p: float, key: int, draw: int) -> Any:
    return _after(y, p, key, draw, residual=x) if _fits(y, x) else _REFUSED


@_overrides(linear_relu_formula)
def _linear_relu(x: Any, weight: Any, bias: Any, p: float, key: int, draw: int) -> Any:
    if not _fits(x, weight, *([] if bias is None else [bias])):
        return _REFUSED
    z = product(x, weight)
    return _after(z, p, key, draw, bias=bias, relu=True) if z.size else z


@_overrides(linear_relu_gradient)
def _linear_relu_gradient(dy: Any, y: Any, scale: float) -> Any:
    if not _fits(y, dy):
        return _REFUSED
    return _elementwise("T dy, T y, T scale", "T dz", "dz = y <= 0 ? 0 : dy * scale")(dy, y, scale)


# ---- rows --------------------------------------------------------------------------------------------------------


@_overrides(softmax_formula)
def _softmax(x: Any, axis: int, visible: Any) -> Any:
    if not _fits_by_rows(x) or axis not in (-1, x.ndim - 1) or x.ndim > 4 or not (visible is None or _here(visible)):
        return _REFUSED
    width = x.shape[-1]
    if visible is None:
        mask: tuple[Any, ...] = (0, 1, 1, 0, 0, 0, 0)
    else:  # three axes before the last, of size 1 where x has fewer
        visible = cupy.broadcast_to(visible, x.shape)
        missing = (0,) * (4 - x.ndim)
        sizes, strides = (*(1 for _ in missing), *x.shape), (*missing, *visible.strides)
        mask = (visible, sizes[1], sizes[2], *strides)
    x, y = _flat(x), cupy.empty(x.shape, x.dtype)
    _by_rows("softmax", "softmax", x.dtype.char, x.size // width, width, (x, width, *mask, y))
    return y


@_overrides(softmax_gradient)
def _softmax_gradient(dy: Any, y: Any, axis: int) -> Any:
    if not _fits_by_rows(y, dy) or axis not in (-1, y.ndim - 1):
        return _REFUSED
    width, dx = y.shape[-1], cupy.empty(y.shape, y.dtype)
    arguments = (_flat(dy), _flat(y), width, dx)
    _by_rows("softmax", "softmax_gradient", y.dtype.char, y.size // width, width, arguments)
    return dx


@_overrides(layer_norm_formula)
def _layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    if not _fits_by_rows(x, weight, bias):
        return _REFUSED
    width, y = x.shape[-1], cupy.empty(x.shape, x.dtype)
    mean, rstd = (cupy.empty((*x.shape[:-1], 1), x.dtype) for _ in range(2))
    arguments = (_flat(x), _flat(weight), _flat(bias), width, float(eps), y, mean, rstd)
    _by_rows("layer_norm", "layer_norm", x.dtype.char, x.size // width, width, arguments)
    return y, (mean, rstd)


@_overrides(layer_norm_gradient)
def _layer_norm_gradient(dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, needs: tuple[bool, ...]) -> Any:
    if not _fits_by_rows(x, dy, weight, mean, rstd):
        return _REFUSED
    dy, x, mean, rstd = (_flat(a) for a in (dy, x, mean, rstd))
    kind, width, dx, sums = x.dtype.char, x.shape[-1], None, (None, None)
    rows = x.size // width
    if needs[0]:
        dx = cupy.empty(x.shape, x.dtype)
        arguments = (dy, x, _flat(weight), mean, rstd, width, dx)
        _by_rows("layer_norm", "layer_norm_gradient", kind, rows, width, arguments)
    if needs[1] or needs[2]:
        chunk = max(32, math.isqrt(rows))
        chunks = -(-rows // chunk)
        parts = cupy.empty((chunks, 2, width), x.dtype)
        columns = _kernel("layer_norm", "layer_norm_columns", kind)
        columns((-(-width // _WARP), chunks), (_WARP, 8), (dy, x, mean, rstd, rows, width, chunk, parts))
        sums = parts.sum(axis=0) if chunks > 1 else parts[0]
    return dx, sums[0] if needs[1] else None, sums[1] if needs[2] else None


@_overrides(cross_entropy_formula)
def _cross_entropy(logits: Any, targets: Any, counted: Any, smoothing: float) -> Any:
    if not _fits_by_rows(logits) or not _here(targets, counted):
        return _REFUSED
    rows, classes = logits.shape
    loss, lse = cupy.empty(rows, logits.dtype), cupy.empty((rows, 1), logits.dtype)
    targets = _flat(targets, cupy.int64)
    arguments = (_flat(logits), classes, targets, _flat(counted), float(smoothing), loss, lse)
    _by_rows("cross_entropy", "cross_entropy", logits.dtype.char, rows, classes, arguments)
    return loss, lse


@_overrides(cross_entropy_gradient)
def _cross_entropy_gradient(dloss: Any, logits: Any, lse: Any, targets: Any, counted: Any, smoothing: float) -> Any:
    if not _fits_by_rows(logits, dloss, lse) or not _here(targets, counted):
        return _REFUSED
    (rows, classes), dx = logits.shape, cupy.empty(logits.shape, logits.dtype)
    dloss = cupy.broadcast_to(dloss, rows)
    targets = _flat(targets, cupy.int64)
    arguments = (_flat(dloss), _flat(logits), _flat(lse), classes, targets, _flat(counted), float(smoothing), dx)
    _by_rows("cross_entropy", "cross_entropy_gradient", logits.dtype.char, rows, classes, arguments)
    return dx


# ---- updates -----------------------------------------------------------------------------------------------------


@cache
def _elementwise(inputs: str, outputs: str, operation: str) -> Any:
    return cupy.ElementwiseKernel(inputs, outputs, operation, "tensorlib")


@_overrides(adam_update)
def _adam(
    p: Any, g: Any, m: Any, v: Any, *, step: int, learning_rate: float, beta1: float, beta2: float, eps: float,
    weight_decay: float, decoupled: bool,
) -> Any:  # fmt: skip
    if not _fits(p, g, m, v):
        return _REFUSED
    update = _elementwise(
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


@_overrides(average_update)
def _average(e: Any, w: Any, decay: float) -> Any:
    if not _fits(e, w):
        return _REFUSED
    _elementwise("T w, T rest", "T e", "e += rest * (w - e)")(w, 1 - decay, e)
    return None
