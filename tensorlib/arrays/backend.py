"""Backends: which library holds an array, and what differs between NumPy and CuPy.

A backend is a property of an array, never a global: ``backend_of(array)`` asks the array. Formulas need only
``namespace_of(x)``, the module whose functions take ``x``: numpy, cupy, or tensorlib itself when ``x`` is a Tensor.
CuPy's backend is in cupy.py, which is imported when a CuPy array or the name "cupy" first comes up.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import cache, singledispatch
from importlib import import_module
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.messages import shown

__all__ = ["Array", "Backend", "backend_of", "get_backend", "namespace_of"]


class Backend:
    """NumPy: arrays in the memory of the host. Other backends override what differs."""

    name = "numpy"
    xp: Any = np

    def asarray(self, values: Any, dtype: Any = None) -> Array:
        """Return a *new* array of this backend holding `values` (numbers, nested lists or a host array)."""
        return np.array(values, dtype=dtype)

    def to_numpy(self, array: Array) -> np.ndarray:
        """Return the array on the host: the same memory on NumPy, a copy on a GPU, which waits for it."""
        return array

    def random_bits(self, key: int, draw: int, count: int, dtype: str = "uint16") -> Any:
        """Return `count` random numbers of an unsigned dtype, all bits random: a pure function of (key, draw).

        Philox-4x64 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The draw's number is the
        third word of the counter, so every draw has 2^128 blocks of its own. For a narrow dtype each word of 64 bits
        is cut into several numbers, the lowest bits first.
        """
        return philox_bits(key, draw, 0, count, dtype)

    def scatter_add(self, total: Array, index: Any, values: Array) -> None:
        """Add in place: ``total[index] += values``, where an index that occurs k times receives k contributions."""
        np.add.at(total, index, values)

    def __repr__(self) -> str:
        return f"<backend {self.name}>"


def philox_bits(key: int, draw: int, start: int, count: int, dtype: str = "uint16") -> np.ndarray:
    """Return the random numbers `start` to `start` + `count` of a draw, on the host; see `Backend.random_bits`."""
    in_block = 32 // np.dtype(dtype).itemsize  # a step of the counter makes 32 bytes
    block, passed = divmod(start, in_block)
    words = -(-(passed + count) * np.dtype(dtype).itemsize // 8)
    # Setting the state of a generator takes a tenth of the time of creating one.
    state = {"counter": _words((block, 0, draw, 0)), "key": _words((key & _WORD, key >> 64))}
    try:
        philox = _SCRATCH.philox
    except AttributeError:  # the first draw of this thread
        philox = _SCRATCH.philox = np.random.Philox(0)
    philox.state = {**_START, "state": state}
    return philox.random_raw(words).view(dtype)[passed : passed + count]


def _words(numbers: tuple[int, ...]) -> np.ndarray:
    return np.array(numbers, np.uint64)


_WORD = 2**64 - 1
_SCRATCH = threading.local()  # one generator per thread
_START = {"bit_generator": "Philox", "buffer": _words((0,) * 4), "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}


_NUMPY = Backend()
_NAMES = {"numpy": "numpy", "cpu": "numpy", "cupy": "cupy", "cuda": "cupy", "gpu": "cupy"}
_MODULES = {"cupy": "tensorlib.arrays.cupy"}  # by name, because these modules import this one
_ON_FIRST_USE: dict[str, list[Callable[[], None]]] = {name: [] for name in _MODULES}


def on_first_use(name: str, action: Callable[[], None]) -> None:
    """Call `action` when the backend called `name` is first used: that is how its kernels are registered."""
    _ON_FIRST_USE[name].append(action)


@cache
def _loaded(name: str) -> Backend:
    """Import the backend called `name`. Raises RuntimeError where its library or device is missing."""
    backend = import_module(_MODULES[name]).open_backend()
    for action in _ON_FIRST_USE[name]:
        action()
    return backend


def get_backend(name: str | Backend) -> Backend:
    """Return the backend called `name`: "numpy" (or "cpu"), "cupy" (or "cuda", "gpu"). A Backend is returned as is.

    Raises ValueError for another name, RuntimeError where CuPy or its GPU is missing.

    >>> tl.get_backend("cpu")
    <backend numpy>
    """
    if isinstance(name, Backend):
        return name
    if not isinstance(name, str) or name not in _NAMES:
        raise ValueError(f"backend: must be one of {', '.join(_NAMES)}; got {shown(name)}")
    return _NUMPY if _NAMES[name] == "numpy" else _loaded(_NAMES[name])


@singledispatch
def backend_of(array: Any) -> Backend:
    """Return the backend that `array` belongs to. Further array types register themselves here.

    Raises TypeError for an array of another library.

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


def namespace_of(x: Any) -> Any:
    """Return the module whose functions take `x`: numpy, cupy, or tensorlib when `x` is a Tensor.

    It lets one formula serve raw arrays in ordinary training and Tensors under ``create_graph``.

    >>> tl.namespace_of(np.zeros(3)).__name__, tl.namespace_of(tl.zeros(3)).__name__
    ('numpy', 'tensorlib')
    """
    if isinstance(x, (np.ndarray, np.generic)):  # a tuple: a union would be created again for each op
        return np
    module = getattr(x, "__array_namespace__", None)
    if module is not None:
        return module()
    return sys.modules[type(x).__module__.partition(".")[0]]
