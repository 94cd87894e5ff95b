"""Order: sorting is picking elements in the order that argsort finds, and so needs no gradient formula of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlib.engine.function import as_tensor
from tensorlib.messages import shown
from tensorlib.ops.arguments import check_flag, checked_size, normalized_axis
from tensorlib.ops.gathering import take_along_axis
from tensorlib.ops.plain import plain
from tensorlib.ops.rearrange import flip
from tensorlib.ops.shape import reshape

__all__ = ["argsort", "searchsorted", "sort", "topk"]

FEW = 8  # so many of the largest elements are sought one after another


def argsort(x: Any, axis: int | None = -1, descending: bool = False) -> Any:
    """Return the indices that put x in order along `axis` (None: of x flat), smallest first or largest first.

    Equal elements keep their order either way. NaN counts as larger than every number.
    """
    check_flag("argsort", "descending", descending)
    x = as_tensor(x).detach()
    if axis is None:
        return argsort(reshape(x, x.size), 0, descending)
    axis = normalized_axis(axis, x.ndim, "argsort")
    if not descending:
        return plain("argsort", x, axis=axis, kind="stable")
    # Of the mirrored x the last of equal elements comes first; mirrored again, the first does.
    return x.shape[axis] - 1 - flip(plain("argsort", flip(x, axis), axis=axis, kind="stable"), axis)


def sort(x: Any, axis: int | None = -1, descending: bool = False) -> Any:
    """Return x in order along `axis` (None: x flat); each element takes its gradient along. See `argsort` for ties."""
    x = as_tensor(x)
    if axis is None:
        return sort(reshape(x, x.size), 0, descending)
    normalized_axis(axis, x.ndim, "sort")
    return take_along_axis(x, argsort(x, axis, descending), axis)


def topk(x: Any, k: int, axis: int = -1, largest: bool = True) -> tuple[Any, Any]:
    """Return the `k` largest (or smallest) elements along `axis`, the most extreme first, and their indices.

    Of equal elements the first comes first. The values are differentiable.
    """
    x = as_tensor(x)
    axis = normalized_axis(axis, x.ndim, "topk")
    count = checked_size("topk", "k", k)
    check_flag("topk", "largest", largest)
    if count > x.shape[axis]:
        raise ValueError(f"topk: k must lie in [0, {x.shape[axis]}], the size of axis {axis}; got {k}")
    if largest and count <= FEW and (indices := _one_after_another(x, count, axis)) is not None:
        return take_along_axis(x, indices, axis), indices
    first = (*[slice(None)] * axis, slice(count))
    chosen = _reaching(x, count, axis, largest)
    if chosen is None:
        indices = argsort(x, axis, largest)[first]
    else:
        indices = take_along_axis(chosen, argsort(take_along_axis(x.detach(), chosen, axis), axis, largest), axis)
    return take_along_axis(x, indices, axis), indices


def _one_after_another(x: Any, count: int, axis: int) -> Any:
    """Return where the `count` largest elements along `axis` are, the largest first, by `argmax` again and again.

    That is what beam search asks of 8,000 logits: for 4 of them 20 times as fast as `partition`. None where -inf, which
    stands for what was found already, is among the largest; for integers, which have none; and on a GPU, which would
    wait to be asked that.
    """
    if not isinstance(x.data, np.ndarray) or x.dtype.kind != "f" or not count * x.size:
        return None
    rest = x.data.copy()
    found = []
    for _ in range(count):
        place = np.expand_dims(rest.argmax(axis=axis), axis)
        if np.isneginf(np.take_along_axis(rest, place, axis)).any():
            return None
        np.put_along_axis(rest, place, -np.inf, axis)
        found.append(place)
    return as_tensor(np.concatenate(found, axis=axis))


def _reaching(x: Any, count: int, axis: int, largest: bool) -> Any:
    """Return where the `count` most extreme elements along `axis` are, in rising order of their indices, or None.

    Sorting everything for a few takes ten times as long as `partition`, which finds the last of those few. None where
    others are as extreme as that one (or NaN is among them), so that order alone tells which are the first; and on a
    GPU, where `partition` sorts everything as well, and counting what was found would wait.
    """
    n, rows = x.shape[axis], x.data.swapaxes(axis, -1)
    if not isinstance(rows, np.ndarray) or not 0 < count < n or not rows.size:
        return None
    place = n - count if largest else count - 1
    last = np.partition(rows, place, axis=-1)[..., place : place + 1]
    reach = (rows >= last) | (rows != rows) if largest else ~(rows > last)  # `count` or more of each row
    found = np.nonzero(reach)[-1]
    if found.size != last.size * count:
        return None
    return as_tensor(found.reshape(*last.shape[:-1], count).swapaxes(axis, -1))


def searchsorted(sorted: Any, values: Any, side: str = "left") -> Any:
    """Return for each of `values` the position at which it would go into `sorted`, a Tensor of one axis that rises.

    Among equal elements it goes to the left, before them, or with side="right" behind them.
    """
    if not isinstance(side, str) or side not in ("left", "right"):
        raise ValueError(f"searchsorted: side must be 'left' or 'right', got {shown(side)}")
    like = values if hasattr(values, "requires_grad") else None
    sorted = as_tensor(sorted, None if hasattr(sorted, "dtype") else like)
    if sorted.ndim != 1:
        raise ValueError(f"searchsorted: the sorted Tensor must have one axis, got shape {sorted.shape}")
    return plain("searchsorted", sorted, as_tensor(values, None if hasattr(values, "shape") else sorted), side=side)
