"""What a picture says about an array: its few elements, or the size and spread of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorlib.arrays.backend import backend_of

__all__ = ["Measured"]

MOST_ELEMENTS = 4  # of an array without or with one axis; larger arrays are described by their range


class Measured(NamedTuple):
    """Plain numbers about one array, or about the arrays of several equal steps that a picture shows as one.

    Attributes:
        shape: the shape of the array.
        low, high, mean, std: of its finite elements; NaN if there are none.
        norm: the Euclidean norm of all elements; NaN or infinite if an element is.
        zeros: the number of elements that are 0.
        not_finite: the number of elements that are NaN or infinite.
        elements: the elements of an array of at most four, in a row; otherwise empty.
        least_norm, arrays: the smallest norm among several arrays, and how many they are; `norm` is the largest.
    """

    shape: tuple[int, ...]
    low: float
    high: float
    mean: float
    std: float
    norm: float
    zeros: int
    not_finite: int
    elements: tuple[float, ...] = ()
    least_norm: float = math.nan
    arrays: int = 1

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


def measured(x: Any) -> Measured:
    """Return what a picture says about an array of any dtype. An array on a GPU is copied to the host.

    >>> from tensorlib.graphs.measuring import measured
    >>> measured(np.array([3.0, 4.0])).norm, measured(np.array([3.0, np.nan])).not_finite
    (5.0, 1)
    """
    host = np.asarray(backend_of(x).to_numpy(x))
    few = tuple(host.ravel().tolist()) if host.size <= MOST_ELEMENTS and host.ndim <= 1 else ()
    with np.errstate(all="ignore"):
        wide = host.astype(np.float64, copy=False)
        finite = wide[np.isfinite(wide)]
        if not finite.size:
            low = high = mean = std = math.nan
        else:
            low, high, mean, std = map(float, (finite.min(), finite.max(), finite.mean(), finite.std()))
        norm = float(np.sqrt(np.square(wide).sum()))
    zeros = host.size - int(np.count_nonzero(host))
    return Measured(tuple(host.shape), low, high, mean, std, norm, zeros, host.size - finite.size, few, norm)


def joined(parts: Sequence[Measured]) -> Measured:
    """Return one description of the arrays of several steps: the range of all, and their smallest and largest norm."""
    if len(parts) == 1:
        return parts[0]
    sizes = [part.size - part.not_finite for part in parts]
    total = sum(sizes) or 1
    mean = sum(part.mean * n for part, n in zip(parts, sizes, strict=True) if n) / total
    square = sum((part.std**2 + (part.mean - mean) ** 2) * n for part, n in zip(parts, sizes, strict=True) if n)
    return Measured(
        parts[0].shape,
        _least([part.low for part in parts]),
        -_least([-part.high for part in parts]),
        mean,
        math.sqrt(square / total),
        math.nan if any(math.isnan(part.norm) for part in parts) else max(part.norm for part in parts),
        sum(part.zeros for part in parts),
        sum(part.not_finite for part in parts),
        (),
        _least([part.least_norm for part in parts]),
        sum(part.arrays for part in parts),
    )


def _least(numbers: Sequence[float]) -> float:
    return min([x for x in numbers if not math.isnan(x)], default=math.nan)
