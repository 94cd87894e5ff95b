"""Row blocks: a kernel that makes several passes over the same numbers makes them while these are in the cache."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK_BYTES = 1 << 19  # half a megabyte: a block and its scratch fit the second-level cache of current CPUs


def row_blocks(rows: int, row_bytes: int) -> Iterator[slice]:
    """Yield slices that cover `rows` rows, each of about BLOCK_BYTES and of one row at least."""
    step = max(1, BLOCK_BYTES // max(row_bytes, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
