"""Backends: which library holds an array, and what differs between NumPy and CuPy.

A backend is a property of an array, never a global: ``backend_of(array)`` returns it. Formulas need only
``namespace_of(x)``, the module whose functions take ``x``: numpy, cupy, or tensorlib itself when ``x`` is a Tensor.
CuPy's backend is in cupy.py, which imports CuPy when a CuPy array or the name "cupy" is first used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache, singledispatch
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.philox import philox_bits
from tensorlib.arrays.random import refuse_recorded
from tensorlib.arrays.recorder import Recorder
from tensorlib.messages import shown

__all__ = ["Array", "Backend", "Pending", "backend_of", "get_backend", "namespace_of"]


class Backend:
    """NumPy: arrays in the memory of the host. Other backends override what differs.

    `name` is "numpy" or "cupy"; `xp` is the module with the functions of its arrays. Backends are singletons, so they
    are compared by identity. Get one by `get_backend(name)` or `backend_of(array)`.

    >>> backend = tl.get_backend("numpy")
    >>> backend.name, backend.xp.__name__
    ('numpy', 'numpy')
    >>> tl.zeros(3).backend is backend
    True
    """

    name = "numpy"
    xp: Any = np
    records = False  # whether `recorder` returns one

    def asarray(self, values: Any, dtype: Any = None) -> Array:
        """Return a *new* array of this backend holding `values` (numbers, nested lists or a host array)."""
        return np.array(values, dtype=dtype)

    def constant(self, values: np.ndarray) -> Array:
        """Return a new array with the values of one on the host that shapes and settings alone determine.

        Unlike `asarray`, it may be called while a step is recorded, whose replays then read these values.
        """
        return self.asarray(values)

    def to_numpy(self, array: Array) -> np.ndarray:
        """Return the array on the host: the same memory for NumPy; a copy, after waiting for the GPU, for CuPy."""
        return array  # type: ignore[return-value]  # the arrays of this backend are NumPy's

    def random_bits(self, key: int, draw: int, count: int, dtype: str = "uint16") -> Any:
        """Return `count` numbers of an unsigned dtype whose bits are all random: a pure function of (key, draw).

        They are those of Philox-4x64 (Salmon et al. 2011). `draw` is the third word of the counter, so every draw has
        2^128 blocks to itself. For a narrow dtype each word of 64 bits is cut into several numbers, the lowest bits
        first.
        """
        refuse_recorded(draw)
        return philox_bits(key, draw, 0, count, dtype)

    def fetch_later(self, array: Array) -> Pending:
        """Start copying an array to the host, and return without waiting; the values are those of this moment.

        Values of several calls are ready in the order of the calls. On NumPy the copy is made at once.

        >>> pending = tl.get_backend("numpy").fetch_later(np.ones(2))
        >>> pending.ready(), pending.value()
        (True, array([1., 1.]))
        """
        return Pending(np.array(self.to_numpy(array)))

    def recorder(self) -> Recorder:
        """Return a new `Recorder`, by which `capture` records what runs on this backend, if it `records`."""
        raise NotImplementedError(f"{self.name}: work on this backend is not recorded")

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        """Return arrays joined along an existing axis. Unlike `xp.concatenate`, it may be recorded for any number."""
        joined: Array = self.xp.concatenate(arrays, axis=axis)
        return joined

    def scatter_add(self, total: Array, index: Any, values: Array) -> None:
        """Add in place: ``total[index] += values``, where an index that occurs k times receives k contributions."""
        np.add.at(total, index, values)  # type: ignore[arg-type]  # the arrays of this backend are NumPy's

    def __repr__(self) -> str:
        return f"<backend {self.name}>"


class Pending:
    """Values on their way to the host; see `Backend.fetch_later`. Other backends override what differs."""

    def __init__(self, host: np.ndarray) -> None:
        self._host = host

    def ready(self) -> bool:
        """Return whether the values have arrived; does not wait."""
        return True

    def value(self) -> np.ndarray:
        """Return the values as an array that belongs to the caller, after waiting for them if necessary."""
        return self._host


_NUMPY = Backend()
_NAMES = {"numpy": "numpy", "cpu": "numpy", "cupy": "cupy", "cuda": "cupy", "gpu": "cupy"}
_LOADERS: dict[str, Callable[[], Backend]] = {}
_ON_FIRST_USE: dict[str, list[Callable[[], object]]] = {}


def register_backend(name: str, load: Callable[[], Backend]) -> None:
    """Register `load`, which opens the backend `name` on first use or raises RuntimeError if it is unavailable."""
    _LOADERS[name] = load
    _ON_FIRST_USE[name] = []


def on_first_use(name: str, action: Callable[[], object]) -> None:
    """Call `action` when the backend called `name` is first used, as kernels/ does to register its kernels."""
    _ON_FIRST_USE[name].append(action)


@cache
def _loaded(name: str) -> Backend:
    """Open the backend called `name`, once. Raises RuntimeError if its library or device is missing."""
    backend = _LOADERS[name]()
    for action in _ON_FIRST_USE[name]:
        action()
    return backend


def get_backend(name: str | Backend) -> Backend:
    """Return the backend called `name`: "numpy" (or "cpu"), "cupy" (or "cuda", "gpu"). A Backend is returned as is.

    Raises ValueError for any other name, RuntimeError if CuPy is not installed or no CUDA GPU answers.

    >>> tl.get_backend("cpu")
    <backend numpy>
    """
    if isinstance(name, Backend):
        return name
    if not isinstance(name, str) or name not in _NAMES:
        remedy = "; x.astype(dtype) converts to a dtype" if "float" in str(name) or "int" in str(name) else ""
        kind, _, number = str(name).partition(":")  # of PyTorch's devices, such as "cuda:0"
        if kind in _NAMES and number.isdecimal():
            which = "" if kind == "cpu" else f", and CUDA_VISIBLE_DEVICES={number} to choose the GPU"
            remedy = f"; use {kind!r}{which}"
        raise ValueError(f"backend: must be one of {', '.join(_NAMES)}; got {shown(name)}{remedy}")
    return _NUMPY if _NAMES[name] == "numpy" else _loaded(_NAMES[name])


@singledispatch
def backend_of(array: Any) -> Backend:
    """Return the backend that a raw array of NumPy or CuPy belongs to. Further array types register themselves here.

    Raises TypeError for anything else; a Tensor has the property ``backend``.

    >>> tl.backend_of(np.zeros(3))
    <backend numpy>
    """
    if type(array).__module__.partition(".")[0] == "cupy":
        return _loaded("cupy")
    kind = type(array)
    if not hasattr(array, "__dlpack__"):
        raise TypeError(f"backend_of: needs an array of NumPy or CuPy, got {kind.__name__}")
    raise TypeError(
        f"backend_of: needs an array of NumPy or CuPy, got {kind.__module__.partition('.')[0]}.{kind.__name__}; "
        "tl.from_dlpack(x) makes it a Tensor"
    )


@backend_of.register(np.ndarray)
@backend_of.register(np.generic)
def _(array: Any) -> Backend:
    return _NUMPY


def is_backend_array(array: Any) -> bool:
    """Return whether `array` is a raw array of NumPy or CuPy, or of a type that registered itself."""
    kind = type(array)
    return kind.__module__.partition(".")[0] == "cupy" or backend_of.dispatch(kind) is not backend_of.dispatch(object)


def namespace_of(x: Any) -> Any:
    """Return the module whose functions take `x`: numpy, cupy, or tensorlib when `x` is a Tensor.

    It lets one formula serve raw arrays in ordinary training and Tensors under ``create_graph``.

    >>> tl.namespace_of(np.zeros(3)).__name__, tl.namespace_of(tl.zeros(3)).__name__
    ('numpy', 'tensorlib')
    """
    if isinstance(x, (np.ndarray, np.generic)):  # a tuple, because a union would be created again for each op
        return np
    module = getattr(x, "__array_namespace__", None)
    if module is not None:
        return module()
    return sys.modules[type(x).__module__.partition(".")[0]]
