"""Reading from and adding to places that integers name, along one axis.

`take`, `take_along_axis` are NumPy's, where negative indices count from the end; `gather`, `scatter`,
`scatter_add` and `index_add` are PyTorch's, where they are errors. Indices from the host are checked; those on a GPU
are not fetched for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlib.arrays.backend import Array
from tensorlib.engine.function import as_tensor
from tensorlib.ops.arguments import checked_dtype, checked_size, normalized_axis
from tensorlib.ops.indexing import Getitem, ScatterAdd, integer_indices, where
from tensorlib.ops.shape import broadcast_to, reshape

__all__ = ["gather", "index_add", "one_hot", "scatter", "scatter_add", "take", "take_along_axis"]


def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """Return the slices of x at `indices` along `axis`, which the axes of `indices` replace; of x flat by default."""
    x = as_tensor(x)
    if axis is None:
        return take(reshape(x, x.size), indices, 0)
    axis, found = _along(x, indices, axis, "take")
    return Getitem.apply(x, index=(*[slice(None)] * axis, found))


def take_along_axis(x: Any, indices: Any, axis: int | None = -1) -> Any:
    """Return y with y[.., i, ..] = x[.., indices[.., i, ..], ..]; axes other than `axis` agree or have size 1.

    Without an axis x is flat, and `indices` have one axis.
    """
    x = as_tensor(x)
    if axis is None:
        return take_along_axis(reshape(x, x.size), indices, 0)
    axis, found = _along(x, indices, axis, "take_along_axis")
    if found.ndim != x.ndim or any(
        a != axis and n != m and 1 not in (n, m) for a, (n, m) in enumerate(zip(found.shape, x.shape, strict=True))
    ):
        raise ValueError(
            f"take_along_axis: indices must broadcast with x but along axis {axis}, got shapes {found.shape} and "
            f"{x.shape}; tl.take picks whole slices"
        )
    return Getitem.apply(x, index=_places(x, x.shape, found, axis))


def gather(x: Any, axis: int, index: Any) -> Any:
    """Return y with y[i, j, k] = x[i, index[i, j, k], k] for axis 1, and so on; y has the shape of `index`.

    `index` has as many axes as x, and along the others no larger sizes (torch.gather).
    """
    x = as_tensor(x)
    axis, found = _along(x, index, axis, "gather", negative=False)
    _check_within(x, found, axis, "gather")
    return Getitem.apply(x, index=_places(x, found.shape, found, axis))


def index_add(x: Any, axis: int, index: Any, source: Any) -> Any:
    """Return x with slice number i of `source` added to slice index[i] of x, for every i (torch.index_add).

    `index` has one axis; `source` has the shape of x, but len(index) along `axis`. Equal indices add up.
    """
    x = as_tensor(x)
    source = _beside(x, source, "index_add")
    axis, found = _along(x, index, axis, "index_add", negative=False)
    if found.ndim != 1:
        raise ValueError(f"index_add: index must have one axis, got shape {found.shape}; scatter_add takes more")
    wanted = (*x.shape[:axis], found.shape[0], *x.shape[axis + 1 :])
    if source.shape != wanted:
        raise ValueError(f"index_add: source must have shape {wanted}, got {source.shape}")
    return x + ScatterAdd.apply(source, index=(*[slice(None)] * axis, found), shape=x.shape)


def scatter_add(x: Any, axis: int, index: Any, source: Any) -> Any:
    """Return x with source[i, j, k] added at [i, index[i, j, k], k] for axis 1, and so on: the adjoint of gather.

    `index` has as many axes as x, and along the others no larger sizes; `source`, a number or a Tensor at least as
    large as `index`, is read where index has elements (torch.scatter_add). Equal places add up.
    """
    x = as_tensor(x)
    axis, found = _along(x, index, axis, "scatter_add", negative=False)
    _check_within(x, found, axis, "scatter_add")
    if _is_number(source):
        source = broadcast_to(as_tensor(source, like=x).astype(x.dtype), found.shape)
    source = _read_by(found, _beside(x, source, "scatter_add"), "scatter_add")
    return x + ScatterAdd.apply(source, index=_places(x, found.shape, found, axis), shape=x.shape)


def scatter(x: Any, axis: int, index: Any, source: Any) -> Any:
    """Return x with source[i, j, k] put at [i, index[i, j, k], k] for axis 1, and so on (torch.scatter).

    Shapes are as in scatter_add. Where places are equal the last source stands, on every backend, and it alone gets
    the gradient.
    """
    x = as_tensor(x)
    axis, found = _along(x, index, axis, "scatter", negative=False)
    _check_within(x, found, axis, "scatter")
    number = _is_number(source)
    source = source if number else _read_by(found, _beside(x, source, "scatter"), "scatter")
    if not found.size:
        return x.copy()
    # Which source stands at each place of x: its number from 1, or 0 where none does. A GPU has this for uint64 only.
    xp = x.backend.xp
    stands = xp.zeros(x.shape, "uint64")
    numbers = xp.arange(1, found.size + 1, dtype="uint64").reshape(found.shape)
    xp.maximum.at(stands, _places(x, found.shape, found, axis), numbers)
    if number:
        return where(as_tensor(stands > 0), source, x)
    chosen = (xp.maximum(stands, 1) - 1).astype("int64")
    return where(as_tensor(stands > 0), Getitem.apply(reshape(source, source.size), index=chosen), x)


def one_hot(ids: Any, classes: int, dtype: Any = "float32") -> Any:
    """Return y (*ids.shape, classes) that is 1 where the last index is the id and 0 elsewhere. No gradient."""
    ids, kind = as_tensor(ids), checked_dtype("one_hot", dtype)
    classes = checked_size("one_hot", "classes", classes)
    found = integer_indices(ids, ids, classes, "the number of classes", "one_hot", negative=False)
    return as_tensor((found[..., None] == ids.backend.xp.arange(classes)).astype(kind))


# ---- what they share ---------------------------------------------------------------------------------------------


def _along(x: Any, indices: Any, axis: int, name: str, negative: bool = True) -> tuple[int, Array]:
    """Return the axis as a number from 0, and the indices along it, checked, as an array beside x."""
    at = normalized_axis(axis, x.ndim, name)
    return at, integer_indices(indices, x, x.shape[at], f"the size of axis {at}", name, negative)


def _places(x: Any, shape: tuple[int, ...], indices: Array, axis: int) -> tuple[Array, ...]:
    """Return the index tuple that names `indices` along `axis` and each own place, within `shape`, along the others."""
    places = list(x.backend.xp.ogrid[tuple([slice(n) for n in shape])])
    places[axis] = indices
    return tuple(places)


def _check_within(x: Any, indices: Array, axis: int, name: str) -> None:
    """Raise ValueError unless `indices` have the axes of x, and along those other than `axis` no larger sizes."""
    if indices.ndim != x.ndim or any(
        a != axis and n > m for a, (n, m) in enumerate(zip(indices.shape, x.shape, strict=True))
    ):
        raise ValueError(
            f"{name}: index must have {x.ndim} axes as x, and be no larger but along axis {axis}; "
            f"got shape {indices.shape} for x of {x.shape}"
        )


def _read_by(indices: Array, source: Any, name: str) -> Any:
    """Return the part of `source` that indices of this shape read."""
    if source.ndim != indices.ndim or any(n < m for n, m in zip(source.shape, indices.shape, strict=True)):
        raise ValueError(
            f"{name}: source must be a number or at least as large as index, {indices.shape}; got shape {source.shape}"
        )
    return source if source.shape == indices.shape else source[tuple([slice(n) for n in indices.shape])]


def _beside(x: Any, source: Any, name: str) -> Any:
    """Return `source` as a Tensor, which must be on the backend of x."""
    source = as_tensor(source, like=x)
    if source.backend is not x.backend:
        raise TypeError(
            f"{name}: x and source must be on one backend, got {x.backend.name} and {source.backend.name}; "
            f"move one with .to({x.backend.name!r})"
        )
    return source


def _is_number(source: Any) -> bool:
    return isinstance(source, (int, float, complex, np.generic))
