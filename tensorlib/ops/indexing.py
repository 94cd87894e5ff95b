"""Picking elements by position, choosing by condition, and the adjoint: adding elements at positions."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np

from tensorlib.arrays.backend import Array, backend_of, namespace_of
from tensorlib.engine.errors import called_op
from tensorlib.engine.function import Function, as_tensor

__all__ = ["embedding", "getitem", "masked_fill", "where"]


class Getitem(Function):
    """y = x[index]  =>  dx is zero but for dx[index] += dy; an element picked twice gets both contributions."""

    def forward(self, x: Array, index: Any) -> Array:
        self.shape, self.index = x.shape, index
        try:
            return x[index]
        except (IndexError, ValueError) as error:  # either, by backend, where index arrays don't broadcast
            raise IndexError(f"getitem: {error}; the Tensor has shape {x.shape}") from None

    def backward(self, dy: Array) -> Any:
        return ScatterAdd.run(dy, index=self.index, shape=self.shape)


class ScatterAdd(Function):
    """y = zeros(shape), y[index] += x. The adjoint of Getitem, and so  dx = dy[index]."""

    def forward(self, x: Array, index: Any, shape: tuple[int, ...]) -> Array:
        self.index = index
        backend = backend_of(x)
        y = backend.xp.zeros(shape, x.dtype)
        if _is_basic(index, masks=True):
            y[index] = x  # slices, integers and masks pick no element twice
        else:
            backend.scatter_add(y, index, x)
        return y

    def backward(self, dy: Array) -> Any:
        return dy[self.index]


def _is_basic(index: Any, masks: bool = False) -> bool:
    """Tell whether an index consists of slices and integers alone (and, if allowed, of boolean masks)."""
    return all(
        p is None or p is Ellipsis or isinstance(p, (int, slice, np.integer)) or (masks and _is_mask(p))
        for p in as_tuple(index)
    )


def as_tuple(given: Any) -> tuple[Any, ...]:
    """Return one index, or one option for all axes, as a tuple of one."""
    return given if isinstance(given, tuple) else (given,)


def getitem(x: Any, index: Any) -> Any:
    """Return x[index]: slices, integers, ellipsis, None, boolean masks, integer arrays (repetitions count).

    Integers in lists and arrays of the host are checked; those that lie on a GPU are not fetched for it, and wrap
    around there. A boolean mask decides about the shape of the result: on a GPU it is waited for.
    """
    x = as_tensor(x)
    return Getitem.apply(x, index=index if _is_basic(index) else _ready(index, x))


def _ready(index: Any, x: Any) -> Any:
    """Return an index whose lists, arrays and Tensors are arrays beside x, checked and out of the caller's reach."""
    parts = [p if _is_basic(p) or _is_array(p) else _listed(p) for p in as_tuple(index)]
    taken = [p.ndim if _is_mask(p) else 0 if p is None or p is Ellipsis or isinstance(p, bool) else 1 for p in parts]
    if sum(taken) > x.ndim:
        raise IndexError(f"getitem: too many indices, {sum(taken)} axes are indexed; the Tensor has shape {x.shape}")
    ready, axis = [], 0
    for part, axes in zip(parts, taken, strict=True):
        if _is_mask(part):
            if part.shape != x.shape[axis : axis + axes]:
                raise IndexError(
                    f"getitem: a mask must have the sizes of the axes it stands for, {x.shape[axis : axis + axes]}; "
                    f"got shape {part.shape}"
                )
            ready.append(on_backend_of(x, part, "getitem", "a mask"))
        elif not _is_basic(part):
            ready.append(integer_indices(part, x, x.shape[axis], f"the size of axis {axis}", "getitem"))
        elif isinstance(part, int | np.integer) and not isinstance(part, bool):  # beside arrays CuPy wraps it as well
            check_range(np.asarray(part), x.shape[axis], f"the size of axis {axis}", "getitem", -x.shape[axis])
            ready.append(int(part))
        else:
            ready.append(part)
        axis += x.ndim - sum(taken) if part is Ellipsis else axes
    return tuple(ready) if isinstance(index, tuple) else ready[0]


def _listed(part: Any) -> np.ndarray:
    """Return numbers or nested lists as an array of the host; an empty list has no dtype to speak of."""
    array = as_tensor(part).data
    return array if array.size else array.astype(np.int64)


def _is_array(part: Any) -> bool:
    return hasattr(part, "dtype") and not isinstance(part, np.generic)


def _is_mask(part: Any) -> bool:
    return hasattr(part, "dtype") and part.dtype.kind == "b"


# ---- indices from the caller -----------------------------------------------------------------------------------


def integer_indices(indices: Any, x: Any, size: int, what: str, name: str, negative: bool = True) -> Array:
    """Return `indices` as an array of integers on the backend of the Tensor x, a copy unless they are a Tensor.

    CuPy wraps what is out of range silently, where NumPy raises. So what comes from the host is checked here: each
    must lie in [-size, size), or in [0, size) where `negative` is False. What lies on a GPU is not fetched for it.
    """
    indices = indices if _is_array(indices) else _listed(indices)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{name}: indices must be integers, got dtype {indices.dtype}")
    array = on_backend_of(x, indices, name, "indices")
    host = array if isinstance(array, np.ndarray) else indices
    if isinstance(host, np.ndarray):
        check_range(host, size, what, name, -size if negative else 0)
    return array


