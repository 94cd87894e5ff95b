"""CuPy's backend: arrays in the memory of a CUDA GPU. CuPy is imported on first use; see `get_backend`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlib.arrays.backend import Array, Backend, backend_of, register_backend
from tensorlib.arrays.capturing import current_capture

__all__ = ["open_backend"]


def open_backend() -> Backend:
    """Return CuPy's backend and register it for CuPy's arrays.

    Raises RuntimeError if CuPy is not installed or no GPU answers.
    """
    cupy = _cupy_on_a_gpu()
    from tensorlib.arrays import cuda, cupy_graphs

    class CuPy(Backend):
        """Arrays in the memory of a CUDA GPU."""

        name = "cupy"
        xp = cupy
        records = True
        fetch_later = staticmethod(cupy_graphs.fetch_later)
        recorder = staticmethod(cupy_graphs.CudaRecorder)

        def asarray(self, values: Any, dtype: Any = None) -> Array:
            if isinstance(values, bool | int | float | np.generic):  # a kernel writes it, so nothing is uploaded
                return cupy.full((), values, np.asarray(values).dtype if dtype is None else dtype)
            return cupy.array(values, dtype=dtype)

        def constant(self, values: np.ndarray) -> Array:
            capture = current_capture()
            return self.asarray(values) if capture is None else capture.keep(cupy_graphs.upload_beside(values))

        def to_numpy(self, array: Any) -> np.ndarray:
            return cupy.asnumpy(array)

        def random_bits(self, key: int, draw: int, count: int, dtype: str = "uint16") -> Array:
            return cuda.random_bits(key, draw, count, dtype)

        def concatenate(self, arrays: Any, axis: int) -> Array:
            return cuda.concatenate(arrays, axis)

        def scatter_add(self, total: Any, index: Any, values: Any) -> None:
            if total.dtype == np.int64:  # CUDA's atomicAdd takes uint64, not int64; both sums have the same bits
                total, values = total.view(np.uint64), values.astype(np.int64).view(np.uint64)
            cupy.add.at(total, index, values)

    backend = CuPy()
    backend_of.register(cupy.ndarray, lambda array: backend)
    return backend


def _cupy_on_a_gpu() -> Any:
    """Import CuPy and return it. Raises RuntimeError if it is not installed or no GPU answers."""
    try:
        import cupy

        devices = cupy.cuda.runtime.getDeviceCount()
    except ImportError:
        raise RuntimeError(
            "backend: 'cupy' needs CuPy, which is not installed; pip install 'tensorlib[cuda]', or use 'numpy'"
        ) from None
    except Exception as error:  # CuPy raises CUDARuntimeError if there is no driver or no GPU
        reason = str(error).split("\n")[0]
        raise RuntimeError(f"backend: 'cupy' needs a CUDA GPU, and none answered ({reason}); use 'numpy'") from None
    if not devices:
        raise RuntimeError("backend: 'cupy' needs a CUDA GPU, found 0; use 'numpy'")
    return cupy


register_backend("cupy", open_backend)
