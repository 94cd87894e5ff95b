"""The largest and the smallest element, and where they are."""

from __future__ import annotations

import builtins
from typing import Any, ClassVar

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.shapes import with_kept_axes
from tensorlib.engine.function import Function, as_tensor
from tensorlib.ops.arguments import Axis, check_flag, normalized_axis, reduced_axes
from tensorlib.ops.plain import plain

__all__ = ["amax", "amin", "argmax", "argmin", "max", "min"]


class Max(Function):
    """y = max of x over `axis`  =>  dy is shared evenly by all elements that attain it (as torch.amax does)."""

    method: ClassVar[str] = "max"

    def forward(self, x: Array, axis: Axis, keepdims: bool) -> Array:
        self.axes = reduced_axes(axis, keepdims, x.ndim, self.method)
        if not builtins.all(x.shape[a] for a in self.axes):
            raise ValueError(f"{self.method}: needs at least one element along every axis reduced, got shape {x.shape}")
        y = getattr(x, self.method)(axis=self.axes, keepdims=keepdims)
        self.save(x, y)
        return y

    def backward(self, dy: Array) -> Any:
        x, y = self.saved
        attained = (x == with_kept_axes(y, x.shape, self.axes)) | (x != x)  # a NaN among x is the result
        count = attained.sum(axis=self.axes, keepdims=True).astype(dy.dtype)
        share = with_kept_axes(dy, x.shape, self.axes) / count
        return namespace_of(dy).where(attained, share, 0)  # and not share * attained: an infinite dy times 0 is NaN


class Min(Max):
    """y = min of x over `axis`; the gradient is shared as that of Max."""

    method = "min"


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the largest element over `axis` (all axes by default); tied elements share the gradient evenly.

    NaN if there is one. Over nothing there is no largest element: a ValueError.
    """
    return Max.apply(x, axis=axis, keepdims=keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the smallest element over `axis` (all axes by default); tied elements share the gradient evenly."""
    return Min.apply(x, axis=axis, keepdims=keepdims)


def amax(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return `max`, by NumPy's and PyTorch's other name."""
    return max(x, axis, keepdims)


def amin(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return `min`, by NumPy's and PyTorch's other name."""
    return min(x, axis, keepdims)


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Return the index of the first largest element along `axis` (of the flattened array by default)."""
    return _place("argmax", x, axis, keepdims)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Return the index of the first smallest element along `axis` (of the flattened array by default)."""
    return _place("argmin", x, axis, keepdims)


def _place(name: str, x: Any, axis: int | None, keepdims: bool) -> Any:
    x = as_tensor(x)
    check_flag(name, "keepdims", keepdims)
    if axis is not None:
        axis = normalized_axis(axis, x.ndim, name)
    if not (x.size if axis is None else x.shape[axis]):
        raise ValueError(f"{name}: needs at least one element along the axis searched, got shape {x.shape}")
    return plain(name, x, axis=axis, keepdims=keepdims)
