"""Arrays below the engine: backends and devices, random numbers, threads, memory, shapes."""

from tensorlib.arrays import cupy

__all__ = ["cupy"]  # imported because it registers itself
