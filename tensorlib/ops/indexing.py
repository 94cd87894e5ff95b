"""Selecting elements by position or condition, and the adjoint: adding elements at positions."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import Array, backend_of, namespace_of
from tensorlib.arrays.shapes import as_dtype, sum_dtype
from tensorlib.arrays.sharing import kept
from tensorlib.engine.errors import called_op
from tensorlib.engine.function import Function, as_tensor, constant, derivation, is_tensor
from tensorlib.ops.arguments import checked_element, operand

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["embedding", "getitem", "masked_fill", "where"]


class Getitem(Function):
    """y = x[index]  =>  dx is zero except that dx[index] += dy; an element selected twice gets both contributions.

    Keeps index.
    """

    def forward(self, x: Array, index: Any) -> Array:
        self.shape, self.index = x.shape, index
        try:
            return x[index]
        except (IndexError, ValueError) as error:  # backends differ in which, if index arrays don't broadcast
            raise IndexError(f"getitem: {error}; the Tensor has shape {x.shape}") from None

    def backward(self, dy: Array) -> Any:
        return ScatterAdd.run(dy, index=self.index, shape=self.shape)


class ScatterAdd(Function):
    """y = zeros(shape), y[index] += x  =>  dx = dy[index]. The adjoint of Getitem.

    Keeps index.
    Kernels: cuda/indexing.py.
    """

    def forward(self, x: Array, index: Any, shape: tuple[int, ...]) -> Array:
        self.index = index
        if _is_basic(index, masks=True):
            y = backend_of(x).xp.zeros(shape, x.dtype)
            y[index] = x  # slices, integers and masks select no element twice
            return y
        return as_dtype(scatter_add_formula(as_dtype(x, sum_dtype(x)), index, shape), x.dtype)

    def backward(self, dy: Array) -> Any:
        return dy[self.index]


@singledispatch
def scatter_add_formula(x: Array, index: Any, shape: tuple[int, ...]) -> Array:
    """Return zeros of this shape with x added at `index`, in which integers may repeat."""
    backend = backend_of(x)
    y = backend.xp.zeros(shape, x.dtype)
    backend.scatter_add(y, index, x)
    return y


def _is_basic(index: Any, masks: bool = False) -> bool:
    """Return whether an index has only slices, integers, None and Ellipsis, and, with `masks`, boolean masks."""
    return all(
        p is None or p is Ellipsis or isinstance(p, (int, slice, np.integer)) or (masks and _is_mask(p))
        for p in as_tuple(index)
    )


def as_tuple(given: Any) -> tuple[Any, ...]:
    """Return a tuple unchanged, and one index, or one option for all axes, as a tuple of length 1."""
    return given if isinstance(given, tuple) else (given,)


@derivation(Getitem)
def getitem(x: TensorLike, index: Any) -> Tensor:
    """Return x[index] for slices, integers, Ellipsis, None, boolean masks, and integer arrays, even with repetitions.

    Integers in lists and arrays on the host are checked. Integers already on a GPU are not fetched for a check, and
    wrap around. A boolean mask determines the shape of the result, so on a GPU the call waits for the mask.

    Raises IndexError for an integer out of range, or for too many indices.

    >>> tl.getitem([10, 20, 30], [0, 0, -1])
    Tensor([10 10 30], shape=(3,), dtype=int64)
    """
    x = as_tensor(x)
    return Getitem.apply(x, index=index if _is_basic(index) else _checked_index(index, x))


def _checked_index(index: Any, x: Tensor) -> Any:
    """Return an index with its lists, arrays and Tensors as checked arrays on the backend of x; arrays are copied."""
    parts = [p if _is_basic(p) else operand(p) if _is_array(p) else _host_array(p) for p in as_tuple(index)]
    literal = [not _is_array(p) for p in as_tuple(index)]
    taken = [p.ndim if _is_mask(p) else 0 if p is None or p is Ellipsis or isinstance(p, bool) else 1 for p in parts]
    if sum(taken) > x.ndim:
        raise IndexError(f"getitem: too many indices, {sum(taken)} axes are indexed; the Tensor has shape {x.shape}")
    ready: list[Any] = []
    axis = 0
    for part, axes, written in zip(parts, taken, literal, strict=True):
        if _is_mask(part):
            if part.shape != x.shape[axis : axis + axes]:
                raise IndexError(
                    f"getitem: a mask must have the sizes of the axes it indexes, {x.shape[axis : axis + axes]}; "
                    f"got shape {part.shape}"
                )
            ready.append(on_backend_of(x, part, "getitem", "a mask", written))
        elif not _is_basic(part):
            what = f"the size of axis {axis}"
            ready.append(integer_indices(part, x, x.shape[axis], what, "getitem", literal=written))
        elif isinstance(part, int | np.integer) and not isinstance(part, bool):  # with arrays, CuPy wraps it around
            check_range(np.asarray(part), x.shape[axis], f"the size of axis {axis}", "getitem", -x.shape[axis])
            ready.append(int(part))
        else:
            ready.append(part)
        axis += x.ndim - sum(taken) if part is Ellipsis else axes
    return tuple(ready) if isinstance(index, tuple) else ready[0]


def _host_array(part: Any) -> Any:
    """Return numbers or nested lists as an array on the host; an empty list becomes int64."""
    array = as_tensor(part).data
    return array if array.size else array.astype(np.int64)


def _is_array(part: Any) -> bool:
    return hasattr(part, "dtype") and not isinstance(part, np.generic)


def _is_mask(part: Any) -> bool:
    return hasattr(part, "dtype") and part.dtype.kind == "b"


# ---- indices from the caller -----------------------------------------------------------------------------------


def integer_indices(
    indices: Any, x: Tensor, size: int, what: str, name: str, negative: bool = True, literal: bool = False
) -> Array:
    """Return `indices` as an array of integers on the backend of the Tensor x, copied unless they are a Tensor.

    CuPy silently wraps indices out of range, whereas NumPy raises an error. So indices from the host are checked here:
    each must lie in [-size, size), or in [0, size) if `negative` is False. Indices already on a GPU are not fetched.
    Numbers and lists are constants of a captured step, and so are those from which an array was made, if `literal`.
    """
    literal = literal or not _is_array(indices)
    indices = operand(indices) if _is_array(indices) else _host_array(indices)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{name}: indices must be integers, got dtype {indices.dtype}")
    array = on_backend_of(x, indices, name, "indices", literal)
    host = array if isinstance(array, np.ndarray) else indices
    if isinstance(host, np.ndarray):
        check_range(host, size, what, name, -size if negative else 0)
    return array


def check_range(indices: np.ndarray, size: int, what: str, name: str, low: int = 0) -> None:
    """Raise IndexError, naming the first index outside [low, size) and its position, if there is one."""
    bad = (indices < low) | (indices >= size)
    if bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        place = f" at position {position}" if position else ""
        raise IndexError(f"{name}: indices must lie in [{low}, {size}), {what}; got {int(indices[position])}{place}")


def on_backend_of(x: Tensor, given: Any, name: str, what: str, literal: bool = False) -> Array:
    """Return `given` on the backend of x as an op may keep it: a Tensor's array, or a copy of the caller's.

    literal: whether it was made from numbers or a list, which are constants of a captured step.
    """
    tensor = is_tensor(given)
    home = backend_of(given.data if tensor else given)
    if home is not x.backend and (tensor or home.xp is not np):
        raise TypeError(
            f"{called_op(name)}: {what} must be on the backend of x, {x.backend.name}, got {home.name}; "
            f"move it with .to({x.backend.name!r})"
        )
    if tensor:
        return kept(given.data)
    return x.backend.constant(given) if literal else x.backend.asarray(given)  # the caller may change its array


class Embedding(Function):
    """y = weight[ids]: rows of a table  =>  dweight[v] = sum of dy over the positions where ids is v.

    Keeps ids.
    """

    fresh = True

    def forward(self, weight: Array, ids: Array) -> Array:
        self.rows, self.ids = weight.shape[0], ids
        return weight[ids]

    def backward(self, dy: Array) -> Any:
        return SumRows.run(dy, ids=self.ids, rows=self.rows)


class SumRows(Function):
    """y[v] = sum of the rows of x whose id is v  =>  dx = dy[ids]. The adjoint of Embedding.

    A stable sort brings equal ids together, and each group is summed: the order is fixed on every backend, so every
    run gives the same bits. Atomic additions would not guarantee this.

    Keeps ids.
    Kernels: numpy/indexing.py, numba/indexing.py, cuda/indexing.py.
    """

    def forward(self, x: Array, ids: Array, rows: int) -> Array:
        self.ids = ids
        return as_dtype(sum_rows_formula(as_dtype(x, sum_dtype(x)), ids, rows), x.dtype)

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


@derivation(Embedding)
def embedding(weight: TensorLike, ids: TensorLike) -> Tensor:
    """Return the rows of `weight` (V, D) whose numbers are `ids`, integers of any shape, as (*ids.shape, D).

    Ids on the host, where batches come from, are checked; ids already on a GPU are not fetched for a check.

    Raises IndexError for an id outside [0, V).

    >>> tl.embedding([[1.0, 2.0], [3.0, 4.0]], [1, 0, 1])
    Tensor([[3. 4.]
            [1. 2.]
            [3. 4.]], shape=(3, 2), dtype=float32)
    """
    weight = as_tensor(weight)
    if not weight.ndim:
        raise ValueError("embedding: weight must be a table (V, D) of rows, got a 0-d Tensor")
    rows = row_ids("embedding", weight, ids)
    return Embedding.apply(weight, ids=rows)


def row_ids(name: str, weight: Tensor, ids: Any) -> Any:
    """Return ids of rows of `weight` as integers on its backend, checked if they are on the host."""
    rows = _array_of(ids)
    if rows.size == 0 and isinstance(rows, np.ndarray):
        rows = rows.astype(np.int64)  # an empty list would be floating
    if rows.dtype.kind not in "iu":
        raise TypeError(f"{name}: token ids must be integers, got dtype {rows.dtype}")
    if isinstance(rows, np.ndarray):
        check_ids(rows, weight.shape[0], name)
        return rows if weight.backend.xp is np else weight.backend.asarray(rows)
    if backend_of(rows) is not weight.backend:
        raise TypeError(
            f"{name}: ids must be on the backend of weight, {weight.backend.name}, or on the host; "
            f"got {backend_of(rows).name}"
        )
    return rows


def _array_of(given: Any) -> Any:
    """Return the array of a Tensor, or a copy of anything else, because the caller may change it before backward."""
    return kept(given.array) if is_tensor(given) else as_tensor(given).array


def check_ids(ids: np.ndarray, vocabulary: int, name: str = "embedding") -> None:
    """Raise IndexError, naming the first id outside [0, vocabulary) and its position, if there is one."""
    bad = (ids < 0) | (ids >= vocabulary)
    if bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        raise IndexError(
            f"{name}: token id {int(ids[position])} at position {position} is outside the vocabulary of {vocabulary}"
            f"; ids run from 0 to {vocabulary - 1}: use a table of more rows, or the tokenizer that fits it"
        )


class Where(Function):
    """z = x where the condition holds, else y  =>  dx = dz where it holds, else 0; dy = 0 where it holds, else dz.

    Keeps condition.
    """

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


@derivation(Where)
def where(condition: TensorLike, x: TensorLike, y: TensorLike) -> Tensor:
    """Return x where `condition` is True and y elsewhere; all three broadcast. The condition gets no gradient.

    Raises TypeError if the condition is neither boolean nor integer.

    >>> tl.where([True, False], [1.0, 2.0], 0.0)
    Tensor([1. 0.], shape=(2,), dtype=float32)
    """
    like: Any = next((z for z in (x, y) if is_tensor(z)), None)
    given = operand(condition)
    if given.dtype.kind not in "biu":
        raise TypeError(
            f"{called_op('where')}: the condition must be boolean, got {given.dtype}; compare first, as in x > 0"
        )
    chosen = (
        _array_of(given)
        if like is None
        else on_backend_of(like, given, "where", "the condition", not _is_array(condition))
    )
    if not hasattr(x, "dtype") and not hasattr(y, "dtype"):
        x, y = [as_tensor(z, like=constant(chosen)) if isinstance(z, list | tuple) else z for z in (x, y)]
    if not hasattr(x, "dtype") and not hasattr(y, "dtype"):  # two numbers: as in Tensor(x), on this backend
        x = backend_of(chosen).asarray(x, "float32" if float in (type(x), type(y)) else None)
    _check_fits(x, y)
    _check_fits(y, x)
    return Where.apply(x, y, condition=chosen)


def _check_fits(number: Any, other: Any) -> None:
    """Raise ValueError for an integer that wraps around in the dtype of the other operand, as in NumPy's `where`."""
    if isinstance(number, int | np.integer) and hasattr(other, "dtype") and other.dtype.kind in "iu":
        checked_element(called_op("where"), number, other.dtype, "use x.astype('int64')")


@derivation(Where)
def masked_fill(x: TensorLike, mask: TensorLike, value: float) -> Tensor:
    """Return x with `value` where `mask` is True; no gradient flows there.

    >>> tl.masked_fill([1.0, 2.0], [True, False], 0.0)
    Tensor([0. 2.], shape=(2,), dtype=float32)
    """
    x = as_tensor(x)
    given = operand(mask)
    if given.dtype != bool:
        raise TypeError(f"masked_fill: mask must be boolean, got dtype {given.dtype}; compare first, as in mask != 0")
    return where(given, value, x)
