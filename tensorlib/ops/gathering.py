"""Reading, replacing and adding elements at integer positions along one axis.

`take` and `take_along_axis` follow NumPy: negative indices count from the end. `gather`, `scatter`, `scatter_add` and
`index_add` follow PyTorch: negative indices are errors. Indices on the host are checked; indices that are already on a
GPU are not fetched for a check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import Array
from tensorlib.engine.function import as_tensor, constant, derivation
from tensorlib.ops.arguments import checked_dtype, checked_size, normalized_axis
from tensorlib.ops.indexing import Getitem, ScatterAdd, integer_indices, where
from tensorlib.ops.shape import broadcast_to, reshape

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["gather", "index_add", "one_hot", "scatter", "scatter_add", "take", "take_along_axis"]


@derivation(Getitem)
def take(x: TensorLike, indices: TensorLike, axis: int | None = None) -> Tensor:
    """Return the slices of x at `indices` along `axis`, which is replaced by the axes of `indices`.

    By default x is flattened. Raises IndexError for an index out of range.

    >>> tl.take([[1, 2, 3], [4, 5, 6]], [0, -1], axis=1)
    Tensor([[1 3]
            [4 6]], shape=(2, 2), dtype=int64)
    """
    x = as_tensor(x)
    if axis is None:
        return take(reshape(x, x.size), indices, 0)
    axis, found = _axis_and_indices(x, indices, axis, "take")
    return Getitem.apply(x, index=(*[slice(None)] * axis, found))


@derivation(Getitem)
def take_along_axis(x: TensorLike, indices: TensorLike, axis: int | None = -1) -> Tensor:
    """Return y with y[.., i, ..] = x[.., indices[.., i, ..], ..]; axes other than `axis` agree or have size 1.

    If `axis` is None, x is flattened, and `indices` must have one axis. Raises IndexError for an index out of range.

    >>> tl.take_along_axis([[1, 2, 3], [4, 5, 6]], [[2], [0]], axis=1)
    Tensor([[3]
            [4]], shape=(2, 1), dtype=int64)
    """
    x = as_tensor(x)
    if axis is None:
        return take_along_axis(reshape(x, x.size), indices, 0)
    axis, found = _axis_and_indices(x, indices, axis, "take_along_axis")
    if found.ndim != x.ndim or any(
        a != axis and n != m and 1 not in (n, m) for a, (n, m) in enumerate(zip(found.shape, x.shape, strict=True))
    ):
        raise ValueError(
            f"take_along_axis: indices must broadcast with x except along axis {axis}, got shapes {found.shape} and "
            f"{x.shape}; tl.take selects whole slices"
        )
    return Getitem.apply(x, index=_positions(x, x.shape, found, axis))


@derivation(Getitem)
def gather(x: TensorLike, axis: int, index: TensorLike) -> Tensor:
    """Return y with y[i, j, k] = x[i, index[i, j, k], k] for axis 1, and so on; y has the shape of `index`.

    As in torch.gather, `index` has as many axes as x, and is no larger than x along the axes other than `axis`. Raises
    IndexError for an index out of range.

    >>> tl.gather([[1, 2, 3], [4, 5, 6]], 1, [[2], [0]])
    Tensor([[3]
            [4]], shape=(2, 1), dtype=int64)
    """
    x = as_tensor(x)
    axis, found = _axis_and_indices(x, index, axis, "gather", negative=False)
    _check_index_shape(x, found, axis, "gather")
    return Getitem.apply(x, index=_positions(x, found.shape, found, axis))


@derivation(ScatterAdd)
def index_add(x: TensorLike, axis: int, index: TensorLike, source: TensorLike) -> Tensor:
    """Return x with slice i of `source` added to slice index[i] of x along `axis`, for every i (torch.index_add).

    `index` has one axis; `source` has the shape of x, except that its size along `axis` is len(index). Slices added
    at equal indices accumulate. The gradient of x is dy; that of `source` is read from dy at `index`.

    >>> tl.index_add([1.0, 2.0], 0, [1, 1], [10.0, 20.0])
    Tensor([ 1. 32.], shape=(2,), dtype=float32)
    """
    x = as_tensor(x)
    source = _on_same_backend(x, source, "index_add")
    axis, found = _axis_and_indices(x, index, axis, "index_add", negative=False)
    if found.ndim != 1:
        raise ValueError(f"index_add: index must have one axis, got shape {found.shape}; scatter_add takes more")
    wanted = (*x.shape[:axis], found.shape[0], *x.shape[axis + 1 :])
    if source.shape != wanted:
        raise ValueError(f"index_add: source must have shape {wanted}, got {source.shape}")
    return x + ScatterAdd.apply(source, index=(*[slice(None)] * axis, found), shape=x.shape)


@derivation(ScatterAdd)
def scatter_add(x: TensorLike, axis: int, index: TensorLike, source: TensorLike) -> Tensor:
    """Return x with source[i, j, k] added at [i, index[i, j, k], k] for axis 1, and so on: the adjoint of gather.

    As in torch.scatter_add, `index` has as many axes as x, and is no larger than x along the axes other than `axis`.
    `source` is a number, or a Tensor at least as large as `index`; only its elements at positions within `index` are
    read. Elements added at one position accumulate. The gradient of x is dy; that of `source` is dy where it was added.

    >>> tl.scatter_add([[1.0, 2.0], [3.0, 4.0]], 1, [[1], [0]], 10.0)
    Tensor([[ 1. 12.]
            [13.  4.]], shape=(2, 2), dtype=float32)
    """
    x = as_tensor(x)
    axis, found = _axis_and_indices(x, index, axis, "scatter_add", negative=False)
    _check_index_shape(x, found, axis, "scatter_add")
    if _is_number(source):
        source = broadcast_to(as_tensor(source, like=x).astype(x.dtype), found.shape)
    source = _part_read(found, _on_same_backend(x, source, "scatter_add"), "scatter_add")
    return x + ScatterAdd.apply(source, index=_positions(x, found.shape, found, axis), shape=x.shape)


def scatter(x: TensorLike, axis: int, index: TensorLike, source: TensorLike) -> Tensor:
    """Return x with source[i, j, k] written to [i, index[i, j, k], k] for axis 1, and so on (torch.scatter).

    Shapes are as in `scatter_add`. Of several sources for one position, the last one wins, on every backend, and it
    alone gets the gradient: y = where(written, source, x)  =>  dx = 0 where written, else dy; dsource = dy where it was
    written.

    >>> tl.scatter([[1.0, 2.0], [3.0, 4.0]], 1, [[1], [0]], 10.0)
    Tensor([[ 1. 10.]
            [10.  4.]], shape=(2, 2), dtype=float32)
    """
    x = as_tensor(x)
    axis, found = _axis_and_indices(x, index, axis, "scatter", negative=False)
    _check_index_shape(x, found, axis, "scatter")
    number = _is_number(source)
    read = None if number else _part_read(found, _on_same_backend(x, source, "scatter"), "scatter")
    if not found.size:
        return x.copy()
    # For each element of x, the number (from 1) of the last source written to it, or 0. On a GPU this needs uint64.
    xp = x.backend.xp
    writer = xp.zeros(x.shape, "uint64")
    numbers = xp.arange(1, found.size + 1, dtype="uint64").reshape(found.shape)
    xp.maximum.at(writer, _positions(x, found.shape, found, axis), numbers)
    if read is None:
        return where(constant(writer > 0), source, x)
    chosen = (xp.maximum(writer, 1) - 1).astype("int64")
    return where(constant(writer > 0), Getitem.apply(reshape(read, read.size), index=chosen), x)


def one_hot(ids: TensorLike, classes: int, dtype: DTypeLike = "float32") -> Tensor:
    """Return y (*ids.shape, classes) that is 1 where the last index is the id and 0 elsewhere, without a gradient.

    Raises IndexError for an id outside [0, classes).

    >>> tl.one_hot([0, 2], 3)
    Tensor([[1. 0. 0.]
            [0. 0. 1.]], shape=(2, 3), dtype=float32)
    """
    ids, kind = as_tensor(ids), checked_dtype("one_hot", dtype)
    classes = checked_size("one_hot", "classes", classes)
    found = integer_indices(ids, ids, classes, "the number of classes", "one_hot", negative=False)
    return constant((found[..., None] == ids.backend.xp.arange(classes)).astype(kind))


# ---- shared helpers ------------------------------------------------------------------------------------------------


def _axis_and_indices(x: Tensor, indices: Any, axis: int, name: str, negative: bool = True) -> tuple[int, Array]:
    """Return the axis as a non-negative number, and the checked indices along it, on the backend of x."""
    at = normalized_axis(axis, x.ndim, name)
    return at, integer_indices(indices, x, x.shape[at], f"the size of axis {at}", name, negative)


def _positions(x: Tensor, shape: tuple[int, ...], indices: Array, axis: int) -> tuple[Array, ...]:
    """Return the index tuple that has `indices` along `axis` and, within `shape`, every position along the others."""
    positions = list(x.backend.xp.ogrid[tuple([slice(n) for n in shape])])
    positions[axis] = indices
    return tuple(positions)


def _check_index_shape(x: Tensor, indices: Array, axis: int, name: str) -> None:
    """Raise ValueError if `indices` have more or fewer axes than x, or are larger along an axis other than `axis`."""
    if indices.ndim != x.ndim or any(
        a != axis and n > m for a, (n, m) in enumerate(zip(indices.shape, x.shape, strict=True))
    ):
        raise ValueError(
            f"{name}: index must have {x.ndim} axes like x, and be no larger except along axis {axis}; "
            f"got shape {indices.shape} for x of {x.shape}"
        )


def _part_read(indices: Array, source: Tensor, name: str) -> Tensor:
    """Return the leading part of `source` that has the shape of `indices`."""
    if source.ndim != indices.ndim or any(n < m for n, m in zip(source.shape, indices.shape, strict=True)):
        raise ValueError(
            f"{name}: source must be a number or at least as large as index, {indices.shape}; got shape {source.shape}"
        )
    return source if source.shape == indices.shape else source[tuple([slice(n) for n in indices.shape])]


def _on_same_backend(x: Tensor, source: TensorLike, name: str) -> Tensor:
    """Return `source` as a Tensor, which must be on the backend of x."""
    source = as_tensor(source, like=x)
    if source.backend is not x.backend:
        raise TypeError(
            f"{name}: x and source must be on one backend, got {x.backend.name} and {source.backend.name}; "
            f"move source with .to({x.backend.name!r})"
        )
    return source


def _is_number(source: Any) -> bool:
    return isinstance(source, (int, float, np.generic))
