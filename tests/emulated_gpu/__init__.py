"""An emulated GPU: a module in the place of CuPy whose kernels, streams and graphs run on the CPU.

With ``TENSORLIB_TEST_GPU=emulated`` in the environment tests/conftest.py calls `install`, and every test of the kind
"cupy" runs:

    TENSORLIB_TEST_GPU=emulated pytest tests/kernels -k cupy

- Arrays lie in memory of their own; NumPy computes what CuPy's functions compute, and what CuPy lacks or refuses is
  refused (tests/strict.py).
- CUDA sources are compiled by g++ and run with the threads of a block in shuffled order (cuda_on_host.h).
- A stream that captures records its work, and a graph repeats it by addresses. What CuPy refuses then is refused.
- `device.counted` counts launches, uploads, fetches and synchronisations.

It finds a missing barrier, lanes that disagree about a shuffle, arguments of a wrong width or type, writes outside an
array, reads of memory that was never written (they give NaN), a graph whose memory is used by others, and a hidden copy
or wait. It cannot find what needs two threads or two streams to run at the same moment (races between blocks, a missing
event), wrong numbers that only a GPU's own exp or cuBLAS gives, registers and shared memory beyond the limits, and
anything about speed. NVRTC's view of the sources is in tests/kernels/test_cuda_sources.py.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

__all__ = ["install", "requested"]


def requested() -> bool:
    """Return whether the environment asks for the emulated GPU. Raises ValueError if it asks for another one."""
    given = os.environ.get("TENSORLIB_TEST_GPU", "")
    if given not in ("", "emulated"):
        raise ValueError(f"TENSORLIB_TEST_GPU: must be emulated or unset, got {given!r}")
    return given == "emulated"


def install() -> bool:
    """Put the module in the place of cupy, if the environment asks for it; return whether it did."""
    if not requested():
        return False
    if not getattr(sys.modules.get("cupy"), "is_emulated", False):
        sys.modules.update(modules())
        from tests.emulated_gpu import cublas

        cublas.install()
    return True


def modules() -> dict[str, ModuleType]:
    """Return the modules cupy, cupy.cuda, cupy.cuda.runtime and cupyx of an emulated device, by name."""
    from tests.emulated_gpu import arrays, device, kernels, memory, runtime

    cupy = _module("cupy", "14.2.0", is_emulated=True)
    arrays.put_functions(cupy)
    streams = {
        name: getattr(device, name) for name in ("Stream", "ExternalStream", "Event", "get_current_stream",
                                                 "get_elapsed_time")
    }  # fmt: skip
    memories = {
        name: getattr(memory, name) for name in ("BaseMemory", "Memory", "MemoryPointer", "MemoryPool", "UnownedMemory",
                                                 "alloc", "get_allocator", "set_allocator")
    }  # fmt: skip
    api = _module("cupy.cuda.runtime", **{name: getattr(runtime, name) for name in runtime.NAMES})
    cuda = _module(
        "cupy.cuda", **streams, **memories, runtime=api, Device=runtime.Device, get_device_id=runtime.get_device_id,
        is_available=lambda: True, Graph=device.Graph, PinnedMemory=memory.PinnedMemory,
        alloc_pinned_memory=memory.alloc_pinned_memory, using_allocator=memory.using_allocator,
        memory=_module("cupy.cuda.memory", OutOfMemoryError=memory.OutOfMemoryError, **memories),
        stream=_module("cupy.cuda.stream", **streams),
        compiler=_module("cupy.cuda.compiler", CompileException=kernels.CompileException),
    )  # fmt: skip
    for name in ("RawKernel", "RawModule", "ElementwiseKernel"):
        setattr(cupy, name, getattr(kernels, name))
    cupy.cuda, cupy.get_default_memory_pool = cuda, lambda: memory.default_pool
    cupyx = _module("cupyx", **{f"{name}_pinned": _pinned(name) for name in ("empty", "zeros")})
    found = [cupy, cuda, api, cuda.memory, cuda.stream, cuda.compiler, cupyx]
    return {module.__name__: module for module in found}


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def _module(name: str, version: str = "", **contents: Any) -> Any:
    module = _Module(name, "A stand-in on the CPU; see tests/emulated_gpu.")
    vars(module).update(contents)
    if version:
        module.__version__ = version
    module.__path__ = []
    return module


def _pinned(name: str) -> Any:
    import numpy as np

    from tests.emulated_gpu.memory import alloc_pinned_memory

    def pinned(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        count = int(np.prod(shape))
        array = np.frombuffer(alloc_pinned_memory(count * np.dtype(dtype).itemsize), dtype, count)
        if name == "zeros":
            array[...] = 0
        return array.reshape(shape, order=order)

    return pinned
