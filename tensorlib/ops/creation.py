"""Tensors created from numbers alone. They are constants without history."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tensorlib.arrays.backend import Backend, get_backend
from tensorlib.engine.function import as_tensor, constant
from tensorlib.ops.arguments import (
    Shape,
    check_flag,
    checked_dtype,
    checked_element,
    checked_integer,
    checked_real,
    checked_shape,
    checked_size,
)

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["arange", "eye", "full", "full_like", "linspace", "ones", "ones_like", "zeros", "zeros_like"]


def full(shape: Shape, fill_value: float, dtype: DTypeLike = "float32", backend: str | Backend = "numpy") -> Tensor:
    """Return a Tensor of this shape in which every element is `fill_value`.

    Raises ValueError if `dtype` cannot hold `fill_value`.

    >>> tl.full((2, 2), 7.5)
    Tensor([[7.5 7.5]
            [7.5 7.5]], shape=(2, 2), dtype=float32)
    """
    return _filled("full", shape, fill_value, dtype, backend)


def zeros(shape: Shape, dtype: DTypeLike = "float32", backend: str | Backend = "numpy") -> Tensor:
    """Return a Tensor of zeros; `shape` is one integer or a tuple of integers.

    >>> tl.zeros((2, 3), "int64")
    Tensor([[0 0 0]
            [0 0 0]], shape=(2, 3), dtype=int64)
    """
    return _filled("zeros", shape, 0, dtype, backend)


def ones(shape: Shape, dtype: DTypeLike = "float32", backend: str | Backend = "numpy") -> Tensor:
    """Return a Tensor of ones; `shape` is one integer or a tuple of integers.

    >>> tl.ones(3)
    Tensor([1. 1. 1.], shape=(3,), dtype=float32)
    """
    return _filled("ones", shape, 1, dtype, backend)


def full_like(
    x: TensorLike, fill_value: float, dtype: DTypeLike | None = None, backend: str | Backend | None = None
) -> Tensor:
    """Return a Tensor filled with `fill_value`; shape, and by default dtype and backend, are those of x.

    Raises ValueError if the dtype cannot hold `fill_value`.

    >>> tl.full_like([[1.0, 2.0]], 7.5)
    Tensor([[7.5 7.5]], shape=(1, 2), dtype=float32)
    """
    return _alike("full_like", x, fill_value, dtype, backend)


def zeros_like(x: TensorLike, dtype: DTypeLike | None = None, backend: str | Backend | None = None) -> Tensor:
    """Return a Tensor of zeros; shape, and by default dtype and backend, are those of x.

    >>> tl.zeros_like([[1, 2]])
    Tensor([[0 0]], shape=(1, 2), dtype=int64)
    """
    return _alike("zeros_like", x, 0, dtype, backend)


def ones_like(x: TensorLike, dtype: DTypeLike | None = None, backend: str | Backend | None = None) -> Tensor:
    """Return a Tensor of ones; shape, and by default dtype and backend, are those of x.

    >>> tl.ones_like([[1.0, 2.0]])
    Tensor([[1. 1.]], shape=(1, 2), dtype=float32)
    """
    return _alike("ones_like", x, 1, dtype, backend)


def _filled(name: str, shape: Shape, value: float, dtype: DTypeLike, backend: str | Backend) -> Tensor:
    sizes, kind = checked_shape(name, shape), checked_dtype(name, dtype)
    return constant(get_backend(backend).xp.full(sizes, checked_element(name, value, kind), kind))


def _alike(name: str, x: TensorLike, value: float, dtype: DTypeLike | None, backend: str | Backend | None) -> Tensor:
    x = as_tensor(x)
    kind, home = (x.dtype if dtype is None else dtype), (x.backend if backend is None else backend)
    return _filled(name, x.shape, value, kind, home)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: DTypeLike | None = None,
    backend: str | Backend = "numpy",
) -> Tensor:
    """Return start, start + step, ... up to but excluding `stop`; ``arange(n)`` counts from 0.

    Integers give int64, as in NumPy. If a number is a float, the result is float32, rounded from float64.
    Raises ValueError if a number is not finite, the step is 0, or an integer `dtype` cannot hold a number.

    >>> tl.arange(1, 10, 3)
    Tensor([1 4 7], shape=(3,), dtype=int64)
    >>> tl.arange(0, 1, 0.25)
    Tensor([0.   0.25 0.5  0.75], shape=(4,), dtype=float32)
    """
    first, last = (0, start) if stop is None else (start, stop)
    numbers = {"start": checked_real("arange", "start", first), "stop": checked_real("arange", "stop", last)}
    numbers["step"] = checked_real("arange", "step", step)
    if step == 0 or not all(map(math.isfinite, numbers.values())):
        given = ", ".join(f"{k}={v}" for k, v in numbers.items())
        raise ValueError(f"arange: needs finite numbers and a step that is not 0, got {given}")
    whole = all(isinstance(n, int) for n in numbers.values())
    kind = checked_dtype("arange", ("int64" if whole else "float32") if dtype is None else dtype)
    if kind.kind in "biu" and (count := math.ceil((numbers["stop"] - numbers["start"]) / step)) > 0:
        _check_fit("arange", kind, *[numbers["start"] + i * numbers["step"] for i in {0, min(1, count - 1), count - 1}])
    home = get_backend(backend)
    if whole:
        exact = "uint64" if kind == "uint64" and step > 0 else "int64"
        return constant(home.xp.arange(*numbers.values(), dtype=exact).astype(kind))
    return constant(home.constant(np.arange(*numbers.values(), dtype="float64").astype(kind)))  # as in `linspace`


def _check_fit(name: str, dtype: np.dtype, *values: float) -> None:
    """Raise ValueError unless an integer or boolean dtype can hold these numbers."""
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    for value in values:
        if value != int(value) or not low <= value <= high:
            raise ValueError(f"{name}: dtype {dtype} cannot hold {value}; pass another dtype")


def linspace(
    start: float,
    stop: float,
    num: int = 50,
    endpoint: bool = True,
    dtype: DTypeLike = "float32",
    backend: str | Backend = "numpy",
) -> Tensor:
    """Return `num` evenly spaced numbers from `start` to `stop`; ``endpoint=False`` excludes `stop`.

    For an integer `dtype` they are rounded down, as in NumPy. Raises ValueError if it cannot hold them.

    >>> tl.linspace(0, 1, 5)
    Tensor([0.   0.25 0.5  0.75 1.  ], shape=(5,), dtype=float32)
    """
    check_flag("linspace", "endpoint", endpoint)
    ends = [checked_real("linspace", "start", start), checked_real("linspace", "stop", stop)]
    count, kind = checked_size("linspace", "num", num), checked_dtype("linspace", dtype)
    if not all(map(math.isfinite, ends)):
        raise ValueError(f"linspace: start and stop must be finite, got {ends[0]} and {ends[1]}")
    # On the host, because a GPU rounds start + i step once instead of twice, which may change the last bit.
    numbers = np.linspace(ends[0], ends[1], count, endpoint=endpoint)
    if kind.kind in "iu":
        _check_fit("linspace", kind, *map(math.floor, ends))
        numbers = np.floor(numbers)
    return constant(get_backend(backend).constant(numbers.astype(kind)))


def eye(
    n: int, m: int | None = None, k: int = 0, dtype: DTypeLike = "float32", backend: str | Backend = "numpy"
) -> Tensor:
    """Return a matrix (n, m), by default square, with ones on diagonal k, which is above the main diagonal if k > 0.

    >>> tl.eye(2, 3, k=1)
    Tensor([[0. 1. 0.]
            [0. 0. 1.]], shape=(2, 3), dtype=float32)
    """
    sizes, kind = checked_shape("eye", (n, n if m is None else m)), checked_dtype("eye", dtype)
    return constant(get_backend(backend).xp.eye(*sizes, k=checked_integer("eye", "k", k), dtype=kind))
