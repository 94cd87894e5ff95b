"""The gradient check of every op in the table, which `tensorlib check` and the tests run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tensorlib.arrays.array import Array
from tensorlib.arrays.backend import Backend, get_backend
from tensorlib.optable import ROWS, Row, Sample
from tensorlib.tensor import Tensor
from tensorlib.transforms.gradcheck import GradcheckError, GradcheckResult, gradcheck

__all__ = ["LAYOUTS", "CheckReport", "check", "check_sample"]


class CheckReport(NamedTuple):
    """The result for one op: the largest error of each order, relative to the largest element of the gradient."""

    op: str
    samples: int
    first: float
    second: float
    dtype: str
    backend: str
    failure: str | None


def check(
    names: Sequence[str] = (), backend: str | Backend = "numpy", tolerance: float = 1e-6
) -> Iterator[CheckReport]:
    """Gradient-check the ops called `names` (by default all) at all their samples, and yield one report per op.

    A failure is reported, not raised. Raises ValueError for a name that no differentiable row has.
    """
    rows = [row for row in ROWS if row.differentiable]
    known = [row.name for row in rows]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"check: no differentiable op is called {', '.join(unknown)}; known: {', '.join(known)}")
    checked_on = get_backend(backend)
    return (_report(row, checked_on, tolerance) for row in rows if not names or row.name in names)


def _report(row: Row, backend: Backend, tolerance: float) -> CheckReport:
    first, second, failure = 0.0, 0.0, None
    for sample in row.samples:
        try:
            result = check_sample(row, sample, backend, tolerance)
        except Exception as error:  # a gradient that cannot be computed is reported like a wrong one
            text = str(error) if isinstance(error, GradcheckError) else f"{row.name}: {type(error).__name__}: {error}"
            failure = f"{text}, at {row.name}({sample})"
            break
        first, second = max(first, result.first), max(second, result.second or 0.0)
    return CheckReport(row.name, len(row.samples), first, second, "float64", backend.name, failure)


def check_sample(row: Row, sample: Sample, backend: Backend, tolerance: float = 1e-6) -> GradcheckResult:
    """Gradient-check one sample: to second order, and to first order with its inputs in other memory layouts."""
    f, arrays = row.bound(sample, backend), row.arrays(sample)
    result = gradcheck(f, *arrays, tolerance=tolerance, name=row.name, backend=backend)
    for layout in LAYOUTS:

        def arranged(*xs: Tensor, layout: Any = layout) -> Any:
            for x in xs:
                x.replace(layout(x.data, backend.xp), copy=False)
            return f(*xs)

        name = f"{row.name} ({layout.__name__} inputs)"
        gradcheck(arranged, *arrays, order=1, tolerance=tolerance, name=name, backend=backend)
    return result


# ---- memory layouts ----------------------------------------------------------------------------------------------


def transposed(array: Array, xp: Any) -> Array:
    """Return an equal array whose first axis is the contiguous one."""
    return array.transpose().copy().transpose()


def strided(array: Array, xp: Any) -> Array:
    """Return an equal array with gaps between its elements."""
    spaced = xp.zeros((*array.shape, 2), array.dtype)
    spaced[..., 0] = array
    return spaced[..., 0]


def reversed_rows(array: Array, xp: Any) -> Array:
    """Return an equal array whose first axis runs backwards in memory."""
    return array[::-1].copy()[::-1] if array.ndim else array


LAYOUTS = (transposed, strided, reversed_rows)
