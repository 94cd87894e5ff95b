"""The dense layer's product."""

from __future__ import annotations

from typing import Any

from tensorlib.function import as_tensor
from tensorlib.ops.linalg import matmul

__all__ = ["linear"]


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """Return x weight + bias for x (..., D), weight (D, E) and bias (E,): (..., E).

    The weight is (in, out), so that it reads as in the papers; PyTorch's is the transpose.
    """
    x = as_tensor(x)
    weight = as_tensor(weight, like=x)
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[:1]:
        hint = "; did you mean weight.T?" if weight.ndim == 2 and x.shape[-1:] == weight.shape[1:] else ""
        raise ValueError(f"linear: x must be (..., in) and weight (in, out), got {x.shape} and {weight.shape}{hint}")
    y = matmul(x, weight)
    if bias is None:
        return y
    bias = as_tensor(bias, like=x)
    if bias.shape != weight.shape[1:]:
        raise ValueError(f"linear: bias must have shape {weight.shape[1:]}, the outputs of weight; got {bias.shape}")
    return y + bias
