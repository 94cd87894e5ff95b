"""Cross-entropy from logits: one block of threads for each row."""

from __future__ import annotations

from typing import Any

import cupy

from tensorlib.kernels.cuda.launch import NOT_SERVED, by_rows, contiguous, fits_by_rows, on_current_device, overrides
from tensorlib.ops.crossentropy import cross_entropy_formula, cross_entropy_gradient


@overrides(cross_entropy_formula)
def _cross_entropy(logits: Any, targets: Any, counted: Any, smoothing: float) -> Any:
    if not fits_by_rows(logits) or not on_current_device(targets, counted):
        return NOT_SERVED
    rows, classes = logits.shape
    loss, *kept = (cupy.empty(shape, logits.dtype) for shape in (rows, (rows, 1), (rows, 1)))
    targets = contiguous(targets, cupy.int64)
    arguments = (contiguous(logits), classes, targets, contiguous(counted), float(smoothing), loss, *kept)
    by_rows("cross_entropy.cu", "cross_entropy", logits.dtype.char, rows, classes, arguments)
    return loss, tuple(kept)


@overrides(cross_entropy_gradient)
def _cross_entropy_gradient(dloss: Any, logits: Any, kept: Any, targets: Any, counted: Any, smoothing: float) -> Any:
    if kept is None or not fits_by_rows(logits, dloss, *kept) or not on_current_device(targets, counted):
        return NOT_SERVED
    (rows, classes), dx = logits.shape, cupy.empty(logits.shape, logits.dtype)
    dloss = cupy.broadcast_to(dloss, rows)
    targets = contiguous(targets, cupy.int64)
    dloss, logits, counted = (contiguous(a) for a in (dloss, logits, counted))
    arguments = (dloss, logits, *kept, classes, targets, counted, float(smoothing), dx)
    by_rows("cross_entropy.cu", "cross_entropy_gradient", logits.dtype.char, rows, classes, arguments)
    return dx
