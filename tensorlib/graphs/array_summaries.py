"""Arrays as pages show them: small ones as numbers, large ones as statistics and a heat map of few cells."""

from __future__ import annotations

import base64
import hashlib
import math
from typing import Any

import numpy as np

from tensorlib.arrays.backend import backend_of

__all__ = ["MOST_CELLS", "MOST_NUMBERS", "ArrayTable", "summary_of"]

MOST_NUMBERS = 64  # elements of an array that is shown by its numbers
MOST_CELLS = 32  # rows and columns of a heat map


class ArrayTable:
    """The arrays of one page, each once: ``add(array)`` returns its number in `summaries`."""

    def __init__(self) -> None:
        self.summaries: list[dict[str, Any]] = []
        self._numbers: dict[Any, int] = {}

    def add(self, array: Any) -> int:
        """Return the number of an array, equal for arrays with the same bits. It keeps no reference to the array."""
        host = np.asarray(backend_of(array).to_numpy(array) if hasattr(array, "dtype") else array)
        key = (host.shape, host.dtype.str, hashlib.sha256(np.ascontiguousarray(host).data).digest())
        if key not in self._numbers:
            self._numbers[key] = len(self.summaries)
            self.summaries.append(summary_of(host))
        return self._numbers[key]


def summary_of(array: np.ndarray) -> dict[str, Any]:
    """Return an array's shape, dtype and statistics, and its numbers or the cells of its heat map, as JSON.

    The statistics are those of the finite elements; "nonfinite" counts the others. The keys of `values` or `cells`
    are described at `_cells`.

    >>> from tensorlib.graphs.array_summaries import summary_of
    >>> summary_of(np.array([1.5, np.nan], "float32"))["values"]
    [1.5, 'nan']
    """
    shown: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    numbers = array.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    if finite.size:
        with np.errstate(over="ignore"):
            norm = float(np.sqrt(np.sum(finite * finite)))
            found = {"min": finite.min(), "max": finite.max(), "mean": finite.mean(), "norm": norm}
        shown |= {name: json_number(value) for name, value in found.items()}
    if finite.size < array.size:
        shown["nonfinite"] = array.size - finite.size
    if array.size <= MOST_NUMBERS:
        shown["values"] = [json_number(x) for x in array.ravel()]
    else:
        shown["cells"] = _cells(numbers)
    return shown


def json_number(x: Any) -> float | int | str:
    """Return a number as JSON has it: the shortest decimal of its dtype, or text for NaN, Inf and large integers."""
    if isinstance(x, np.floating | float):
        return float(str(x)) if math.isfinite(x) else str(float(x))
    whole = int(x)
    return whole if abs(whole) < 2**53 else str(whole)


def _cells(numbers: np.ndarray) -> dict[str, Any]:
    """Return a heat map of at most `MOST_CELLS` rows and columns, each cell the mean of a block of elements.

    Rows are all axes but the last, flattened. `data` has one byte for each cell: 0 where an element is not finite,
    otherwise 128 + 127 · mean / top, rounded, where `top` is the largest absolute mean.
    """
    matrix = numbers.reshape(-1, numbers.shape[-1])
    rows, columns = (np.linspace(0, n, min(n, MOST_CELLS) + 1).astype(int) for n in matrix.shape)
    with np.errstate(all="ignore"):
        sums = np.add.reduceat(np.add.reduceat(matrix, rows[:-1], axis=0), columns[:-1], axis=1)
        means = sums / np.outer(np.diff(rows), np.diff(columns))
        finite = np.isfinite(means)
        top = float(np.abs(means[finite]).max(initial=0.0))
        levels = np.where(finite, 128 + np.rint(127 * (means / (top or 1.0))), 0).astype(np.uint8)
    data = base64.b64encode(levels.tobytes()).decode()
    return {"rows": len(rows) - 1, "columns": len(columns) - 1, "top": json_number(top), "data": data}
