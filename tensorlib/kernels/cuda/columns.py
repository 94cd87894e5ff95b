"""Sums over the rows of a matrix, in two steps of a fixed order: over chunks of rows, then over the chunks."""

from __future__ import annotations

from typing import Any

import cupy

from tensorlib.kernels.cuda.launch import WARP, contiguous, kernel

__all__ = ["chunks_of", "column_sums", "relu_gradient", "sum_parts"]

TILE = 4 * WARP  # columns of a block of threads; as in columns.cuh
BLOCKS = 528  # four for each multiprocessor of an H100; a constant, so that all cards add up in the same order


def chunks_of(rows: int, width: int) -> tuple[tuple[int, int], int]:
    """Return the grid for `over_columns`, (tiles of columns, chunks of rows), and the number of rows in a chunk."""
    tiles = -(-width // TILE)
    chunk = max(8, -(-rows // max(1, BLOCKS // tiles)))
    return (tiles, -(-rows // chunk)), chunk


def column_sums(x: Any) -> Any:
    """Return the sums over the rows of a matrix x that is not empty."""
    rows, width = x.shape
    grid, chunk = chunks_of(rows, width)
    parts = cupy.empty((grid[1], width), x.dtype)
    launch = kernel("columns.cu", "column_sums", x.dtype.char)
    launch(grid, (WARP, 8), (contiguous(x), rows, width, chunk, parts))
    return sum_parts(parts)


def relu_gradient(dy: Any, y: Any, scale: float, out: Any = None, sums: bool = False) -> tuple[Any, Any]:
    """Return dz = dy · scale where y > 0, else 0, and, if wanted, its sums over all rows. `out` may be dy."""
    dz = cupy.empty(y.shape, y.dtype) if out is None else out
    dy, y = contiguous(dy), contiguous(y)
    width = y.shape[-1] if y.ndim else 1
    rows = y.size // width
    grid, chunk = chunks_of(rows, width)
    parts = cupy.empty((grid[1], width), y.dtype) if sums else None
    arguments = (dy, y, float(scale), rows, width, chunk, dz, parts if sums else 0)
    kernel("columns.cu", "relu_gradient", y.dtype.char)(grid, (WARP, 8), arguments)
    return dz, sum_parts(parts) if sums else None


def sum_parts(parts: Any, out: Any = None, more: bool = False) -> Any:
    """Return the sums of parts (count, width) over the first axis, in `out` if given, or added to it if `more`."""
    count, width = parts.shape
    if out is None and count == 1:
        return parts[0]
    total = cupy.empty(width, parts.dtype) if out is None else out
    arguments = (parts, count, width, more, total)
    kernel("columns.cu", "sum_parts", parts.dtype.char)((-(-width // WARP),), (WARP, WARP), arguments)
    return total
