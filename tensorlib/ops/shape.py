"""Ops that move elements and change none: each one's gradient moves them back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tensorlib.backend import Array, namespace_of
from tensorlib.function import Function
from tensorlib.ops.common import normal_axes, sum_to

__all__ = [
    "astype", "broadcast_to", "concatenate", "copy", "expand_dims", "reshape", "split", "squeeze", "stack",
    "swapaxes", "transpose",
]  # fmt: skip


class Reshape(Function):
    """y has the elements of x in the same order  =>  dx = dy reshaped back."""

    def forward(self, x: Array, shape: tuple[int, ...]) -> Array:
        self.shape = x.shape
        return x.reshape(shape)

    def backward(self, dy: Array) -> Any:
        return dy.reshape(self.shape)


def reshape(x: Any, *shape: Any) -> Any:
    """Return x with another shape, given as a tuple or as several integers; -1 is worked out."""
    wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    return Reshape.apply(x, shape=wanted)


class Transpose(Function):
    """y = x with permuted axes  =>  dx = dy with the inverse permutation."""

    def forward(self, x: Array, axes: tuple[int, ...]) -> Array:
        self.inverse = tuple(sorted(range(len(axes)), key=axes.__getitem__))
        return x.transpose(axes)

    def backward(self, dy: Array) -> Any:
        return dy.transpose(self.inverse)


def transpose(x: Any, *axes: Any) -> Any:
    """Return x with axes in the given order (a tuple or several integers); reversed if none is given."""
    order = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
    if not order:
        order = tuple(reversed(range(x.ndim)))
    if len(normal_axes(order, x.ndim, "transpose")) != x.ndim:
        raise ValueError(f"transpose: axes must be a permutation of {x.ndim} axes, got {order}")
    return Transpose.apply(x, axes=tuple(a % x.ndim for a in order))


def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Return x with two axes exchanged."""
    order = list(range(x.ndim))
    normal_axes((axis1,), x.ndim, "swapaxes"), normal_axes((axis2,), x.ndim, "swapaxes")
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return Transpose.apply(x, axes=tuple(order))


def expand_dims(x: Any, axis: int) -> Any:
    """Return x with a new axis of size 1 at `axis`."""
    (at,) = normal_axes((axis,), x.ndim + 1, "expand_dims")
    return Reshape.apply(x, shape=(*x.shape[:at], 1, *x.shape[at:]))


def squeeze(x: Any, axis: int | tuple[int, ...] | None = None) -> Any:
    """Return x without the axes of size 1 (all of them, or those named)."""
    axes = tuple(i for i, n in enumerate(x.shape) if n == 1) if axis is None else normal_axes(axis, x.ndim, "squeeze")
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


def broadcast_to(x: Any, shape: tuple[int, ...]) -> Any:
    """Return x repeated to `shape` by NumPy's broadcasting rules, without copying."""
    return BroadcastTo.apply(x, shape=tuple(shape))


class Concatenate(Function):
    """y joins the inputs along `axis`  =>  each input gets its own stretch of dy."""

    def forward(self, *xs: Array, axis: int) -> Array:
        self.axis, self.sizes = axis, [x.shape[axis] for x in xs]
        return namespace_of(xs[0]).concatenate(xs, axis=axis)

    def backward(self, dy: Array) -> Any:
        return tuple(Split.run(dy, sizes=self.sizes, axis=self.axis))


def concatenate(xs: Any, axis: int = 0) -> Any:
    """Join Tensors along an existing axis; all other sizes must agree."""
    if len(xs) == 0:
        raise ValueError("concatenate: needs at least one Tensor, got none")
    (axis,) = normal_axes((axis,), xs[0].ndim, "concatenate")
    return Concatenate.apply(*xs, axis=axis)


def stack(xs: Any, axis: int = 0) -> Any:
    """Join Tensors of one shape along a new axis."""
    return concatenate([expand_dims(x, axis) for x in xs], axis)


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


def split(x: Any, sections: int | list[int], axis: int = 0) -> Any:
    """Cut x along `axis` into `sections` equal parts, or, as NumPy does, before each of the positions listed."""
    (axis,) = normal_axes((axis,), x.ndim, "split")
    n = x.shape[axis]
    if isinstance(sections, int):
        if sections < 1 or n % sections:
            raise ValueError(f"split: {sections} equal parts must fit axis {axis} of size {n}; list where to cut")
        return Split.apply(x, sizes=[n // sections] * sections, axis=axis)
    cuts = [0, *sections, n]
    if sorted(cuts) != cuts:
        raise ValueError(f"split: positions must rise from 0 to {n}, the size of axis {axis}; got {list(sections)}")
    return Split.apply(x, sizes=[end - start for start, end in pairwise(cuts)], axis=axis)


class Astype(Function):
    """y = x in another floating dtype  =>  dx = dy in the dtype of x."""

    def forward(self, x: Array, dtype: Any) -> Array:
        self.dtype = x.dtype
        return x.astype(dtype)

    def backward(self, dy: Array) -> Any:
        return dy.astype(self.dtype)


def astype(x: Any, dtype: Any) -> Any:
    """Return x converted to `dtype`. Differentiable between floating dtypes, detached for others."""
    floating = namespace_of(x.data).dtype(dtype).kind in "fc"
    return Astype.apply(x if floating else x.detach(), dtype=dtype)


class Copy(Function):
    """y = x in memory of its own  =>  dx = dy."""

    def forward(self, x: Array) -> Array:
        return x.copy()

    def backward(self, dy: Array) -> Any:
        return dy


def copy(x: Any) -> Any:
    """Return x in memory of its own, contiguous; differentiable."""
    return Copy.apply(x)
