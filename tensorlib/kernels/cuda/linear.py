"""The dense layer: bias, ReLU and dropout in one pass over the product; a bias' gradient by sums in a fixed order."""

from __future__ import annotations

from typing import Any

from tensorlib.kernels.cuda.columns import column_sums, relu_gradient
from tensorlib.kernels.cuda.dropout import dropout_pass
from tensorlib.kernels.cuda.launch import NOT_SERVED, contiguous, fits, overrides
from tensorlib.ops.linalg import product, rows
from tensorlib.ops.linear import linear_formula, linear_gradient, linear_relu_formula, linear_relu_gradient

__all__ = ["after_product"]


def after_product(z: Any, bias: Any, relu: bool = False, p: float = 0.0, key: int = 0, draw: int = 0) -> Any:
    """Return dropout(relu(z + bias)), in place if possible, for a product z that nothing else refers to."""
    if not z.size or (bias is None and not relu):
        return z
    z = contiguous(z)
    return dropout_pass(z, p, key, draw, bias=bias, relu=relu, out=z)


@overrides(linear_formula)
def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    if bias is None or not fits(x, weight, bias):
        return NOT_SERVED
    return after_product(product(x, weight), bias)


@overrides(linear_gradient)
def _linear_gradient(dz: Any, x: Any, weight: Any, needs: tuple[bool, ...]) -> Any:
    if not any(needs[2:]) or not fits(dz, x, weight):
        return NOT_SERVED
    dx = product(dz, weight.swapaxes(0, 1)) if needs[0] else None
    dweight = product(rows(x).swapaxes(0, 1), rows(dz)) if needs[1] else None
    return dx, dweight, column_sums(rows(dz))


@overrides(linear_relu_formula)
def _linear_relu(x: Any, weight: Any, bias: Any, p: float, key: int, draw: int) -> Any:
    if not fits(x, weight, *([] if bias is None else [bias])):
        return NOT_SERVED
    return after_product(product(x, weight), bias, True, p, key, draw)


@overrides(linear_relu_gradient)
def _linear_relu_gradient(dy: Any, y: Any, scale: float) -> Any:
    if not fits(y, dy):
        return NOT_SERVED
    return relu_gradient(dy, y, scale)[0]
