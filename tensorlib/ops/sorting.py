"""Order: sorting is picking elements in the order that argsort finds, and so needs no gradient formula of its own."""

from __future__ import annotations

from typing import Any

from tensorlib.function import as_tensor
from tensorlib.ops.common import normal_axes, plain
from tensorlib.ops.creation import checked_shape
from tensorlib.ops.gathering import take_along_axis
from tensorlib.ops.rearrange import flip
from tensorlib.ops.shape import reshape

__all__ = ["argsort", "searchsorted", "sort", "topk"]


def argsort(x: Any, axis: int | None = -1, descending: bool = False) -> Any:
    """Return the indices that put x in order along `axis` (None: of x flat), smallest first or largest first.

    Equal elements keep their order either way. NaN counts as larger than every number.
    """
    x = as_tensor(x).detach()
    if axis is None:
        return argsort(reshape(x, x.size), 0, descending)
    (axis,) = normal_axes((axis,), x.ndim, "argsort")
    if not descending:
        return plain("argsort", x, axis=axis, kind="stable")
    # Of the mirrored x the last of equal elements comes first; mirrored again, the first does.
    return x.shape[axis] - 1 - flip(plain("argsort", flip(x, axis), axis=axis, kind="stable"), axis)


def sort(x: Any, axis: int | None = -1, descending: bool = False) -> Any:
    """Return x in order along `axis` (None: x flat); each element takes its gradient along. See `argsort` for ties."""
    x = as_tensor(x)
    if axis is None:
        return sort(reshape(x, x.size), 0, descending)
    normal_axes((axis,), x.ndim, "sort")
    return take_along_axis(x, argsort(x, axis, descending), axis)


def topk(x: Any, k: int, axis: int = -1, largest: bool = True) -> tuple[Any, Any]:
    """Return the `k` largest (or smallest) elements along `axis`, the most extreme first, and their indices.

    Of equal elements the first comes first. The values are differentiable.
    """
    x = as_tensor(x)
    (axis,) = normal_axes((axis,), x.ndim, "topk")
    (count,) = checked_shape("topk", k, "k")
    if count > x.shape[axis]:
        raise ValueError(f"topk: k must lie in [0, {x.shape[axis]}], the size of axis {axis}; got {k}")
    first = (*[slice(None)] * axis, slice(count))
    indices = argsort(x, axis, descending=largest)[first]
    return take_along_axis(x, indices, axis), indices


def searchsorted(sorted: Any, values: Any, side: str = "left") -> Any:
    """Return for each of `values` the position at which it would go into `sorted`, a Tensor of one axis that rises.

    Among equal elements it goes to the left, before them, or with side="right" behind them.
    """
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side must be 'left' or 'right', got {side!r}")
    like = values if hasattr(values, "requires_grad") else None
    sorted = as_tensor(sorted, None if hasattr(sorted, "dtype") else like)
    if sorted.ndim != 1:
        raise ValueError(f"searchsorted: the sorted Tensor must have one axis, got shape {sorted.shape}")
    return plain("searchsorted", sorted, as_tensor(values, None if hasattr(values, "shape") else sorted), side=side)
