"""Reading and compiling CUDA sources, and launching the kernel for random bits, which CuPy's backend itself needs.

This file is imported with CuPy's backend, on first use. The kernels that override formulas are in kernels/cuda/.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from tensorlib.arrays.capturing import RecordedDraw
from tensorlib.arrays.philox import WORD

__all__ = [
    "C_NAMES", "THREADS", "allocate", "compiled", "concatenate", "copy_arrays", "inlined", "options", "random_bits",
    "seeds",
]  # fmt: skip

HERE = Path(__file__).parent
THREADS = 256
C_NAMES = {"f": "float", "d": "double"}


def allocate(size: int) -> Any:
    """Return `size` bytes of the current device, not from the common pool, which returns what it does not use first."""
    try:
        return cupy.cuda.Memory(size)
    except (cupy.cuda.runtime.CUDARuntimeError, MemoryError):
        cupy.get_default_memory_pool().free_all_blocks()  # what other work has freed
        return cupy.cuda.Memory(size)


def inlined(path: Path) -> str:
    """Return a CUDA source with its headers inlined, because CuPy's cache of binaries ignores changes of headers.

    Headers are searched for in the folder of the source, then in the folder of this file.
    """

    def header(match: re.Match[str]) -> str:
        folder = path.parent if (path.parent / match[1]).exists() else HERE
        return (folder / match[1]).read_text(encoding="utf-8")

    return re.sub(r'#include "(.+)"', header, path.read_text(encoding="utf-8"))


def options(kind: str) -> tuple[str, ...]:
    """Return the compiler's options for a dtype, "f" or "d".

    They disable fused multiply-add: products are rounded before they are added, as in the formulas. Otherwise the
    gradient of a row of one element would not be 0.
    """
    return f"-Dreal={C_NAMES[kind]}", "--fmad=false"


def compiled(path: Path, name: str, kind: str = "f") -> Any:
    """Return the function `name` of a source, compiled for a dtype, "f" or "d", on its first call.

    Call it as ``f(blocks, threads, arguments)``. An argument is one of

    - an array, contiguous and on the current device, because only its address is passed;
    - a Python int, which is passed as long long or bool; 0 also serves as a null pointer;
    - a Python float, which is passed as double;
    - a NumPy scalar, if the parameter has another type.

    Keep what is returned. Those who launch cache it by the name of the file, because making and hashing a Path for each
    launch takes longer than the launch.
    """
    return cupy.RawKernel(inlined(path), name, options(kind))


@cache
def _kernel(file: str, name: str) -> Any:
    return compiled(HERE / file, name)


def random_bits(key: int, draw: int, count: int, dtype: str = "uint16") -> Any:
    """Return `count` random numbers of an unsigned dtype, the same as `Backend.random_bits` returns on the host."""
    blocks = -(-count * cupy.dtype(dtype).itemsize // 32)  # a block of the counter is 4 words of 64 bits
    words = cupy.empty(4 * blocks, cupy.uint64)
    if blocks:  # a grid of no threads cannot be launched
        grid = (-(-blocks // THREADS),)
        _kernel("philox.cu", "philox")(grid, (THREADS,), (*seeds(key, draw), blocks, words))
    return words.view(cupy.dtype(dtype))[:count]


def seeds(key: int, draw: int) -> tuple[Any, ...]:
    """Return (key, draw) as four arguments of a kernel: the slot, both halves of the key, and the draw.

    ``draw_at`` in philox.cuh reads them. The slot is the null pointer, 0, unless the draw was made while a step was
    recorded; then key and position are in the slot, and the last argument counts from there.
    """
    if isinstance(draw, RecordedDraw):
        return draw.slot, cupy.uint64(0), cupy.uint64(0), cupy.uint64(draw.offset)
    return 0, cupy.uint64(key & WORD), cupy.uint64(key >> 64), cupy.uint64(draw)


_MOST_COPIES = 160  # of copies.cu
_COPIES = np.dtype([("source", "u8", _MOST_COPIES), ("target", "u8", _MOST_COPIES), ("bytes", "i8", _MOST_COPIES)])
_MOST_BLOCKS = 256  # for each copy: with 64 bytes of each thread on their way, one alone fills every GPU


def copy_arrays(pairs: Sequence[tuple[Any, Any]]) -> None:
    """Copy, for each pair (target, source) of arrays of equal shapes and dtypes, the source into the target.

    Pairs that are contiguous on the current device are copied in one launch for up to 160 of them. No source may be the
    target of another pair.
    """
    device = cupy.cuda.runtime.getDevice()
    pairs = [pair for pair in pairs if pair[0].size]
    served = [pair for pair in pairs if all(a.flags.c_contiguous and a.data.device_id == device for a in pair)]
    chosen = {id(target) for target, _ in served}
    for target, source in pairs:
        if id(target) not in chosen:
            target[...] = source
    for first in range(0, len(served), _MOST_COPIES):
        some = served[first : first + _MOST_COPIES]
        table = np.zeros((), _COPIES)
        table["source"][: len(some)] = [source.data.ptr for _, source in some]
        table["target"][: len(some)] = [target.data.ptr for target, _ in some]
        table["bytes"][: len(some)] = sizes = [source.nbytes for _, source in some]
        blocks = min(_MOST_BLOCKS, -(-max(sizes) // (THREADS * 64)))
        _kernel("copies.cu", "copy_arrays")((blocks, len(some)), (THREADS,), (table,))


_SMALL = 2 << 20  # bytes, below which a launch takes longer than moving an array
_FEW = 8  # up to so many arrays, CuPy copies one after another; more small ones by a table that it uploads


def concatenate(arrays: Sequence[Any], axis: int) -> Any:
    """Return arrays joined along `axis`, without an upload, which could not be recorded.

    Many small arrays of one shape take two launches, or one if `axis` is 0; otherwise each array takes one.
    """
    first, count = arrays[0], len(arrays)
    if count <= _FEW or any(array.dtype != first.dtype for array in arrays):
        return cupy.concatenate(arrays, axis=axis)
    if all(array.shape == first.shape for array in arrays) and (axis == 0 or first.nbytes < _SMALL):
        stacked = cupy.empty((count, *first.shape), first.dtype)
        copy_arrays([(stacked[i], array) for i, array in enumerate(arrays)])
        joined = (*first.shape[:axis], count * first.shape[axis], *first.shape[axis + 1 :])
        return cupy.moveaxis(stacked, 0, axis).reshape(joined)
    size = sum(array.shape[axis] for array in arrays)
    joined, start = cupy.empty((*first.shape[:axis], size, *first.shape[axis + 1 :]), first.dtype), 0
    for array in arrays:
        joined[(slice(None),) * axis + (slice(start, start := start + array.shape[axis]),)] = array
    return joined
