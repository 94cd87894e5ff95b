"""Ops that move or copy elements without changing them: their gradients move the elements back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import Array, backend_of, namespace_of
from tensorlib.arrays.shapes import sum_to
from tensorlib.engine.function import Function, as_tensor, derivation
from tensorlib.messages import shown
from tensorlib.ops.arguments import (
    Axis,
    Shape,
    as_tensors,
    checked_dtype,
    checked_shape,
    normalized_axes,
    normalized_axis,
)

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = [
    "astype", "broadcast_to", "concatenate", "copy", "expand_dims", "flatten", "moveaxis", "reshape", "split",
    "squeeze", "stack", "swapaxes", "transpose", "unstack",
]  # fmt: skip


class Reshape(Function):
    """y has the elements of x in the same order  =>  dx = dy reshaped to the shape of x.

    Keeps nothing.
    """

    def forward(self, x: Array, shape: tuple[int, ...]) -> Array:
        self.shape = x.shape
        try:
            return x.reshape(shape)
        except TypeError:
            raise TypeError(f"reshape: shape needs integers, got {shown(shape)}") from None
        except ValueError:
            raise ValueError(f"reshape: {_misfit(x.shape, shape)}") from None

    def backward(self, dy: Array) -> Any:
        return dy.reshape(self.shape)


def _misfit(old: tuple[int, ...], new: tuple[int, ...]) -> str:
    """Return why an array cannot be reshaped."""
    if sum(n < 0 for n in new) > 1:
        return f"at most one size may be -1, which is inferred, got {new}"
    given, wanted = math.prod(old), math.prod(n for n in new if n >= 0)
    if min(new, default=0) < 0:
        return f"the number of elements must be a multiple of {wanted}, got {given} of shape {old} for {new}"
    remedy = f"; -1 is inferred, as in {(-1, *new[1:])}" if given % max(math.prod(new[1:]), 1) == 0 else ""
    return f"the number of elements must stay {given}, that of {old}, got {wanted} for {new}{remedy}"


@derivation(Reshape)
def reshape(x: TensorLike, *sizes: int | Sequence[int], shape: Shape | None = None) -> Tensor:
    """Return x with another shape, given as a tuple (NumPy's `shape`) or as several integers; a size -1 is inferred.

    >>> tl.reshape([1, 2, 3, 4], (2, -1))
    Tensor([[1 2]
            [3 4]], shape=(2, 2), dtype=int64)
    """
    sizes = (shape,) if shape is not None and not sizes else sizes
    wanted = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    return Reshape.apply(as_tensor(x), shape=wanted)


@derivation(Reshape)
def flatten(x: TensorLike, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """Return x with the axes from `start_axis` to `end_axis`, both included, merged into one; a 0-d x becomes (1,).

    >>> tl.flatten(tl.zeros((2, 3, 4)), 1).shape
    (2, 12)
    """
    x = as_tensor(x)
    if x.ndim == 0:
        return reshape(x, 1)
    start, end = (normalized_axis(axis, x.ndim, "flatten") for axis in (start_axis, end_axis))
    if start > end:
        raise ValueError(f"flatten: start_axis must not be greater than end_axis, got {start_axis} and {end_axis}")
    return Reshape.apply(x, shape=(*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


class Transpose(Function):
    """y = x with permuted axes  =>  dx = dy with the inverse permutation.

    Keeps nothing.
    """

    def forward(self, x: Array, axes: tuple[int, ...]) -> Array:
        self.inverse = tuple(sorted(range(len(axes)), key=axes.__getitem__))
        return x.transpose(axes)

    def backward(self, dy: Array) -> Any:
        return dy.transpose(self.inverse)


@derivation(Transpose)
def transpose(x: TensorLike, *order: int | Sequence[int] | None, axes: Sequence[int] | None = None) -> Tensor:
    """Return x with its axes in the order given as a tuple or as several integers; by default they are reversed.

    The order may also be given by keyword, as NumPy's `axes`.

    >>> tl.transpose(tl.zeros((2, 3, 4)), 2, 0, 1).shape
    (4, 2, 3)
    """
    x = as_tensor(x)
    wanted: Any = (axes,) if axes is not None and not order else order
    wanted = tuple(wanted[0]) if len(wanted) == 1 and isinstance(wanted[0], tuple | list) else wanted
    wanted = () if wanted == (None,) else wanted
    if not wanted:
        wanted = tuple(reversed(range(x.ndim)))
    if len(normalized_axes(wanted, x.ndim, "transpose")) != x.ndim:
        hint = f"; x.swapaxes{wanted} exchanges two" if len(wanted) == 2 else ""
        raise ValueError(f"transpose: axes must be a permutation of {x.ndim} axes, got {wanted}{hint}")
    return Transpose.apply(x, axes=tuple(a % x.ndim for a in wanted))


@derivation(Transpose)
def swapaxes(x: TensorLike, axis1: int, axis2: int) -> Tensor:
    """Return x with two axes exchanged.

    >>> tl.swapaxes(tl.zeros((2, 3, 4)), 0, -1).shape
    (4, 3, 2)
    """
    x = as_tensor(x)
    order = list(range(x.ndim))
    axis1, axis2 = (normalized_axis(axis, x.ndim, "swapaxes") for axis in (axis1, axis2))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return Transpose.apply(x, axes=tuple(order))


@derivation(Transpose)
def moveaxis(x: TensorLike, source: int | tuple[int, ...], destination: int | tuple[int, ...]) -> Tensor:
    """Return x with the axes `source` moved to the positions `destination`; the others keep their order.

    >>> tl.moveaxis(tl.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    x = as_tensor(x)
    sources = tuple(source) if isinstance(source, tuple | list) else (source,)
    targets = tuple(destination) if isinstance(destination, tuple | list) else (destination,)
    normalized_axes(sources, x.ndim, "moveaxis"), normalized_axes(targets, x.ndim, "moveaxis")
    if len(sources) != len(targets):
        raise ValueError(f"moveaxis: each axis needs one destination, got {sources} to {targets}")
    moved = {target % x.ndim: axis % x.ndim for axis, target in zip(sources, targets, strict=True)}
    others = iter([axis for axis in range(x.ndim) if axis not in moved.values()])
    return Transpose.apply(x, axes=tuple([moved[i] if i in moved else next(others) for i in range(x.ndim)]))


@derivation(Reshape)
def expand_dims(x: TensorLike, axis: int | tuple[int, ...]) -> Tensor:
    """Return x with new axes of size 1 at the positions `axis` of the result.

    >>> tl.expand_dims([1, 2, 3], 0).shape
    (1, 3)
    """
    x = as_tensor(x)
    ndim = x.ndim + (len(axis) if isinstance(axis, tuple | list) else 1)
    axes, sizes = normalized_axes(axis, ndim, "expand_dims"), iter(x.shape)
    return Reshape.apply(x, shape=tuple([1 if i in axes else next(sizes) for i in range(ndim)]))


@derivation(Reshape)
def squeeze(x: TensorLike, axis: Axis = None) -> Tensor:
    """Return x without its axes of size 1: by default without all of them, otherwise without those in `axis`.

    Raises ValueError if an axis in `axis` has a different size.

    >>> tl.squeeze([[[1, 2]]], 0).shape
    (1, 2)
    """
    x = as_tensor(x)
    axes = (
        tuple(i for i, n in enumerate(x.shape) if n == 1) if axis is None else normalized_axes(axis, x.ndim, "squeeze")
    )
    for a in axes:
        if x.shape[a] != 1:
            raise ValueError(f"squeeze: axis {a} must have size 1, got shape {x.shape}")
    return Reshape.apply(x, shape=tuple(n for i, n in enumerate(x.shape) if i not in axes))


class BroadcastTo(Function):
    """y repeats x along new axes and axes of size 1  =>  dx sums dy over them. The adjoint of sum_to.

    Keeps nothing.
    """

    def forward(self, x: Array, shape: tuple[int, ...]) -> Array:
        self.shape = x.shape
        return namespace_of(x).broadcast_to(x, shape)

    def backward(self, dy: Array) -> Any:
        return sum_to(dy, self.shape)


@derivation(BroadcastTo)
def broadcast_to(x: TensorLike, shape: Shape) -> Tensor:
    """Return x repeated to `shape` by NumPy's broadcasting rules, without copying.

    >>> tl.broadcast_to([[1], [2]], (2, 3))
    Tensor([[1 1 1]
            [2 2 2]], shape=(2, 3), dtype=int64)
    """
    x = as_tensor(x)
    wanted = checked_shape("broadcast_to", shape)
    fits = zip(reversed(x.shape), reversed(wanted), strict=False)
    if len(wanted) < x.ndim or any(n not in (1, m) for n, m in fits):
        raise ValueError(
            f"broadcast_to: only axes of size 1 and new leading axes can grow, got {x.shape} for {wanted}; "
            "tl.expand_dims adds axes elsewhere"
        )
    return BroadcastTo.apply(x, shape=wanted)


class Concatenate(Function):
    """y joins the inputs along `axis`  =>  each input gets its own part of dy.

    Keeps nothing.
    """

    def forward(self, *xs: Array, axis: int) -> Array:
        self.axis, self.sizes = axis, [x.shape[axis] for x in xs]
        return backend_of(xs[0]).concatenate(xs, axis)

    def backward(self, dy: Array) -> Any:
        return tuple(Split.run(dy, sizes=self.sizes, axis=self.axis))


@derivation(Concatenate)
def concatenate(xs: Sequence[TensorLike] | TensorLike, axis: int = 0) -> Tensor:
    """Return Tensors joined along an existing axis; their sizes along the other axes must agree.

    >>> tl.concatenate([[1, 2], [3]])
    Tensor([1 2 3], shape=(3,), dtype=int64)
    """
    xs = _tensors_to_join(xs, axis, "concatenate")
    axis = normalized_axis(axis, xs[0].ndim, "concatenate")
    for i, x in enumerate(xs):
        if x.ndim != xs[0].ndim or any(
            a != axis and n != m for a, (n, m) in enumerate(zip(x.shape, xs[0].shape, strict=True))
        ):
            raise ValueError(
                f"concatenate: shapes must agree except for axis {axis}, got {xs[0].shape} first and {x.shape} as "
                f"number {i}; tl.stack joins along a new axis"
            )
    return Concatenate.apply(*xs, axis=axis)


@derivation(Concatenate)
def stack(xs: Sequence[TensorLike] | TensorLike, axis: int = 0) -> Tensor:
    """Return Tensors of one shape joined along a new axis.

    >>> tl.stack([[1, 2], [3, 4]], axis=1)
    Tensor([[1 3]
            [2 4]], shape=(2, 2), dtype=int64)
    """
    xs = _tensors_to_join(xs, axis, "stack")
    for i, x in enumerate(xs):
        if x.shape != xs[0].shape:
            raise ValueError(f"stack: shapes must be equal, got {xs[0].shape} first and {x.shape} as number {i}")
    axis = normalized_axis(axis, xs[0].ndim + 1, "stack")
    return concatenate([expand_dims(x, axis) for x in xs], axis)


def _tensors_to_join(xs: Any, axis: Any, name: str) -> list[Tensor]:
    """Return the Tensors to be joined; lists and numbers among them go to the backend of the first Tensor."""
    if hasattr(axis, "shape") and hasattr(xs, "shape"):
        raise TypeError(f"{name}: needs the Tensors in one list, {name}([x, y]); got two arguments")
    if not isinstance(xs, tuple | list) and (isinstance(xs, type) or not hasattr(xs, "shape") or not xs.ndim):
        raise TypeError(f"{name}: needs a list of Tensors, got {shown(xs)}")
    if not len(xs):
        raise ValueError(f"{name}: needs at least one Tensor, got none")
    return as_tensors(list(xs))


class Split(Function):
    """y_1, ..., y_n are consecutive parts of x along `axis`  =>  dx joins their gradients. A node with several outputs.

    Keeps nothing.
    """

    def forward(self, x: Array, sizes: list[int], axis: int) -> tuple[Array, ...]:
        self.axis, parts, start = axis, [], 0
        for size in sizes:
            parts.append(x[(slice(None),) * axis + (slice(start, start + size),)])
            start += size
        return tuple(parts)

    def backward(self, *dys: Array) -> Any:
        return Concatenate.run(*dys, axis=self.axis)


@derivation(Split)
def split(x: TensorLike, indices_or_sections: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Return x cut along `axis` into a given number of equal parts or, as in NumPy, before each of the given positions.

    Raises ValueError if the parts would not be equal, or if the positions decrease or exceed the size of the axis.

    >>> tl.split([1, 2, 3, 4], 2)
    (Tensor([1 2], shape=(2,), dtype=int64), Tensor([3 4], shape=(2,), dtype=int64))
    >>> [part.shape for part in tl.split([1, 2, 3, 4], [1])]
    [(1,), (3,)]
    """
    x = as_tensor(x)
    axis = normalized_axis(axis, x.ndim, "split")
    n = x.shape[axis]
    given = checked_shape("split", indices_or_sections, "sections")
    if np.ndim(indices_or_sections) == 0:
        (parts,) = given
        if parts < 1 or n % parts:
            raise ValueError(f"split: {parts} equal parts must fit axis {axis} of size {n}; list the cuts instead")
        sizes = [n // parts] * parts
    else:
        cuts = [0, *given, n]
        if sorted(cuts) != cuts:
            raise ValueError(f"split: positions must rise from 0 to {n}, the size of axis {axis}; got {list(given)}")
        sizes = [end - start for start, end in pairwise(cuts)]
    outputs: Any = Split.apply(x, sizes=sizes, axis=axis)  # several outputs, which the type of `apply` does not express
    return outputs


@derivation(Split)
def unstack(x: TensorLike, axis: int = 0) -> tuple[Tensor, ...]:
    """Return the slices of x along `axis`, without that axis: the inverse of stack.

    >>> [row.shape for row in tl.unstack(tl.zeros((2, 3)))]
    [(3,), (3,)]
    """
    x = as_tensor(x)
    axis = normalized_axis(axis, x.ndim, "unstack")
    return tuple([squeeze(part, axis) for part in split(x, x.shape[axis], axis)]) if x.shape[axis] else ()


class Astype(Function):
    """y = x in another floating dtype  =>  dx = dy in the dtype of x.

    Keeps nothing.
    """

    def forward(self, x: Array, dtype: Any) -> Array:
        self.dtype = x.dtype
        return x.astype(dtype)

    def backward(self, dy: Array) -> Any:
        return dy.astype(self.dtype)


@derivation(Astype)
def astype(x: TensorLike, dtype: DTypeLike) -> Tensor:
    """Return x converted to `dtype`: differentiable between floating dtypes, detached otherwise.

    >>> tl.astype([1.5, 2.5], "int64")
    Tensor([1 2], shape=(2,), dtype=int64)
    """
    x, dtype = as_tensor(x), checked_dtype("astype", dtype)
    return Astype.apply(x if dtype.kind == "f" else x.detach(), dtype=dtype)


class Copy(Function):
    """y = x in new memory  =>  dx = dy.

    Keeps nothing.
    """

    def forward(self, x: Array) -> Array:
        return x.copy()

    def backward(self, dy: Array) -> Any:
        return dy


@derivation(Copy)
def copy(x: TensorLike) -> Tensor:
    """Return x in new, contiguous memory; differentiable.

    >>> tl.copy([1.0, 2.0])
    Tensor([1. 2.], shape=(2,), dtype=float32)
    """
    return Copy.apply(x)
