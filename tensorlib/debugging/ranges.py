"""Range: a summary of the elements of an array, for messages."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.backend import backend_of, namespace_of

__all__ = ["Range", "all_finite", "python_number", "range_of"]


class Range(NamedTuple):
    """Shape, dtype ("" for a Python number), smallest and largest finite element, and counts of special elements."""

    shape: tuple[int, ...]
    dtype: str
    size: int
    low: float = math.nan
    high: float = math.nan
    zeros: int = 0
    nans: int = 0
    positive: int = 0  # the number of +Inf
    negative: int = 0  # the number of -Inf

    @property
    def infs(self) -> int:
        """The number of infinite elements."""
        return self.positive + self.negative

    def specials(self) -> str:
        """Return "3 NaN and 1 -Inf", or "" if all elements are finite."""
        counts = ((self.nans, "NaN"), (self.positive, "Inf"), (self.negative, "-Inf"))
        return " and ".join(f"{n:,} {kind}" for n, kind in counts if n)

    def __str__(self) -> str:
        if not self.dtype:
            return f"the number {'NaN' if self.nans else f'{self.low:.4g}' if not self.infs else self.specials()[2:]}"
        values = f" in [{self.low:.4g}, {self.high:.4g}]" if self.low == self.low else ""
        return f"{self.shape} {self.dtype}{values}" + (f", {self.specials()}" if self.specials() else "")


def python_number(x: Any) -> Any:
    """Return the result of a reduction as a Python number. Waits for the GPU."""
    return x.item() if hasattr(x, "item") else x


def all_finite(array: Array) -> bool:
    """Return whether no element is NaN or infinite. Waits for the GPU, once."""
    return array.dtype.kind != "f" or bool(python_number(namespace_of(array).isfinite(array).all()))


def range_of(x: Any) -> Range | None:
    """Return the range of an array, a Tensor or a number; None for anything else. An array on a GPU is copied."""
    x = getattr(x, "array", x)
    if not hasattr(x, "dtype"):
        if not isinstance(x, int | float):
            return None
        host, dtype = np.asarray(float(x)), ""
    else:
        host, dtype = np.asarray(backend_of(x).to_numpy(x)), str(x.dtype)
    finite = host[np.isfinite(host)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (math.nan, math.nan)
    counts = [int(np.count_nonzero(test)) for test in (host == 0, np.isnan(host), host == np.inf, host == -np.inf)]
    return Range(tuple(host.shape), dtype, host.size, low, high, *counts)
