"""What a product on a GPU costs on the host, without cuBLAS and without the allocation of the result.

    python benchmarks/product_cost.py

It needs no GPU: arrays, device and stream are stand-ins whose attributes cost what Python's cost, and the function of
cuBLAS is one of the C library that does nothing with as many arguments. Times are of this process, the least of several
repetitions, in microseconds.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
import timeit
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["TENSORLIB_TEST_GPU"] = "emulated"
CALLS, REPETITIONS = 50_000, 7


def stand_in(*shape: int) -> Any:
    """Return what `gemm` reads of an array."""
    x = np.empty(shape, np.float32)
    data = SimpleNamespace(ptr=x.ctypes.data, device_id=0)
    return SimpleNamespace(shape=x.shape, strides=x.strides, dtype=x.dtype, itemsize=4, data=data, kept=x)


def microseconds(call: Any) -> float:
    """Return the time of a call."""
    times = timeit.repeat(call, number=CALLS, repeat=REPETITIONS, timer=time.process_time)
    return min(times) / CALLS * 1e6


def main() -> None:
    """Print the cost of a planned call, with and without ctypes."""
    from tests import emulated_gpu

    emulated_gpu.install()
    import tensorlib as tl

    tl.get_backend("cupy")
    from tensorlib.kernels.cuda import cublas
    from tensorlib.kernels.cuda.products import gemm

    stream, absolute = cublas._stream(), ctypes.CDLL(None).abs
    x, w, out = stand_in(32, 32, 256), stand_in(256, 768), stand_in(32, 32, 768)
    cublas.current_handle()
    handle = cublas._THREAD.handles[0]
    handle.value = ctypes.c_void_p(0)  # abs(0) is 0: success
    cublas._device, cublas._stream = int, lambda: stream
    for name, function in (("Python", lambda *arguments: 0), ("Python and ctypes", absolute)):
        functions = cublas.library()._replace(gemm=function)
        cublas.library = lambda functions=functions: functions
        print(f"a planned product, {name}: {microseconds(lambda: gemm(x, w, out)):.1f} microseconds")


if __name__ == "__main__":
    main()
