"""Kernels for CuPy arrays. With `backend.py` the only file that imports cupy, and imported only where a GPU answers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cupy

__all__ = ["random_bits", "source"]

_THREADS = 256


def source(name: str) -> str:
    """Return the CUDA source of that name; a test compiles each of them, which needs no GPU."""
    return (Path(__file__).parent / "cuda_src" / f"{name}.cu").read_text(encoding="utf-8")


@cache
def _kernel(name: str) -> Any:
    return cupy.RawKernel(source(name), name)


def random_bits(key: int, draw: int, count: int, dtype: str = "uint16") -> Any:
    """Return `count` numbers of an unsigned dtype, the same as NumPy's backend returns for (key, draw)."""
    blocks = -(-count * cupy.dtype(dtype).itemsize // 32)  # a block of the counter is 4 words of 64 bits
    words = cupy.empty(4 * blocks, cupy.uint64)
    low, high = key & (2**64 - 1), key >> 64
    arguments = (cupy.uint64(low), cupy.uint64(high), cupy.uint64(draw), cupy.uint64(blocks), words)
    if blocks:  # a grid of no threads cannot be launched
        _kernel("philox")((-(-blocks // _THREADS),), (_THREADS,), arguments)
    return words.view(cupy.dtype(dtype))[:count]
