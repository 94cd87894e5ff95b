"""Dropout together with the steps before and after it, in one pass over the result of a product or a sum."""

from __future__ import annotations

from typing import Any

import cupy

from tensorlib.arrays.cuda import THREADS, seeds
from tensorlib.kernels.cuda.launch import NOT_SERVED, contiguous, fits, kernel, overrides
from tensorlib.ops.dropout import add_dropout_formula, dropout_formula, dropout_scale, dropped_levels

__all__ = ["draw_arguments", "dropout_pass"]

ELEMENTS = 16 * THREADS  # of a block of threads


def dropout_pass(
    x: Any, p: float, key: int, draw: int, bias: Any = None, relu: bool = False, residual: Any = None, out: Any = None
) -> Any:
    """Return residual + dropout(relu(x + bias)) in one pass; a step whose argument is not given is left out.

    `out` may be x itself, if x is contiguous.
    """
    y = cupy.empty(x.shape, x.dtype) if out is None else out
    x = contiguous(x)
    width = x.shape[-1] if x.ndim else 1
    arguments = (
        x, x.size, 0 if bias is None else contiguous(bias), width, THREADS % width, relu, *draw_arguments(p, key, draw),
        0 if residual is None else contiguous(residual), y,
    )  # fmt: skip
    kernel("dropout.cu", "dropout", x.dtype.char)((-(-x.size // ELEMENTS),), (THREADS,), arguments)
    return y


def draw_arguments(p: float, key: int, draw: int) -> tuple[Any, ...]:
    """Return a kernel's six arguments for a mask: the threshold, 0 for no dropout; the scale; those of `seeds`."""
    levels, scale = (dropped_levels(p), dropout_scale(p)) if p else (0, 1.0)
    return cupy.uint32(levels), scale, *seeds(key, draw)


@overrides(dropout_formula)
def _dropout(x: Any, p: float, key: int, draw: int) -> Any:
    return dropout_pass(x, p, key, draw) if fits(x) else NOT_SERVED


@overrides(add_dropout_formula)
def _add_dropout(x: Any, y: Any, p: float, key: int, draw: int) -> Any:
    return dropout_pass(y, p, key, draw, residual=x) if fits(y, x) else NOT_SERVED
