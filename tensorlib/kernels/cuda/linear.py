"""The dense layer with ReLU: bias, ReLU and dropout in one pass over the product."""

from __future__ import annotations

from typing import Any

from tensorlib.kernels.cuda.dropout import dropout_pass
from tensorlib.kernels.cuda.launch import NOT_SERVED, elementwise, fits, overrides
from tensorlib.ops.linalg import product
from tensorlib.ops.linear import linear_relu_formula, linear_relu_gradient


@overrides(linear_relu_formula)
def _linear_relu(x: Any, weight: Any, bias: Any, p: float, key: int, draw: int) -> Any:
    if not fits(x, weight, *([] if bias is None else [bias])):
        return NOT_SERVED
    z = product(x, weight)
    return dropout_pass(z, p, key, draw, bias=bias, relu=True) if z.size else z


@overrides(linear_relu_gradient)
def _linear_relu_gradient(dy: Any, y: Any, scale: float) -> Any:
    if not fits(y, dy):
        return NOT_SERVED
    return elementwise("T dy, T y, T scale", "T dz", "dz = y <= 0 ? 0 : dy * scale")(dy, y, scale)
