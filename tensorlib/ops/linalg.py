"""Products, diagonals and triangles of matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.array import ArrayT
from tensorlib.arrays.backend import Array, backend_of
from tensorlib.arrays.bf16 import rounded_to_bf16
from tensorlib.engine.function import STATE, Function, as_tensor, constant, derivation, is_tensor
from tensorlib.ops.arguments import as_tensors, checked_integer, normalized_axes, normalized_axis
from tensorlib.ops.arithmetic import multiply
from tensorlib.ops.indexing import where
from tensorlib.ops.reduce import sum

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["diagonal", "dot", "matmul", "outer", "tensordot", "trace", "tril", "triu"]


# ---- products ----------------------------------------------------------------------------------------------------


class Matmul(Function):
    """z = x y for x (..., n, k) and y (..., k, m); leading axes broadcast.

    z_ij = sum_k x_ik y_kj  =>  dx = dz y^T, dy = x^T dz.

    A batch of rows times one matrix is folded into a single product, forward and backward: one large product is
    faster than many small ones, and needs no sum of per-batch gradients afterwards.

    Keeps x and y (each only for the gradient of the other).
    Kernels: numpy/linalg.py, cuda/products.py.
    """

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        dx_wanted, dy_wanted = self.needs
        self.folds = y.ndim == 2 and x.ndim > 2
        self.save(*([x] if dy_wanted else []), *([y] if dx_wanted else []))  # each is saved for the other's gradient
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
    """Return x @ y; if y is a matrix, all leading axes of x are folded into its rows.

    Within ``precision("bf16")`` both are rounded to bf16 if y is a matrix, not if it is a batch, as in attention. On a
    GPU both are rounded in any case, to what `precision` says.

    Kernels: numpy/linalg.py, numba/product.py, cuda/products.py.
    """
    if y.ndim == 2 and not is_tensor(x) and in_bf16(x) and in_bf16(y):  # of Tensors, `Matmul` rounds the arrays
        x, y = rounded_to_bf16(x), rounded_to_bf16(y)
    if y.ndim == 2 and x.ndim > 2:
        return (rows(x) @ y).reshape((*x.shape[:-1], y.shape[-1]))
    return x @ y


def in_bf16(x: Array) -> bool:
    """Return whether x, as an operand of a product, is rounded to bf16 here; see `precision`.

    Raises RuntimeError for an array of NumPy within a precision that only a GPU has.
    """
    precision = STATE.get().precision
    if precision == "float32" or x.dtype != "float32":
        return False
    if precision != "bf16" and isinstance(x, np.ndarray):
        raise RuntimeError(
            f"product: precision {precision} requires arrays on a GPU, because CPUs do not multiply it; got one of "
            f"NumPy of shape {x.shape}; use x.to('cupy'), or float32 or bf16"
        )
    return precision == "bf16"


def rows(x: ArrayT) -> ArrayT:
    """Return x as a matrix, with all axes but the last folded into one (-1 would be ambiguous if x is empty)."""
    return x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))


@derivation(Matmul)
def matmul(x: TensorLike, y: TensorLike) -> Tensor:
    """Return the matrix product of x (..., n, k) and y (..., k, m): (..., n, m).

    A vector counts as a row on the left and as a column on the right. Raises ValueError if the inner sizes differ.

    >>> tl.matmul([[1.0, 2.0]], [[3.0], [4.0]])
    Tensor([[11.]], shape=(1, 1), dtype=float32)
    """
    x, y = as_tensors((x, y))
    for operand in (x, y):
        if operand.ndim == 0:
            raise ValueError("matmul: both operands must have at least one dimension, got a scalar; use x * y")
    if x.shape[-1] != y.shape[max(-2, -y.ndim)]:
        fits = x.shape[-1] == y.shape[-1]
        hint = "; did you mean y.swapaxes(-1, -2)?" if fits else ""
        raise ValueError(f"matmul: inner sizes must agree, got {x.shape} and {y.shape}{hint}")
    if x.ndim == 1:
        return matmul(x.reshape(1, -1), y).reshape(*y.shape[:-2], *y.shape[-1:][: y.ndim - 1])
    if y.ndim == 1:
        return matmul(x, y.reshape(-1, 1)).reshape(*x.shape[:-1])
    return Matmul.apply(x, y)


@derivation(Matmul)
def dot(x: TensorLike, y: TensorLike) -> Tensor:
    """Return NumPy's dot product: the sum of products over the last axis of x and the second to last axis of y.

    If y is a vector, the sum is over its only axis.
    The result has the other axes of x, then those of y: a number for two vectors, the matrix product for two matrices.
    If x or y is a number, the result is the elementwise product.

    >>> tl.dot([1.0, 2.0], [3.0, 4.0])
    Tensor(11., shape=(), dtype=float32)
    """
    x, y = as_tensors((x, y))
    if x.ndim == 0 or y.ndim == 0:
        return multiply(x, y)
    axis = max(y.ndim - 2, 0)
    if x.shape[-1] != y.shape[axis]:
        raise ValueError(
            f"dot: the last axis of x and axis {axis} of y must have the same size, got shapes {x.shape} and {y.shape}"
        )
    return tensordot(x, y, ([-1], [axis]))


@derivation(Matmul)
def tensordot(x: TensorLike, y: TensorLike, axes: int | Sequence[int | Sequence[int]] = 2) -> Tensor:
    """Return the sum of products over pairs of axes of x and y; the other axes of x, then those of y, remain.

    `axes` lists the axes of x and, in the same order, those of y to pair them with: ([1, 2], [0, 1]). A number n pairs
    the last n axes of x with the first n of y. Raises ValueError if the sizes of a pair differ.

    >>> tl.tensordot([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0], ([0], [0]))
    Tensor([4. 6.], shape=(2,), dtype=float32)
    """
    x, y = as_tensors((x, y))
    x_axes, y_axes = _axis_pairs(axes, x.ndim, y.ndim)
    for i, k in zip(x_axes, y_axes, strict=True):
        if x.shape[i] != y.shape[k]:
            raise ValueError(
                f"tensordot: paired axes must have the same size, got {x.shape[i]} on axis {i} of x and "
                f"{y.shape[k]} on axis {k} of y (shapes {x.shape} and {y.shape})"
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
        n = checked_integer("tensordot", "axes", axes, ", or the axes of x and those of y")
        if not 0 <= n <= min(x_ndim, y_ndim):
            raise ValueError(
                f"tensordot: axes must lie between 0 and the number of axes of x and y, {x_ndim} and {y_ndim}; got {n}"
            )
        return list(range(x_ndim - n, x_ndim)), list(range(n))
    if len(axes) != 2:
        raise ValueError(f"tensordot: axes must be a pair, the axes of x and those of y, got {axes}")
    of_x, of_y = [list(a) if isinstance(a, tuple | list) else [a] for a in axes]
    if len(of_x) != len(of_y):
        raise ValueError(f"tensordot: x and y need the same number of axes, got {of_x} and {of_y}")
    normalized_axes(tuple(of_x), x_ndim, "tensordot"), normalized_axes(tuple(of_y), y_ndim, "tensordot")
    return [a % x_ndim for a in of_x], [a % y_ndim for a in of_y]


def outer(x: TensorLike, y: TensorLike) -> Tensor:
    """Return the matrix (n, m) of the products of each of the n elements of x with each of the m elements of y.

    z_ij = x_i y_j  =>  dx_i = sum_j dz_ij y_j, dy_j = sum_i dz_ij x_i.

    >>> tl.outer([1.0, 2.0], [3.0, 4.0])
    Tensor([[3. 4.]
            [6. 8.]], shape=(2, 2), dtype=float32)
    """
    x, y = as_tensors((x, y))
    return multiply(x.reshape(x.size, 1), y.reshape(1, y.size))


# ---- diagonals and triangles -------------------------------------------------------------------------------------


class Diagonal(Function):
    """y_..k = x_..(k, k + offset) over the axes `axis1` and `axis2`  =>  dx is dy on that diagonal, else 0.

    Keeps nothing.
    """

    def forward(self, x: Array, offset: int, axis1: int, axis2: int) -> Array:
        self.shape, self.place = x.shape, (offset, axis1, axis2)
        return x.diagonal(offset, axis1, axis2)

    def backward(self, dy: Array) -> Any:
        return OnDiagonal.run(dy, shape=self.shape, place=self.place)


class OnDiagonal(Function):
    """y = zeros(shape) except for one diagonal, which is x  =>  dx = that diagonal of dy. The adjoint of Diagonal.

    Keeps nothing.
    """

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


@derivation(Diagonal)
def diagonal(x: TensorLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """Return the diagonal of the matrices that `axis1` and `axis2` span, as a last axis; the other axes come first.

    A positive `offset` selects a diagonal above the main diagonal, a negative `offset` one below it.

    >>> tl.diagonal([[1, 2], [3, 4]]), tl.diagonal([[1, 2], [3, 4]], 1)
    (Tensor([1 4], shape=(2,), dtype=int64), Tensor([2], shape=(1,), dtype=int64))
    """
    return _diagonal("diagonal", x, offset, axis1, axis2)


def trace(x: TensorLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """Return the sum of the diagonal of the matrices that `axis1` and `axis2` span; see `diagonal`.

    y = sum_k x_(k, k + offset)  =>  dx is dy on that diagonal, and zero elsewhere.

    >>> tl.trace([[1, 2], [3, 4]])
    Tensor(5, shape=(), dtype=int64)
    """
    return sum(_diagonal("trace", x, offset, axis1, axis2), axis=-1)


def _diagonal(name: str, x: TensorLike, offset: int, axis1: int, axis2: int) -> Tensor:
    x = as_tensor(x)
    if x.ndim < 2:
        raise ValueError(f"{name}: needs at least two axes, got shape {x.shape}")
    axis1, axis2 = normalized_axis(axis1, x.ndim, name), normalized_axis(axis2, x.ndim, name)
    if axis1 == axis2:
        raise ValueError(f"{name}: axis1 and axis2 must differ, got {axis1} for both")
    offset = checked_integer(name, "offset", offset)
    return Diagonal.apply(x, offset=offset, axis1=axis1, axis2=axis2)


def tril(x: TensorLike, k: int = 0) -> Tensor:
    """Return the lower triangle of x (..., n, m): zeros above diagonal k. k > 0 keeps more of x, k < 0 less.

    y = x on and below diagonal k, else 0  =>  dx = dy there, else 0.

    >>> tl.tril([[1, 2], [3, 4]])
    Tensor([[1 0]
            [3 4]], shape=(2, 2), dtype=int64)
    """
    return _triangle("tril", x, k)


def triu(x: TensorLike, k: int = 0) -> Tensor:
    """Return the upper triangle of x (..., n, m): zeros below diagonal k. k > 0 keeps less of x, k < 0 more.

    y = x on and above diagonal k, else 0  =>  dx = dy there, else 0.

    >>> tl.triu([[1, 2], [3, 4]])
    Tensor([[1 2]
            [0 4]], shape=(2, 2), dtype=int64)
    """
    return _triangle("triu", x, k)


def _triangle(name: str, x: TensorLike, k: int) -> Tensor:
    x = as_tensor(x)
    if x.ndim < 2:
        raise ValueError(f"{name}: needs a matrix (..., n, m), got shape {x.shape}")
    k = checked_integer(name, "k", k)
    zero = x.dtype.type(0)
    if name == "tril":
        return where(constant(x.backend.xp.tri(*x.shape[-2:], k, "bool")), x, zero)
    return where(constant(x.backend.xp.tri(*x.shape[-2:], k - 1, "bool")), zero, x)
