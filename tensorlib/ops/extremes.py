"""The largest and the smallest element, and their positions."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, ClassVar

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.shapes import with_kept_axes
from tensorlib.engine.function import Function, as_tensor, derivation
from tensorlib.ops.arguments import Axis, check_flag, normalized_axis, reduced_axes
from tensorlib.ops.plain import plain

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["amax", "amin", "argmax", "argmin", "max", "min"]


class Max(Function):
    """y = max of x over `axis`  =>  dx = dy / n at the n elements equal to y, else 0 (as in torch.amax).

    Keeps x and y.
    """

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
        attained = (x == with_kept_axes(y, x.shape, self.axes)) | (x != x)  # if x contains NaN, that is the result
        count = attained.sum(axis=self.axes, keepdims=True)  # an integer: float16 cannot hold more than 65504
        share = (with_kept_axes(dy, x.shape, self.axes) / count).astype(dy.dtype)
        return namespace_of(dy).where(attained, share, 0)  # not share * attained: an infinite dy times 0 is NaN


class Min(Max):
    """y = min of x over `axis`  =>  dx = dy / n at the n elements equal to y, else 0 (as in torch.amin).

    Keeps x and y.
    """

    method = "min"


@derivation(Max)
def max(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the largest element over `axis` (all axes by default), or NaN if there is one.

    Tied elements share the gradient evenly. Raises ValueError if an axis to reduce has size 0.

    >>> tl.max([[1.0, 4.0], [3.0, 2.0]], axis=0)
    Tensor([3. 4.], shape=(2,), dtype=float32)
    """
    return Max.apply(x, axis=axis, keepdims=keepdims)


@derivation(Min)
def min(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the smallest element over `axis` (all axes by default), or NaN if there is one.

    Tied elements share the gradient evenly. Raises ValueError if an axis to reduce has size 0.

    >>> tl.min([[1.0, 4.0], [3.0, 2.0]], axis=0)
    Tensor([1. 2.], shape=(2,), dtype=float32)
    """
    return Min.apply(x, axis=axis, keepdims=keepdims)


@derivation(Max)
def amax(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the largest element over `axis`: `max` under its other name in NumPy and PyTorch.

    >>> tl.amax([1.0, 4.0, 3.0])
    Tensor(4., shape=(), dtype=float32)
    """
    return max(x, axis, keepdims)


@derivation(Min)
def amin(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the smallest element over `axis`: `min` under its other name in NumPy and PyTorch.

    >>> tl.amin([1.0, 4.0, 3.0])
    Tensor(1., shape=(), dtype=float32)
    """
    return min(x, axis, keepdims)


def argmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the index of the first largest element along `axis` (by default, of the flattened x), a constant int64.

    Raises ValueError if the axis has size 0.

    >>> tl.argmax([[1.0, 4.0], [3.0, 2.0]], axis=1)
    Tensor([1 0], shape=(2,), dtype=int64)
    """
    return _position("argmax", x, axis, keepdims)


def argmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the index of the first smallest element along `axis` (by default, of the flattened x), a constant int64.

    Raises ValueError if the axis has size 0.

    >>> tl.argmin([[1.0, 4.0], [3.0, 2.0]], axis=1)
    Tensor([0 1], shape=(2,), dtype=int64)
    """
    return _position("argmin", x, axis, keepdims)


def _position(name: str, x: TensorLike, axis: int | None, keepdims: bool) -> Tensor:
    x = as_tensor(x)
    check_flag(name, "keepdims", keepdims)
    if axis is not None:
        axis = normalized_axis(axis, x.ndim, name)
    if not (x.size if axis is None else x.shape[axis]):
        raise ValueError(f"{name}: needs at least one element along the axis searched, got shape {x.shape}")
    return plain(name, x, axis=axis, keepdims=keepdims)
