"""Tensors made from nothing but numbers. They are constants: none has a history."""

from __future__ import annotations

import math
from typing import Any

from tensorlib.arrays.backend import Backend, get_backend
from tensorlib.engine.function import as_tensor
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

__all__ = ["arange", "eye", "full", "full_like", "linspace", "ones", "ones_like", "zeros", "zeros_like"]


def full(shape: Shape, fill_value: float, dtype: Any = "float32", backend: str | Backend = "numpy") -> Any:
    """Return a Tensor of this shape with every element `fill_value`."""
    return _filled("full", shape, fill_value, dtype, backend)


def zeros(shape: Shape, dtype: Any = "float32", backend: str | Backend = "numpy") -> Any:
    """Return a Tensor of zeros."""
    return _filled("zeros", shape, 0, dtype, backend)


def ones(shape: Shape, dtype: Any = "float32", backend: str | Backend = "numpy") -> Any:
    """Return a Tensor of ones."""
    return _filled("ones", shape, 1, dtype, backend)


def full_like(x: Any, fill_value: float, dtype: Any = None, backend: str | Backend | None = None) -> Any:
    """Return a Tensor of `fill_value` with the shape of x, and its dtype and backend if no other is given."""
    return _alike("full_like", x, fill_value, dtype, backend)


def zeros_like(x: Any, dtype: Any = None, backend: str | Backend | None = None) -> Any:
    """Return zeros with the shape of x, and its dtype and backend if no other is given."""
    return _alike("zeros_like", x, 0, dtype, backend)


def ones_like(x: Any, dtype: Any = None, backend: str | Backend | None = None) -> Any:
    """Return ones with the shape of x, and its dtype and backend if no other is given."""
    return _alike("ones_like", x, 1, dtype, backend)


def _filled(name: str, shape: Any, value: Any, dtype: Any, backend: str | Backend) -> Any:
    sizes, kind = checked_shape(name, shape), checked_dtype(name, dtype)
    return as_tensor(get_backend(backend).xp.full(sizes, checked_element(name, value, kind), kind))


def _alike(name: str, x: Any, value: Any, dtype: Any, backend: str | Backend | None) -> Any:
    x = as_tensor(x)
    kind, home = (x.dtype if dtype is None else dtype), (x.backend if backend is None else backend)
    return _filled(name, x.shape, value, kind, home)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: Any = None,
    backend: str | Backend = "numpy",
) -> Any:
    """Return start, start + step, ... up to but without `stop`; ``arange(n)`` counts from 0.

    Integers give int64, as NumPy's do; a Python float among them gives float32. Computed in float64, so that a float32
    result is the exact one rounded.
    """
    first, last = (0, start) if stop is None else (start, stop)
    numbers = {"start": checked_real("arange", "start", first), "stop": checked_real("arange", "stop", last)}
    numbers["step"] = checked_real("arange", "step", step)
    if step == 0 or not all(map(math.isfinite, numbers.values())):
        given = ", ".join(f"{k}={v}" for k, v in numbers.items())
        raise ValueError(f"arange: needs finite numbers and a step that is not 0, got {given}")
    whole = all(isinstance(n, int) for n in numbers.values())
    kind = checked_dtype("arange", ("int64" if whole else "float32") if dtype is None else dtype)
    xp = get_backend(backend).xp
    return as_tensor(xp.arange(*numbers.values(), dtype="int64" if whole else "float64").astype(kind))


def linspace(
    start: float,
    stop: float,
    num: int = 50,
    endpoint: bool = True,
    dtype: Any = "float32",
    backend: str | Backend = "numpy",
) -> Any:
    """Return `num` numbers evenly spread from `start` to `stop`, which is the last of them unless endpoint=False."""
    check_flag("linspace", "endpoint", endpoint)
    ends = [checked_real("linspace", "start", start), checked_real("linspace", "stop", stop)]
    count, kind = checked_size("linspace", "num", num), checked_dtype("linspace", dtype)
    return as_tensor(get_backend(backend).xp.linspace(*ends, count, endpoint=endpoint).astype(kind))


def eye(n: int, m: int | None = None, k: int = 0, dtype: Any = "float32", backend: str | Backend = "numpy") -> Any:
    """Return a matrix (n, m), by default square, with ones on diagonal number k (above the main one if positive)."""
    sizes, kind = checked_shape("eye", (n, n if m is None else m)), checked_dtype("eye", dtype)
    return as_tensor(get_backend(backend).xp.eye(*sizes, k=checked_integer("eye", "k", k), dtype=kind))