def check_range(indices: np.ndarray, size: int, what: str, name: str, low: int = 0) -> None:
    """Raise IndexError naming the first index outside [low, size), and its position."""
    bad = (indices < low) | (indices >= size)
    if bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        place = f" at position {position}" if position else ""
        raise IndexError(f"{name}: indices must lie in [{low}, {size}), {what}; got {int(indices[position])}{place}")


def on_backend_of(x: Any, given: Any, name: str, what: str) -> Array:
    """Return the array of a Tensor, which must be beside x, or a copy there of an array, which may be on the host."""
    tensor = hasattr(given, "requires_grad")
    home = backend_of(given.data if tensor else given)
    if home is not x.backend and (tensor or home.xp is not np):
        raise TypeError(
            f"{called_op(name)}: {what} must be on one backend with x, {x.backend.name}, got {home.name}; "
            f"move with .to({x.backend.name!r})"
        )
    return given.data if tensor else x.backend.asarray(given)  # the caller may change an array before backward


class Embedding(Function):
    """y = weight[ids]: rows of a table  =>  dweight[v] = sum of dy over the places where ids is v."""

    fresh = True

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
        return sum_rows_formula(x, ids, rows)

    def backward(self, dy: Array) -> Any:
        return Embedding.run(dy, ids=self.ids)


@singledispatch
def sum_rows_formula(x: Array, ids: Array, rows: int) -> Array:
    xp = namespace_of(x)
    flat, width = ids.reshape(-1), x.shape[ids.ndim :]
    y = xp.zeros((rows, *width), x.dtype)
    if flat.size:
        order = xp.argsort(flat, kind="stable")
        ordered = flat[order]
        starts = xp.flatnonzero(xp.concatenate((xp.ones(1, bool), ordered[1:] != ordered[:-1])))
        y[ordered[starts]] = xp.add.reduceat(x.reshape(flat.size, *width)[order], starts, axis=0)
    return y


def embedding(weight: Any, ids: Any) -> Any:
    """Return the rows of `weight` (V, D) numbered by `ids`, integers of any shape: shape (*ids.shape, D).

    Ids outside [0, V) raise IndexError. The check needs the ids on the host, where batches come from; ids that lie on
    a GPU already are not fetched back for it.
    """
    weight = as_tensor(weight)
    ids = ids.data if hasattr(ids, "requires_grad") else ids.copy() if hasattr(ids, "dtype") else as_tensor(ids).data
    if ids.size == 0 and isinstance(ids, np.ndarray):
        ids = ids.astype(np.int64)  # an empty list has no dtype to speak of
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding: token ids must be integers, got dtype {ids.dtype}")
    if not weight.ndim:
        raise ValueError("embedding: weight must be a table (V, D) of rows, got a 0-d Tensor")
    if isinstance(ids, np.ndarray):
        check_ids(ids, weight.shape[0])
        ids = ids if weight.backend.xp is np else weight.backend.asarray(ids)
    elif backend_of(ids) is not weight.backend:
        raise TypeError(
            f"embedding: ids must be on the backend of weight, {weight.backend.name}, or on the host; "
            f"got {backend_of(ids).name}"
        )
    return Embedding.apply(weight, ids=ids)


def check_ids(ids: np.ndarray, vocabulary: int) -> None:
    """Raise IndexError naming the first id outside [0, vocabulary) and its position."""
    bad = (ids < 0) | (ids >= vocabulary)
    if bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        raise IndexError(
            f"embedding: token id {int(ids[position])} at position {position} is outside the vocabulary of {vocabulary}"
        )


class Where(Function):
    """z = x where the condition holds, else y  =>  dz goes to the one that was chosen."""

    broadcasts = True

    def forward(self, x: Array, y: Array, condition: Array) -> Array:
        self.condition = condition
        try:
            return namespace_of(condition).where(condition, x, y)
        except ValueError:
            shapes = " and ".join([str(np.shape(z) if np.isscalar(z) else z.shape) for z in (condition, x, y)])
            raise ValueError(f"where: condition, x and y must broadcast, got shapes {shapes}") from None

    def backward(self, dz: Array) -> Any:
        xp = namespace_of(dz)
        return (
            xp.where(self.condition, dz, 0) if self.needs[0] else None,
            xp.where(self.condition, 0, dz) if self.needs[1] else None,
        )


def where(condition: Any, x: Any, y: Any) -> Any:
    """Return x where `condition` is True and y elsewhere; all three broadcast. The condition gets no gradient."""
    like = next((z for z in (x, y) if hasattr(z, "requires_grad")), None)
    if not _is_array(condition):
        condition = as_tensor(condition).data
    if condition.dtype.kind not in "biu":
        raise TypeError(
            f"{called_op('where')}: the condition must be boolean, got {condition.dtype}; compare first, as in x > 0"
        )
    if like is not None:
        condition = on_backend_of(like, condition, "where", "the condition")
    elif hasattr(condition, "requires_grad"):
        condition = condition.data
    else:
        condition = condition.copy()
    if not hasattr(x, "dtype") and not hasattr(y, "dtype"):  # two numbers: of float32 as in Tensor(x), on the backend
        x = backend_of(condition).asarray(x, "float32" if float in (type(x), type(y)) else None)
    return Where.apply(x, y, condition=condition)


def masked_fill(x: Any, mask: Any, value: float) -> Any:
    """Return x with `value` where `mask` is True; no gradient flows there."""
    x, mask = as_tensor(x), mask if hasattr(mask, "dtype") else as_tensor(mask).data
    if mask.dtype != bool:
        raise TypeError(f"masked_fill: mask must be boolean, got dtype {mask.dtype}; compare first, as in mask != 0")
    return where(mask, value, x)
