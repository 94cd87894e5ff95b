"""Products of matrices, their diagonals and triangles."""

from __future__ import annotations

import math
from functools import singledispatch
from operator import index
from typing import Any

from tensorlib.arrays.array import ArrayT
from tensorlib.arrays.backend import Array, backend_of
from tensorlib.engine.function import Function, as_tensor
from tensorlib.messages import shown
from tensorlib.ops.arguments import as_tensors, normal_axes, normal_axis
from tensorlib.ops.arithmetic import multiply
from tensorlib.ops.indexing import where
from tensorlib.ops.reduce import sum

__all__ = ["diagonal", "dot", "matmul", "outer", "tensordot", "trace", "tril", "triu"]


# ---- products ----------------------------------------------------------------------------------------------------


class Matmul(Function):
    """z = x y for x (..., n, k) and y (..., k, m); leading axes broadcast.

    z_ij = sum_k x_ik y_kj  =>  dx = dz y^T, dy = x^T dz.

    A batch of rows times one matrix is folded into a single product, forward and backward: one large product is
    faster than many small ones, and needs no sum of per-batch gradients afterwards.
    """

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        dx_wanted, dy_wanted = self.needs
        self.folds = y.ndim == 2 and x.ndim > 2
        self.save(*([x] if dy_wanted else []), *([y] if dx_wanted else []))  # each is kept for the other's gradient
        try:
            return product(x, y)
        except ValueError as error:
            if x.shape[-1] != y.shape[-2]:
                raise
            raise ValueError(
                f"matmul: axes before the last two must broadcast, got shapes {x.shape} and {y.shape}"
            ) from error

    def backward(self, dz: Array) -> Any:
        dx = dy = None
        if self.needs[0]:
            dx = product(dz, self.saved[-1].swapaxes(-1, -2))
        if self.needs[1]:
            x = self.saved[0]
            dy = product(rows(x).swapaxes(0, 1), rows(dz)) if self.folds else product(x.swapaxes(-1, -2), dz)
        return dx, dy


@singledispatch
def product(x: Array, y: Array) -> Array:
    """Return x @ y, with all leading axes of x folded into its rows where y is a plain matrix."""
    if y.ndim == 2 and x.ndim > 2:
        return (rows(x) @ y).reshape((*x.shape[:-1], y.shape[-1]))
    return x @ y


def rows(x: ArrayT) -> ArrayT:
    """Return x as a matrix: all axes but the last folded into one (whose size -1 could not tell where x is empty)."""
    return x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))


def matmul(x: Any, y: Any) -> Any:
    """Return the matrix product of x (..., n, k) and y (..., k, m): (..., n, m). Vectors act as a row or a column."""
    x, y = as_tensors((x, y))
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


def dot(x: Any, y: Any) -> Any:
    """Return NumPy's dot product: the sum over the last axis of x and the last but one of y (of a vector: its only).

    The result has the other axes of x, then those of y: for two vectors it is a number, for two matrices their matrix
    product. With a number on either side it is the plain product.
    """
    x, y = as_tensors((x, y))
    if x.ndim == 0 or y.ndim == 0:
        return multiply(x, y)
    axis = max(y.ndim - 2, 0)
    if x.shape[-1] != y.shape[axis]:
        raise ValueError(
            f"dot: the last axis of x and axis {axis} of y must have one size, got shapes {x.shape} and {y.shape}"
        )
    return tensordot(x, y, ([-1], [axis]))


def tensordot(x: Any, y: Any, axes: Any = 2) -> Any:
    """Return the sum over pairs of axes of x and y: the other axes of x, then those of y, remain.

    `axes` lists the axes of x and, in the same order, those of y that they meet: ([1, 2], [0, 1]); or it is a number
    n, for the last n axes of x with the first n of y.
    """
    x, y = as_tensors((x, y))
    x_axes, y_axes = _axis_pairs(axes, x.ndim, y.ndim)
    for i, k in zip(x_axes, y_axes, strict=True):
        if x.shape[i] != y.shape[k]:
            raise ValueError(
                f"tensordot: axes that meet must have one size, got {x.shape[i]} on axis {i} of x and {y.shape[k]} on "
                f"axis {k} of y (shapes {x.shape} and {y.shape})"
            )
    x_free = [i for i in range(x.ndim) if i not in x_axes]
    y_free = [i for i in range(y.ndim) if i not in y_axes]
    x_shape, y_shape = [x.shape[i] for i in x_free], [y.shape[i] for i in y_free]
    inner = math.prod(x.shape[i] for i in x_axes)
    left = x.transpose((*x_free, *x_axes)).reshape(math.prod(x_shape), inner)
    right = y.transpose((*y_axes, *y_free)).reshape(inner, math.prod(y_shape))
    return matmul(left, right).reshape((*x_shape, *y_shape))


