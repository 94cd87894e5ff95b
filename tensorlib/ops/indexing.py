"""Picking elements by position, choosing by condition, and the adjoint: adding elements at positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlib.backend import Array, backend_of, namespace_of
from tensorlib.function import Function, as_tensor
from tensorlib.ops.common import normal_axes

__all__ = ["embedding", "getitem", "masked_fill", "take_along_axis", "where"]


class Getitem(Function):
    """y = x[index]  =>  dx is zero but for dx[index] += dy; an element picked twice gets both contributions."""

    def forward(self, x: Array, index: Any) -> Array:
        self.shape, self.index = x.shape, index
        try:
            return x[index]
        except IndexError as error:
            raise IndexError(f"getitem: {error}; the Tensor has shape {x.shape}") from None

    def backward(self, dy: Array) -> Any:
        return ScatterAdd.run(dy, index=self.index, shape=self.shape)


class ScatterAdd(Function):
    """y = zeros(shape), y[index] += x. The adjoint of Getitem, and so  dx = dy[index]."""

    def forward(self, x: Array, index: Any, shape: tuple[int, ...]) -> Array:
        self.index = index
        backend = backend_of(x)
        y = backend.xp.zeros(shape, x.dtype)
        if _is_basic(index):
            y[index] = x  # slices and integers pick no element twice
        else:
            backend.scatter_add(y, index, x)
        return y

    def backward(self, dy: Array) -> Any:
        return dy[self.index]


def _is_basic(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or isinstance(p, int | slice | np.integer) for p in parts)


def _raw(index: Any) -> Any:
    """Return an index with arrays for Tensors, and copies of arrays, which the caller may change before backward."""
    if isinstance(index, tuple):
        return tuple(_raw(i) for i in index)
    if hasattr(index, "requires_grad"):
        return index.data
    return index.copy() if hasattr(index, "dtype") or isinstance(index, list) else index


def getitem(x: Any, index: Any) -> Any:
    """Return x[index]: slices, integers, ellipsis, None, boolean masks, integer arrays (repetitions count)."""
    return Getitem.apply(x, index=_raw(index))


class Embedding(Function):
    """y = weight[ids]: rows of a table  =>  dweight[v] = sum of dy over the places where ids is v."""

    def forward(self, weight: Array, ids: Array) -> Array:
        self.rows, self.ids = weight.shape[0], ids
        return weight[ids]

    def backward(self, dy: Array) -> Any:
        return SumRows.run(dy, ids=self.ids, rows=self.rows)


class SumRows(Function):
    """y[v] = sum of the rows of x whose id is v. The adjoint of Embedding, and so  dx = dy[ids].

    Equal ids are brought together by a stable sort and summed in stretches: on every backend in a fixed order, so the
    same bits on every run, where adding atomically would not give them.
    """

    def forward(self, x: Array, ids: Array, rows: int) -> Array:
        self.ids = ids
        xp = namespace_of(x)
        flat, width = ids.reshape(-1), x.shape[ids.ndim :]
        y = xp.zeros((rows, *width), x.dtype)
        if flat.size:
            order = xp.argsort(flat, kind="stable")
            ordered = flat[order]
            starts = xp.flatnonzero(xp.concatenate((xp.ones(1, bool), ordered[1:] != ordered[:-1])))
            y[ordered[starts]] = xp.add.reduceat(x.reshape(flat.size, *width)[order], starts, axis=0)
        return y

    def backward(self, dy: Array) -> Any:
        return Embedding.run(dy, ids=self.ids)


def embedding(weight: Any, ids: Any) -> Any:
    """Return the rows of `weight` (V, D) numbered by `ids`, integers of any shape: shape (*ids.shape, D).

    Ids outside [0, V) raise IndexError. The check needs the ids on the host, where batches come from; ids that lie on
    a GPU already are not fetched back for it.
    """
    weight = as_tensor(weight)
    ids = ids.data if hasattr(ids, "requires_grad") else ids.copy() if hasattr(ids, "dtype") else np.asarray(ids)
    if ids.size == 0 and isinstance(ids, np.ndarray):
        ids = ids.astype(np.int64)  # an empty list has no dtype to speak of
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding: token ids must be integers, got dtype {ids.dtype}")
    if isinstance(ids, np.ndarray):
        check_ids(ids, weight.shape[0])
        ids = ids if weight.backend.xp is np else weight.backend.asarray(ids)
    return Embedding.apply(weight, ids=ids)


def check_ids(ids: np.ndarray, vocabulary: int) -> None:
    """Raise IndexError naming the first id outside [0, vocabulary) and its position."""
    bad = (ids < 0) | (ids >= vocabulary)
    if bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        raise IndexError(
            f"embedding: token id {int(ids[position])} at position {position} is outside the vocabulary of {vocabulary}"
        )


class TakeAlongAxis(Function):
    """y[.., i, ..] = x[.., indices[.., i, ..], ..]  =>  dx is dy added back at these places."""

    def forward(self, x: Array, indices: Array, axis: int) -> Array:
        self.shape, self.indices, self.axis = x.shape, indices, axis
        return namespace_of(x).take_along_axis(x, indices, axis=axis)

    def backward(self, dy: Array) -> Any:
        xp = backend_of(self.indices).xp
        places = list(xp.ogrid[tuple([slice(n) for n in self.shape])])
        places[self.axis] = self.indices
        return ScatterAdd.run(dy, index=tuple(places), shape=self.shape)


def take_along_axis(x: Any, indices: Any, axis: int) -> Any:
    """Return the elements of x at `indices` along `axis`; other axes as they are (torch.gather, sizes matching)."""
    x = as_tensor(x)
    indices = indices.data if hasattr(indices, "requires_grad") else x.backend.asarray(indices)
    (axis,) = normal_axes((axis,), x.ndim, "take_along_axis")
    return TakeAlongAxis.apply(x, indices=indices, axis=axis)


class Where(Function):
    """z = x where the condition holds, else y  =>  dz goes to the one that was chosen."""

    broadcasts = True

    def forward(self, x: Array, y: Array, condition: Array) -> Array:
        self.condition = condition
        return namespace_of(condition).where(condition, x, y)

    def backward(self, dz: Array) -> Any:
        xp = namespace_of(dz)
        return (
            xp.where(self.condition, dz, 0) if self.needs[0] else None,
            xp.where(self.condition, 0, dz) if self.needs[1] else None,
        )


def where(condition: Any, x: Any, y: Any) -> Any:
    """Return x where `condition` is True and y elsewhere; all three broadcast. The condition gets no gradient."""
    if hasattr(condition, "requires_grad"):
        condition = condition.data
    elif hasattr(condition, "dtype"):
        condition = condition.copy()  # the caller may change it before backward
    like = next((z for z in (x, y) if hasattr(z, "requires_grad")), None)
    if not hasattr(condition, "dtype"):
        condition = np.asarray(condition) if like is None else like.backend.asarray(condition)
    if not hasattr(x, "dtype") and not hasattr(y, "dtype"):  # two numbers: of float32 as in Tensor(x), on the backend
        x = backend_of(condition).asarray(x, "float32" if float in (type(x), type(y)) else None)
    return Where.apply(x, y, condition=condition)


def masked_fill(x: Any, mask: Any, value: float) -> Any:
    """Return x with `value` where `mask` is True; no gradient flows there."""
    return where(mask, value, x)
