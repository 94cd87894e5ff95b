"""Products of matrices."""

from __future__ import annotations

import math
from typing import Any

from tensorlib.backend import Array
from tensorlib.function import Function, as_tensor

__all__ = ["matmul"]


class Matmul(Function):
    """z = x y for x (..., n, k) and y (..., k, m); leading axes broadcast.

    z_ij = sum_k x_ik y_kj  =>  dx = dz y^T, dy = x^T dz.

    A batch of rows times one matrix is folded into a single product, forward and backward: one large product is
    faster than many small ones, and needs no sum of per-batch gradients afterwards.
    """

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        self.save(x, y)
        return folded_product(x, y)

    def backward(self, dz: Array) -> Any:
        x, y = self.saved
        dx = folded_product(dz, y.swapaxes(-1, -2)) if self.needs[0] else None
        if not self.needs[1]:
            dy = None
        elif y.ndim == 2 and x.ndim > 2:
            dy = rows(x).swapaxes(0, 1) @ rows(dz)
        else:
            dy = x.swapaxes(-1, -2) @ dz
        return dx, dy


def folded_product(x: Array, y: Array) -> Array:
    """Return x @ y, with all leading axes of x folded into its rows where y is a plain matrix."""
    if y.ndim == 2 and x.ndim > 2:
        return (rows(x) @ y).reshape((*x.shape[:-1], y.shape[-1]))
    return x @ y


def rows(x: Array) -> Array:
    """Return x as a matrix: all axes but the last folded into one (whose size -1 could not tell where x is empty)."""
    return x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))


def matmul(x: Any, y: Any) -> Any:
    """Return the matrix product of x (..., n, k) and y (..., k, m): (..., n, m). Vectors act as a row or a column."""
    x, y = as_tensor(x), as_tensor(y)
    for operand in (x, y):
        if operand.ndim == 0:
            raise ValueError("matmul: both operands must have at least one dimension, got a scalar; use *")
    if x.shape[-1] != y.shape[max(-2, -y.ndim)]:
        fits = x.shape[-1] == y.shape[-1]
        hint = "; did you mean y.swapaxes(-1, -2)?" if fits else ""
        raise ValueError(f"matmul: inner sizes must agree, got {x.shape} and {y.shape}{hint}")
    if x.ndim == 1:
        return matmul(x.reshape(1, -1), y).reshape(*y.shape[:-2], *y.shape[-1:][: y.ndim - 1])
    if y.ndim == 1:
        return matmul(x, y.reshape(-1, 1)).reshape(*x.shape[:-1])
    return Matmul.apply(x, y)
