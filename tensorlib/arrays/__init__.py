"""The layer of raw arrays, below the engine: backends, random numbers, threads, memory, shapes."""

from tensorlib.arrays import cupy

__all__ = ["cupy"]  # imported because the module registers CuPy's backend
