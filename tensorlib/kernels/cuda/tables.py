"""Tables of pointers to many arrays, which a kernel gets by value: one launch for dozens of arrays, without an upload.

A kernel's arguments may take 4 KB. The types are those of `kernels/cuda/update_in_place.cu`, field by field.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["CHUNK", "COUNTERS", "LONG_CHUNK", "ROOM", "Writable", "counters", "groups", "table_dtype", "tables"]

CHUNK, LONG_CHUNK = 4096, 16384  # elements that a block of threads works on; as in the source
ROOM = {1: 192, 2: 136, 3: 104, 4: 88}  # how many tensors fit into a table, by its arrays for each tensor
COUNTERS = np.dtype([("at", np.uint64, (480,)), ("count", np.int64)])


def table_dtype(arrays: int) -> np.dtype[Any]:
    """Return the type of a table with this many arrays for each tensor: ``Table<arrays, ROOM[arrays]>``."""
    room = ROOM[arrays]
    fields = [("at", np.uint64, (arrays, room)), ("size", np.int64, (room,))]
    return np.dtype([*fields, ("first", np.int32, (room + 1,)), ("count", np.int32)])


def tables(columns: Sequence[Sequence[Any]], chunk: int = CHUNK) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield tables of all tensors: the number of the first one, the number of chunks, and the table.

    columns: a sequence of contiguous arrays for each kind, such as parameters and gradients. None and an empty array
    are null pointers. The tables hold as many tensors as fit. One whose tensors are all empty is left out, as a launch
    needs a block.
    """
    dtype, room = table_dtype(len(columns)), ROOM[len(columns)]
    for start in range(0, len(columns[0]), room):
        parts = [column[start : start + room] for column in columns]
        count = len(parts[0])
        table = np.zeros((), dtype)
        for row, part in zip(table["at"], parts, strict=True):
            row[:count] = [array.data.ptr if array is not None and array.size else 0 for array in part]
        sizes = np.array([array.size for array in parts[0]], np.int64)
        table["size"][:count] = sizes
        chunks = np.cumsum(-(-sizes // chunk))
        table["first"][1 : count + 1] = chunks
        table["count"] = count
        if chunks[-1]:
            yield start, int(chunks[-1]), table


def counters(counts: Sequence[Any]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield tables of step counts: the number of the first one, how many there are, and the table."""
    room = COUNTERS["at"].shape[0]
    for start in range(0, len(counts), room):
        part = counts[start : start + room]
        table = np.zeros((), COUNTERS)
        table["at"][: len(part)] = [count.data.ptr for count in part]
        table["count"] = len(part)
        yield start, len(part), table


class Writable:
    """Contiguous arrays of one dtype that a kernel writes into, in the place of arrays that need not be so.

    `finish` copies what the kernel has written into those arrays that are not contiguous or have another dtype.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[Any, Any]] = []

    def __call__(self, array: Any, dtype: Any = None) -> Any:
        """Return the array for the kernel: `array` itself if it can take it."""
        if array is None or (array.flags.c_contiguous and (dtype is None or array.dtype == dtype)):
            return array
        own = array.astype(array.dtype if dtype is None else dtype, order="C")
        self._pairs.append((array, own))
        return own

    def finish(self) -> None:
        """Copy back what was written."""
        for array, own in self._pairs:
            array[...] = own


def groups(arrays: Sequence[Any]) -> Iterator[tuple[str, list[int]]]:
    """Yield for each dtype its character and the numbers of the arrays that have it."""
    for char in dict.fromkeys(array.dtype.char for array in arrays):
        yield char, [i for i, array in enumerate(arrays) if array.dtype.char == char]
