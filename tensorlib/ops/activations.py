"""What stands between two layers, elementwise. Sigmoid and softplus are in exponential.py, tanh in trigonometric.py."""

from __future__ import annotations

import math
from typing import Any

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.function import Function, as_tensor
from tensorlib.messages import shown
from tensorlib.ops.arguments import as_floating, at_least_float32, checked_real, normalized_axis
from tensorlib.ops.arithmetic import clip
from tensorlib.ops.elementwise import Erf
from tensorlib.ops.elementwise import abs as absolute
from tensorlib.ops.exponential import expm1, sigmoid, softplus
from tensorlib.ops.indexing import where
from tensorlib.ops.shape import split
from tensorlib.ops.trigonometric import tanh

__all__ = ["elu", "gelu", "glu", "hardtanh", "leaky_relu", "mish", "relu", "silu", "softsign", "swiglu"]


# ---- with a kink -------------------------------------------------------------------------------------------------


class Relu(Function):
    """y = max(x, 0)  =>  dx = 0 where x <= 0 (also at 0), else dy: a NaN stays one, and gets its gradient."""

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).maximum(x, 0)
        self.save(y)  # y <= 0 exactly where x <= 0, so x may be freed
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return namespace_of(dy).where(y <= 0, 0, dy)  # and not dy * (y > 0): an infinite dy times 0 would be NaN


def relu(x: Any) -> Any:
    """Return max(x, 0), elementwise (Nair and Hinton 2010)."""
    return Relu.apply(x)


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """Return x where x > 0, else negative_slope · x, elementwise (Maas, Hannun and Ng 2013)."""
    x = as_tensor(x)
    return where(x > 0, x, negative_slope * x)


def elu(x: Any, alpha: float = 1.0) -> Any:
    """Return x where x > 0, else alpha (e^x - 1), elementwise (Clevert, Unterthiner and Hochreiter 2016, eq. 15)."""
    x = as_floating(x)
    return where(x > 0, x, alpha * expm1(clip(x, max=0)))  # clipped, for e^1000 overflows where it is not chosen, too


def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """Return x limited to [min_val, max_val], elementwise; at the bounds the gradient is 0 (clip passes it there)."""
    min_val, max_val = checked_real("hardtanh", "min_val", min_val), checked_real("hardtanh", "max_val", max_val)
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val must not be above max_val, got {min_val} and {max_val}; exchange them")
    x = as_tensor(x)
    return where((x > min_val) & (x < max_val), x, clip(x.detach(), min_val, max_val))


# ---- smooth ------------------------------------------------------------------------------------------------------


def softsign(x: Any) -> Any:
    """Return x / (1 + |x|), elementwise (Bergstra et al. 2009)."""
    x = as_floating(x)
    return x / (1 + absolute(x))


def silu(x: Any) -> Any:
    """Return x sigmoid(x), elementwise: also called swish (Elfwing et al. 2017; Ramachandran et al. 2017)."""
    x = as_floating(x)
    return x * sigmoid(x)


def mish(x: Any) -> Any:
    """Return x tanh(softplus(x)), elementwise (Misra 2019)."""
    x = as_floating(x)
    return x * tanh(softplus(x))


class Gelu(Function):
    """y = x P(x), P(x) = (1 + erf(x / sqrt(2))) / 2, how much of a normal distribution lies below x.

    P'(x) = p(x) = exp(-x^2 / 2) / sqrt(2 pi)  =>  dx = dy (P(x) + x p(x)).
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        self.statistics = portion = normal_portion(x)
        return x * portion

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        portion = normal_portion(x) if self.statistics is None else self.statistics
        xp = namespace_of(dy)
        near = xp.clip(x, -40, 40)  # beyond, p(x) is 0 in every dtype, and infinity · 0 would be NaN
        return dy * (portion + near * xp.exp(-0.5 * near * near) * (1 / math.sqrt(2 * math.pi)))


def normal_portion(x: Array) -> Array:
    """Return the probability that a standard normal variable is below x."""
    return 0.5 + 0.5 * Erf.run(x * math.sqrt(0.5))


class GeluTanh(Function):
    """y = x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3).

    dy/dx = (1 + tanh u) / 2 + x (1 - tanh^2 u) / 2 · du/dx,  du/dx = sqrt(2/pi) (1 + 3 · 0.044715 x^2).
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        t, _ = tanh_of_cubic(x)
        return 0.5 * x * (1 + t)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        t, near = tanh_of_cubic(x)
        slope = _GELU_SCALE * (1 + 3 * _GELU_CUBIC * near * near)
        return dy * (0.5 * (1 + t) + 0.5 * near * (1 - t * t) * slope)


_GELU_SCALE = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


def tanh_of_cubic(x: Array) -> tuple[Array, Array]:
    """Return tanh u and x kept within 10 of 0: beyond, tanh u is -1 or 1 to the last digit, but x^3 may overflow."""
    xp = namespace_of(x)
    near = xp.clip(x, -10, 10)
    return xp.tanh(_GELU_SCALE * (near + _GELU_CUBIC * near * near * near)), near


@at_least_float32  # the digits of float16 would cancel in 1 + erf on the left
def gelu(x: Any, approximate: str = "none") -> Any:
    """Return the Gaussian error linear unit x P(x), elementwise, P(x) the share of a normal distribution below x.

    With `approximate="tanh"`, P by its approximation with a tanh (Hendrycks and Gimpel 2016, section 2). It differs by
    up to 5e-4, and is quicker.
    """
    forms = {"none": Gelu, "tanh": GeluTanh}
    if not isinstance(approximate, str) or approximate not in forms:
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {shown(approximate)}")
    x = as_floating(x)
    return forms[approximate].apply(x)


# ---- gates -------------------------------------------------------------------------------------------------------


def glu(x: Any, axis: int = -1) -> Any:
    """Return a · sigmoid(b), where a and b are the two halves of x along `axis` (Dauphin et al. 2017, section 2)."""
    a, b = _halves(x, axis, "glu")
    return a * sigmoid(b)


def swiglu(x: Any, axis: int = -1) -> Any:
    """Return silu(a) · b, where a and b are the two halves of x along `axis`.

    Shazeer 2020, "GLU variants improve Transformer", equation 5, where a = x W and b = x V: one product with [W V].
    """
    a, b = _halves(x, axis, "swiglu")
    return silu(a) * b


def _halves(x: Any, axis: int, name: str) -> Any:
    x = as_tensor(x)
    axis = normalized_axis(axis, x.ndim, name)
    if x.shape[axis] % 2:
        raise ValueError(f"{name}: the size along axis {axis} must be even, to be halved, got shape {x.shape}")
    return split(x, 2, axis)
