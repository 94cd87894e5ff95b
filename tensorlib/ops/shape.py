"""Ops that move elements and change none: each one's gradient moves them back."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.shapes import sum_to
from tensorlib.engine.function import Function, as_tensor
from tensorlib.messages import shown
from tensorlib.ops.arguments import Axis, as_tensors, checked_dtype, checked_shape, normalized_axes, normalized_axis

__all__ = [
    "astype", "broadcast_to", "concatenate", "copy", "expand_dims", "flatten", "moveaxis", "reshape", "split",
    "squeeze", "stack", "swapaxes", "transpose", "unstack",
]  # fmt: skip


class Reshape(Function):
    """y has the elements of x in the same order  =>  dx = dy reshaped back."""

    def forward(self, x: Array, shape: tuple[int, ...]) -> Array:
        self.shape = x.shape
        try:
            return x.reshape(shape)
        except TypeError:
            raise TypeError(f"reshape: shape needs integers, got {shown(shape)}") from None

    def backward(self, dy: Array) -> Any:
        return dy.reshape(self.shape)


def reshape(x: Any, *sizes: Any, shape: Any = None) -> Any:
    """Return x with another shape, given as a tuple (NumPy's `shape`) or as several integers; -1 is worked out."""
    sizes = (shape,) if shape is not None and not sizes else sizes
    wanted = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    return Reshape.apply(x, shape=wanted)


def flatten(x: Any, start_axis: int = 0, end_axis: int = -1) -> Any:
    """Return x with the axes from `start_axis` to `end_axis`, both included, made one; a 0-d x becomes (1,)."""
    x = as_tensor(x)
    if x.ndim == 0:
        return reshape(x, 1)
    start, end = (normalized_axis(axis, x.ndim, "flatten") for axis in (start_axis, end_axis))
    if start > end:
        raise ValueError(f"flatten: start_axis must not lie behind end_axis, got {start_axis} and {end_axis}")
    return Reshape.apply(x, shape=(*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


class Transpose(Function):
    """y = x with permuted axes  =>  dx = dy with the inverse permutation."""

    def forward(self, x: Array, axes: tuple[int, ...]) -> Array:
        self.inverse = tuple(sorted(range(len(axes)), key=axes.__getitem__))
        return x.transpose(axes)

    def backward(self, dy: Array) -> Any:
        return dy.transpose(self.inverse)


def transpose(x: Any, *order: Any, axes: Any = None) -> Any:
    """Return x with axes in the given order (a tuple or several integers); reversed if none is given.

    The order may be given by name too, as NumPy's `axes`.
    """
    x = as_tensor(x)
    order = (axes,) if axes is not None and not order else order
    order = tuple(order[0]) if len(order) == 1 and isinstance(order[0], tuple | list) else order
    order = () if order == (None,) else order
    if not order:
        order = tuple(reversed(range(x.ndim)))
    if len(normalized_axes(order, x.ndim, "transpose")) != x.ndim:
        hint = f"; x.swapaxes{order} exchanges two" if len(order) == 2 else ""
        raise ValueError(f"transpose: axes must be a permutation of {x.ndim} axes, got {order}{hint}")
    return Transpose.apply(x, axes=tuple(a % x.ndim for a in order))


def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Return x with two axes exchanged."""
    x = as_tensor(x)
    order = list(range(x.ndim))
    axis1, axis2 = (normalized_axis(axis, x.ndim, "swapaxes") for axis in (axis1, axis2))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return Transpose.apply(x, axes=tuple(order))


def moveaxis(x: Any, source: int | tuple[int, ...], destination: int | tuple[int, ...]) -> Any:
    """Return x with the axes `source` at the places `destination`, the others in their old order."""
    x = as_tensor(x)
    sources = tuple(source) if isinstance(source, tuple | list) else (source,)
    places = tuple(destination) if isinstance(destination, tuple | list) else (destination,)
    normalized_axes(sources, x.ndim, "moveaxis"), normalized_axes(places, x.ndim, "moveaxis")
    if len(sources) != len(places):
        raise ValueError(f"moveaxis: each axis needs one destination, got {sources} to {places}")
    moved = {place % x.ndim: axis % x.ndim for axis, place in zip(sources, places, strict=True)}
    others = iter([axis for axis in range(x.ndim) if axis not in moved.values()])
    return Transpose.apply(x, axes=tuple([moved[i] if i in moved else next(others) for i in range(x.ndim)]))


def expand_dims(x: Any, axis: int | tuple[int, ...]) -> Any:
    """Return x with new axes of size 1, which stand at `axis` in the result."""
    x = as_tensor(x)
    ndim = x.ndim + (len(axis) if isinstance(axis, tuple | list) else 1)
    axes, sizes = normalized_axes(axis, ndim, "expand_dims"), iter(x.shape)
    return Reshape.apply(x, shape=tuple([1 if i in axes else next(sizes) for i in range(ndim)]))


def squeeze(x: Any, axis: Axis = None) -> Any:
    """Return x without the axes of size 1 (all of them, or those named)."""
    x = as_tensor(x)
    axes = (
        tuple(i for i, n in enumerate(x.shape) if n == 1) if axis is None else normalized_axes(axis, x.ndim, "squeeze")
    )
    for a in axes:
        if x.shape[a] != 1:
            raise ValueError(f"squeeze: axis {a} must have size 1, got shape {x.shape}")
    return Reshape.apply(x, shape=tuple(n for i, n in enumerate(x.shape) if i not in axes))


class BroadcastTo(Function):
    """y repeats x along new axes and axes of size 1  =>  dx sums dy over them. The adjoint of sum_to."""

    def forward(self, x: Array, shape: tuple[int, ...]) -> Array:
        self.shape = x.shape
        return namespace_of(x).broadcast_to(x, shape)

    def backward(self, dy: Array) -> Any:
        return sum_to(dy, self.shape)


def broadcast_to(x: Any, shape: int | tuple[int, ...]) -> Any:
    """Return x repeated to `shape` by NumPy's broadcasting rules, without copying."""
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
    """y joins the inputs along `axis`  =>  each input gets its own stretch of dy."""

    def forward(self, *xs: Array, axis: int) -> Array:
        self.axis, self.sizes = axis, [x.shape[axis] for x in xs]
        return namespace_of(xs[0]).concatenate(xs, axis=axis)

    def backward(self, dy: Array) -> Any:
        return tuple(Split.run(dy, sizes=self.sizes, axis=self.axis))


def concatenate(xs: Any, axis: int = 0) -> Any:
    """Join Tensors along an existing axis; all other sizes must agree."""
    xs = _tensors(xs, axis, "concatenate")
    axis = normalized_axis(axis, xs[0].ndim, "concatenate")
    for i, x in enumerate(xs):
        if x.ndim != xs[0].ndim or any(
            a != axis and n != m for a, (n, m) in enumerate(zip(x.shape, xs[0].shape, strict=True))
        ):
            raise ValueError(
                f"concatenate: shapes must agree but for axis {axis}, got {xs[0].shape} first and {x.shape} as "
                f"number {i}; tl.stack joins along a new axis"
            )
    return Concatenate.apply(*xs, axis=axis)


def stack(xs: Any, axis: int = 0) -> Any:
    """Join Tensors of one shape along a new axis."""
    xs = _tensors(xs, axis, "stack")
    for i, x in enumerate(xs):
        if x.shape != xs[0].shape:
            raise ValueError(f"stack: shapes must be equal, got {xs[0].shape} first and {x.shape} as number {i}")
    axis = normalized_axis(axis, xs[0].ndim + 1, "stack")
    return concatenate([expand_dims(x, axis) for x in xs], axis)


def _tensors(xs: Any, axis: Any, name: str) -> list[Any]:
    """Return the Tensors to be joined; lists and numbers among them come to the backend of the first Tensor."""
    if hasattr(axis, "shape") and hasattr(xs, "shape"):
        raise TypeError(f"{name}: the Tensors go into one list, {name}([x, y]); got them as two arguments")
    if not isinstance(xs, tuple | list) and not (hasattr(xs, "shape") and xs.ndim):
        raise TypeError(f"{name}: needs a list of Tensors, got {shown(xs)}")
    if not len(xs):
        raise ValueError(f"{name}: needs at least one Tensor, got none")
    return as_tensors(list(xs))


class Split(Function):
    """The inputs of Concatenate from its output: one node with several outputs  =>  dx joins their gradients."""

    def forward(self, x: Array, sizes: list[int], axis: int) -> tuple[Array, ...]:
        self.axis, parts, start = axis, [], 0
        for size in sizes:
            parts.append(x[(slice(None),) * axis + (slice(start, start + size),)])
            start += size
        return tuple(parts)

    def backward(self, *dys: Array) -> Any:
        return Concatenate.run(*dys, axis=self.axis)


def split(x: Any, indices_or_sections: int | list[int], axis: int = 0) -> Any:
    """Cut x along `axis` into so many equal parts, or, as NumPy does, before each of the positions listed."""
    x = as_tensor(x)
    axis = normalized_axis(axis, x.ndim, "split")
    n = x.shape[axis]
    given = checked_shape("split", indices_or_sections, "sections")
    if np.ndim(indices_or_sections) == 0:
        (parts,) = given
        if parts < 1 or n % parts:
            raise ValueError(f"split: {parts} equal parts must fit axis {axis} of size {n}; list where to cut")
        return Split.apply(x, sizes=[n // parts] * parts, axis=axis)
    cuts = [0, *given, n]
    if sorted(cuts) != cuts:
        raise ValueError(f"split: positions must rise from 0 to {n}, the size of axis {axis}; got {list(given)}")
    return Split.apply(x, sizes=[end - start for start, end in pairwise(cuts)], axis=axis)


def unstack(x: Any, axis: int = 0) -> tuple[Any, ...]:
    """Return the slices of x along `axis`, without that axis: the inverse of stack."""
    x = as_tensor(x)
    axis = normalized_axis(axis, x.ndim, "unstack")
    return tuple([squeeze(part, axis) for part in split(x, x.shape[axis], axis)]) if x.shape[axis] else ()


class Astype(Function):
    """y = x in another floating dtype  =>  dx = dy in the dtype of x."""

    def forward(self, x: Array, dtype: Any) -> Array:
        self.dtype = x.dtype
        return x.astype(dtype)

    def backward(self, dy: Array) -> Any:
        return dy.astype(self.dtype)


def astype(x: Any, dtype: Any) -> Any:
    """Return x converted to `dtype`. Differentiable between floating dtypes, detached for others."""
    x, dtype = as_tensor(x), checked_dtype("astype", dtype)
    return Astype.apply(x if dtype.kind in "fc" else x.detach(), dtype=dtype)


class Copy(Function):
    """y = x in memory of its own  =>  dx = dy."""

    def forward(self, x: Array) -> Array:
        return x.copy()

    def backward(self, dy: Array) -> Any:
        return dy


def copy(x: Any) -> Any:
    """Return x in memory of its own, contiguous; differentiable."""
    return Copy.apply(x)
