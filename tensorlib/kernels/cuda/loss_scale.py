"""The dynamic loss scale: one launch, which reads on the device whether the step was skipped."""

from __future__ import annotations

from typing import Any

import cupy

from tensorlib.kernels.cuda.launch import NOT_SERVED, elementwise, on_current_device, overrides
from tensorlib.ops.loss_scale import loss_scale_update


@overrides(loss_scale_update)
def _loss_scale_update(scale: Any, good: Any, skipped: Any, grow_after: int, most: float) -> Any:
    if not isinstance(skipped, cupy.ndarray) or not on_current_device(scale, good, skipped):
        return NOT_SERVED
    if (scale.dtype.char, good.dtype.char, skipped.dtype.char) != ("f", "l", "?"):
        return NOT_SERVED
    update = elementwise(
        "bool skipped, int64 grow_after, float32 most",
        "float32 scale, int64 good",
        """
        const long long count = good + 1;
        if (skipped) {
            scale = scale > 2 ? scale / 2 : 1;
            good = 0;
        } else if (count >= grow_after) {
            scale = 2 * scale < most ? 2 * scale : most;
            good = 0;
        } else {
            good = count;
        }
        """,
    )
    update(skipped, grow_after, most, scale, good)
    return None
