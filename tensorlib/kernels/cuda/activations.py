"""The error function and the Gaussian error linear unit, in one pass each way: 2, 3 and 4 arrays of memory traffic."""

from __future__ import annotations

from typing import Any

from tensorlib.kernels.cuda.launch import NOT_SERVED, elementwise, fits, overrides
from tensorlib.ops.activations import gelu_formula, gelu_gradient
from tensorlib.ops.elementwise import erf_formula


@overrides(erf_formula)
def _erf(x: Any) -> Any:
    return elementwise("T x", "T y", "y = erf(x)")(x) if fits(x) else NOT_SERVED


@overrides(gelu_formula)
def _gelu(x: Any) -> Any:
    if not fits(x):
        return NOT_SERVED
    operation = "portion = (T)0.5 + (T)0.5 * erf(x * (T)0.70710678118654752); y = x * portion"
    return elementwise("T x", "T y, T portion", operation)(x)


@overrides(gelu_gradient)
def _gelu_gradient(dy: Any, x: Any, portion: Any) -> Any:
    if not fits(x, dy, portion):
        return NOT_SERVED
    operation = """
    const T near = x < -40 ? (T)-40 : x > 40 ? (T)40 : x;  // as in the formula: infinity times 0 would be NaN
    dx = dy * (portion + near * exp((T)-0.5 * near * near) * (T)0.39894228040143268);
    """
    return elementwise("T dy, T x, T portion", "T dx", operation)(dy, x, portion)
