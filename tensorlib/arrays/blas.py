"""How BLAS reads strided arrays: which call computes a product of views, as numbers alone.

BLAS counts along columns first. A matrix whose rows lie one after the other is to BLAS its transpose, so it is given
the product of the transposes, which is the transposed product: out^T = b^T a^T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["GemmPlan", "View", "contiguous_strides", "plan_gemm"]

Shape = tuple[int, ...]

MOST_BATCH_AXES = 3  # that one launch of the kernel that writes the addresses of all matrices can count


class View(NamedTuple):
    """The shape of an array and its strides, counted in elements."""

    shape: Shape
    strides: Shape


class GemmPlan(NamedTuple):
    """A call of BLAS that computes out = alpha a b + beta out for (..., M, K) and (..., K, N).

    `shape` is that of out. If `swapped`, BLAS receives b first, then a. The fields from `transposed` on are in BLAS's
    order: whether the first and the second operand are transposed, the sizes (m, n, k), and the leading dimensions of
    first, second and out. `counts` are the sizes of the batch axes that are left, `steps` their strides in first,
    second and out.

    `copied` says for a, b and out whether BLAS cannot read it as it lies, and `expanded` whether a and b are copied for
    each matrix of the batch, because too many batch axes are left. In both cases, and for a product of nothing, the
    fields after these are not set.
    """

    shape: Shape
    copied: tuple[bool, bool, bool]
    expanded: bool = False
    swapped: bool = False
    transposed: tuple[bool, bool] = (False, False)
    sizes: tuple[int, int, int] = (0, 0, 0)
    leading: tuple[int, int, int] = (1, 1, 1)
    counts: Shape = ()
    steps: tuple[Shape, Shape, Shape] = ((), (), ())


class _Axis(NamedTuple):
    """A batch axis: its size and its strides in a, b and out."""

    size: int
    a: int
    b: int
    out: int


def plan_gemm(a: View, b: View, out: View | None = None) -> GemmPlan:
    """Return how BLAS multiplies a and b into out, by default a new contiguous array.

    Raises ValueError if the shapes do not fit.

    >>> rows, columns = View((8, 5), (5, 1)), View((5, 3), (1, 5))
    >>> plan = plan_gemm(rows, columns)
    >>> plan.swapped, plan.transposed, plan.sizes, plan.leading
    (True, (True, False), (3, 8, 5), (5, 5, 3))
    """
    shape = _result_shape(a, b)
    if out is None:
        out = View(shape, contiguous_strides(shape))
    elif out.shape != shape:
        raise ValueError(f"gemm: out must have shape {shape}, got {out.shape}")
    if 0 in shape or not a.shape[-1]:
        return GemmPlan(shape, (False, False, False))
    copied = (_leading(a) is None, _leading(b) is None, _leading(out) is None or _overlaps(out))
    if any(copied):
        return GemmPlan(shape, copied)
    whole = out
    a, b, out, axes = _folded(a, b, out, _batch_axes(a, b, out))
    if len(axes) > MOST_BATCH_AXES:
        return GemmPlan(shape, (False, False, whole.strides != contiguous_strides(shape)), expanded=True)
    (by_rows_a, ld_a), (by_rows_b, ld_b), (swapped, ld_out) = (_leading(v) or (True, 0) for v in (a, b, out))
    (m, k), n = a.shape[-2:], b.shape[-1]
    counts = tuple(axis.size for axis in axes)
    step_a, step_b, step_out = (tuple(axis[i] for axis in axes) for i in (1, 2, 3))
    if swapped:  # BLAS reads a matrix that lies by rows as its transpose, which is the one wanted here
        return GemmPlan(
            shape, copied, False, True, (not by_rows_b, not by_rows_a), (n, m, k), (ld_b, ld_a, ld_out),
            counts, (step_b, step_a, step_out),
        )  # fmt: skip
    return GemmPlan(
        shape, copied, False, False, (by_rows_a, by_rows_b), (m, n, k), (ld_a, ld_b, ld_out),
        counts, (step_a, step_b, step_out),
    )  # fmt: skip


def contiguous_strides(shape: Sequence[int]) -> Shape:
    """Return the strides, in elements, of a new array of this shape.

    >>> contiguous_strides((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def _result_shape(a: View, b: View) -> Shape:
    if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"gemm: a (..., M, K) and b (..., K, N) are required, got {a.shape} and {b.shape}")
    try:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"gemm: axes before the last two must broadcast, got {a.shape} and {b.shape}") from None
    return (*lead, a.shape[-2], b.shape[-1])


def _leading(x: View) -> tuple[bool, int] | None:
    """Return whether matrices lie by rows, and the distance of two rows or columns; None if BLAS cannot read them."""
    (rows, columns), (down, right) = x.shape[-2:], x.strides[-2:]
    if any(stride < 0 for stride, size in zip(x.strides, x.shape, strict=True) if size > 1):
        return None
    along_row, along_column = max(columns, 1), max(rows, 1)
    if (right == 1 or columns <= 1) and (rows <= 1 or down >= along_row):
        return True, along_row if rows <= 1 else down
    if (down == 1 or rows <= 1) and (columns <= 1 or right >= along_column):
        return False, along_column if columns <= 1 else right
    return None


def _overlaps(out: View) -> bool:
    """Return whether two elements may have one address: an axis does not step over all elements of shorter axes."""
    reach = 1
    for stride, size in sorted((s, n) for s, n in zip(out.strides, out.shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach = stride * (size - 1) + reach
    return False


def _batch_axes(a: View, b: View, out: View) -> list[_Axis]:
    """Return the batch axes of more than one element, merged where all three strides allow it."""
    lead = len(out.shape) - 2

    def strides(x: View) -> list[int]:
        missing = lead - (len(x.shape) - 2)
        own = [0 if n == 1 else s for n, s in zip(x.shape[:-2], x.strides[:-2], strict=True)]
        return [0] * missing + own

    found = (
        _Axis(*axis) for axis in zip(out.shape[:-2], strides(a), strides(b), strides(out), strict=True) if axis[0] > 1
    )
    merged: list[_Axis] = []
    for axis in sorted(found, key=lambda axis: -axis.out):
        before = merged[-1] if merged else None
        if before and all(outer == inner * axis.size for outer, inner in zip(before[1:], axis[1:], strict=True)):
            merged[-1] = axis._replace(size=axis.size * before.size)
        else:
            merged.append(axis)
    return merged


def _folded(a: View, b: View, out: View, axes: list[_Axis]) -> tuple[View, View, View, list[_Axis]]:
    """Return the matrices after folding batch axes into the rows of a, where b is one matrix for all: one product."""
    rows, k = a.shape[-2:]
    a_row, b_view, out_row = a.strides[-2], View(b.shape[-2:], b.strides[-2:]), out.strides[-2]
    left = list(axes)
    while left and left[-1].b == 0:
        axis = left[-1]
        if rows == 1:
            a_row, out_row = axis.a, axis.out
        elif axis.a != a_row * rows or axis.out != out_row * rows:
            break
        longer = View((rows * axis.size, k), (a_row, a.strides[-1]))
        longer_out = View((rows * axis.size, out.shape[-1]), (out_row, out.strides[-1]))
        if _leading(longer) is None or _leading(longer_out) is None:
            break
        a, out, rows = longer, longer_out, rows * axis.size
        left.pop()
    return a, b_view, out, left
