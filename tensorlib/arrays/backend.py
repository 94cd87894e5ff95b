"""The one place that knows how NumPy and CuPy differ.

A backend is a property of an array, never a global: ``backend_of(array)`` asks the array. Formulas need only
``namespace_of(x)``, the module whose functions fit ``x``: numpy, cupy, or tensorlib itself when ``x`` is a Tensor.
"""

from __future__ import annotations

import sys
import threading
from functools import cache, singledispatch
from typing import Any, TypeAlias

import numpy as np

from tensorlib.messages import shown

__all__ = ["Array", "Backend", "backend_of", "get_backend", "namespace_of"]

Array: TypeAlias = Any
"""A numpy.ndarray or a cupy.ndarray; in a gradient formula also a Tensor, when the caller asked for create_graph."""


class Backend:
    """NumPy: arrays in the memory of the host. Other backends override what differs."""

    name = "numpy"
    xp: Any = np

    def asarray(self, values: Any, dtype: Any = None) -> Array:
        """Return a *new* array of this backend holding `values` (numbers, nested lists or a host array)."""
        return np.array(values, dtype=dtype)

    def to_numpy(self, array: Array) -> np.ndarray:
        """Return the array on the host: the same memory on NumPy, a copy (which waits) on a GPU."""
        return array

    def random_bits(self, key: int, draw: int, count: int, dtype: str = "uint16") -> Array:
        """Return `count` random numbers of an unsigned dtype, all bits random: a pure function of (key, draw).

        Philox-4x64 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The draw's number stands in
        the third word of the counter, so that every draw has 2^128 blocks of its own. A narrow dtype cuts each word
        of 64 bits into several numbers, the lowest bits first.
        """
        return philox_bits(key, draw, 0, count, dtype)

    def scatter_add(self, total: Array, index: Any, values: Array) -> None:
        """Do ``total[index] += values`` in place, where an index that occurs k times receives k contributions."""
        np.add.at(total, index, values)

    def __repr__(self) -> str:
        return f"<backend {self.name}>"


def philox_bits(key: int, draw: int, start: int, count: int, dtype: str = "uint16") -> np.ndarray:
    """Return the random numbers `start` to `start` + `count` of a draw, on the host; see `Backend.random_bits`."""
    in_block = 32 // np.dtype(dtype).itemsize  # a step of the counter makes 32 bytes
    block, passed = divmod(start, in_block)
    words = -(-(passed + count) * np.dtype(dtype).itemsize // 8)
    # Setting the state of a generator takes a tenth of the time of making one.
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
_SCRATCH = threading.local()  # a generator for each thread
_START = {"bit_generator": "Philox", "buffer": _words((0,) * 4), "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}


_NUMPY = Backend()
_NAMES = {"numpy": "numpy", "cpu": "numpy", "cupy": "cupy", "cuda": "cupy", "gpu": "cupy"}


@cache
def _cupy() -> Backend:
    """Import CuPy on first use; everything that differs on a GPU is here."""
    try:
        import cupy

        devices = cupy.cuda.runtime.getDeviceCount()
    except ImportError:
        raise RuntimeError(
            "backend: 'cupy' needs CuPy, which is not installed; pip install 'tensorlib[cuda]', or use 'numpy'"
        ) from None
    except Exception as error:  # CuPy raises CUDARuntimeError where there is no driver or no GPU
        reason = str(error).split("\n")[0]
        raise RuntimeError(f"backend: 'cupy' needs a CUDA GPU, and none answered ({reason}); use 'numpy'") from None
    if not devices:
        raise RuntimeError("backend: 'cupy' needs a CUDA GPU, found 0; use 'numpy'")

    from tensorlib.kernels import cuda

    class CuPy(Backend):
        name = "cupy"
        xp = cupy

        def asarray(self, values: Any, dtype: Any = None) -> Array:
            return cupy.array(values, dtype=dtype)

        def to_numpy(self, array: Array) -> np.ndarray:
            return cupy.asnumpy(array)

        def random_bits(self, key: int, draw: int, count: int, dtype: str = "uint16") -> Array:
            return cuda.random_bits(key, draw, count, dtype)

        def scatter_add(self, total: Array, index: Any, values: Array) -> None:
            if total.dtype == np.int64:  # a GPU adds uint64 atomically, which is the same bits
                total, values = total.view(np.uint64), values.astype(np.int64).view(np.uint64)
            cupy.add.at(total, index, values)

    backend = CuPy()
    backend_of.register(cupy.ndarray, lambda array: backend)
    return backend


def get_backend(name: str | Backend) -> Backend:
    """Return the backend called `name`: "numpy" (or "cpu"), "cupy" (or "cuda", "gpu"). A Backend is returned as is.

    Raises ValueError for another name, RuntimeError where CuPy or its GPU is missing.
    """
    if isinstance(name, Backend):
        return name
    if not isinstance(name, str) or name not in _NAMES:
        raise ValueError(f"backend: must be one of {', '.join(_NAMES)}; got {shown(name)}")
    return _NUMPY if _NAMES[name] == "numpy" else _cupy()


@singledispatch
def backend_of(array: Array) -> Backend:
    """Return the backend that `array` belongs to. Further array types register themselves here."""
    if type(array).__module__.partition(".")[0] == "cupy":
        return _cupy()
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


def namespace_of(x: Array) -> Any:
    """Return the module whose functions take `x`: numpy, cupy, or tensorlib when `x` is a Tensor.

    It lets one formula serve raw arrays in ordinary training and Tensors under ``create_graph``.
    """
    if isinstance(x, (np.ndarray, np.generic)):  # a union would be built anew for each op
        return np
    module = getattr(x, "__array_namespace__", None)
    if module is not None:
        return module()
    return sys.modules[type(x).__module__.partition(".")[0]]