def _axis_pairs(axes: Any, x_ndim: int, y_ndim: int) -> tuple[list[int], list[int]]:
    """Return the axes of x and those of y over which `tensordot` sums, as non-negative numbers."""
    if not isinstance(axes, tuple | list):
        n = _integer(axes, "tensordot: axes must be an integer, or the axes of x and those of y")
        if not 0 <= n <= min(x_ndim, y_ndim):
            raise ValueError(
                f"tensordot: axes must lie between 0 and the number of axes of x and y, {x_ndim} and {y_ndim}; got {n}"
            )
        return list(range(x_ndim - n, x_ndim)), list(range(n))
    if len(axes) != 2:
        raise ValueError(f"tensordot: axes must be a pair, the axes of x and those of y, got {axes}")
    of_x, of_y = [list(a) if isinstance(a, tuple | list) else [a] for a in axes]
    if len(of_x) != len(of_y):
        raise ValueError(f"tensordot: needs as many axes of x as of y, got {of_x} and {of_y}")
    normal_axes(tuple(of_x), x_ndim, "tensordot"), normal_axes(tuple(of_y), y_ndim, "tensordot")
    return [a % x_ndim for a in of_x], [a % y_ndim for a in of_y]


def outer(x: Any, y: Any) -> Any:
    """Return the products of every element of x with every one of y, (n, m); both are flattened."""
    x, y = as_tensors((x, y))
    return multiply(x.reshape(x.size, 1), y.reshape(1, y.size))


# ---- diagonals and triangles -------------------------------------------------------------------------------------


class Diagonal(Function):
    """y_..k = x_..(k, k + offset) over the axes `axis1` and `axis2`  =>  dx is zero but for that diagonal, dy."""

    def forward(self, x: Array, offset: int, axis1: int, axis2: int) -> Array:
        self.shape, self.place = x.shape, (offset, axis1, axis2)
        return x.diagonal(offset, axis1, axis2)

    def backward(self, dy: Array) -> Any:
        return OnDiagonal.run(dy, shape=self.shape, place=self.place)


class OnDiagonal(Function):
    """y = zeros(shape) but for a diagonal, which is x. The adjoint of Diagonal, and so  dx = that diagonal of dy."""

    def forward(self, x: Array, shape: tuple[int, ...], place: tuple[int, int, int]) -> Array:
        self.place = place
        offset, axis1, axis2 = place
        xp = backend_of(x).xp
        y = xp.zeros(shape, x.dtype)
        others = [i for i in range(len(shape)) if i not in (axis1, axis2)]
        k = xp.arange(x.shape[-1])
        y.transpose((*others, axis1, axis2))[..., k - min(offset, 0), k + max(offset, 0)] = x
        return y

    def backward(self, dy: Array) -> Any:
        offset, axis1, axis2 = self.place
        return Diagonal.run(dy, offset=offset, axis1=axis1, axis2=axis2)


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Return the diagonal of the matrices that `axis1` and `axis2` span, as a last axis; the other axes come first.

    `offset` > 0 picks a diagonal above the main one, < 0 one below it.
    """
    return _diagonal("diagonal", x, offset, axis1, axis2)


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Return the sum of the diagonal of the matrices that `axis1` and `axis2` span; see `diagonal`."""
    return sum(_diagonal("trace", x, offset, axis1, axis2), axis=-1)


def _diagonal(name: str, x: Any, offset: int, axis1: int, axis2: int) -> Any:
    x = as_tensor(x)
    if x.ndim < 2:
        raise ValueError(f"{name}: needs at least two axes, got shape {x.shape}")
    axis1, axis2 = normal_axis(axis1, x.ndim, name), normal_axis(axis2, x.ndim, name)
    if axis1 == axis2:
        raise ValueError(f"{name}: axis1 and axis2 must differ, got {axis1} for both")
    offset = _integer(offset, f"{name}: offset must be an integer")
    return Diagonal.apply(x, offset=offset, axis1=axis1, axis2=axis2)


def tril(x: Any, k: int = 0) -> Any:
    """Return the lower triangle of x (..., n, m): zeros above diagonal k. k > 0 keeps more of it, k < 0 less."""
    return _triangle("tril", x, k)


def triu(x: Any, k: int = 0) -> Any:
    """Return the upper triangle of x (..., n, m): zeros below diagonal k. k > 0 keeps less of it, k < 0 more."""
    return _triangle("triu", x, k)


def _triangle(name: str, x: Any, k: int) -> Any:
    x = as_tensor(x)
    if x.ndim < 2:
        raise ValueError(f"{name}: needs a matrix (..., n, m), got shape {x.shape}")
    k = _integer(k, f"{name}: k must be an integer")
    zero = x.dtype.type(0)
    if name == "tril":
        return where(as_tensor(x.backend.xp.tri(*x.shape[-2:], k, "bool")), x, zero)
    return where(as_tensor(x.backend.xp.tri(*x.shape[-2:], k - 1, "bool")), zero, x)


def _integer(value: Any, rule: str) -> int:
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{rule}, got {shown(value)}") from None
