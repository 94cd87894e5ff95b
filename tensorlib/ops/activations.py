"""Elementwise activations, and gates. `sigmoid` and `softplus` are in exponential.py, `tanh` is in trigonometric.py."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.function import Function, as_tensor, derivation
from tensorlib.messages import shown
from tensorlib.ops.arguments import as_floating, at_least_float32, checked_real, normalized_axis
from tensorlib.ops.arithmetic import clip
from tensorlib.ops.elementwise import Erf
from tensorlib.ops.elementwise import abs as absolute
from tensorlib.ops.exponential import expm1, sigmoid, softplus
from tensorlib.ops.indexing import where
from tensorlib.ops.shape import split
from tensorlib.ops.trigonometric import tanh

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["elu", "gelu", "glu", "hardtanh", "leaky_relu", "mish", "relu", "silu", "softsign", "swiglu"]


# ---- with a kink -------------------------------------------------------------------------------------------------


class Relu(Function):
    """y = max(x, 0)  =>  dx = 0 where x <= 0 (also at 0), otherwise dy. A NaN stays NaN, and dy flows to it.

    Keeps y.
    """

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).maximum(x, 0)
        self.save(y)  # y <= 0 exactly where x <= 0, so x may be freed
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return namespace_of(dy).where(y <= 0, 0, dy)  # not dy * (y > 0): an infinite dy times 0 would be NaN


@derivation(Relu)
def relu(x: TensorLike) -> Tensor:
    """Return max(x, 0), elementwise, in the dtype of x (Nair and Hinton 2010).

    >>> tl.relu([-1.0, 0.0, 2.0])
    Tensor([0. 0. 2.], shape=(3,), dtype=float32)
    """
    return Relu.apply(x)


def leaky_relu(x: TensorLike, negative_slope: float = 0.01) -> Tensor:
    """Return x where x > 0, else negative_slope · x, elementwise (Maas, Hannun and Ng 2013).

    >>> tl.leaky_relu([-1.0, 0.0, 2.0])
    Tensor([-0.01  0.    2.  ], shape=(3,), dtype=float32)

    Composed of `where` and a product  =>  dx = dy where x > 0, else negative_slope · dy.
    """
    x = as_tensor(x)
    return where(x > 0, x, negative_slope * x)


def elu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """Return x where x > 0, else alpha (e^x - 1), elementwise (Clevert, Unterthiner and Hochreiter 2016, eq. 15).

    Integers and booleans give float64.

    >>> tl.elu([-1.0, 0.0, 2.0])
    Tensor([-0.6321  0.      2.    ], shape=(3,), dtype=float32)

    Composed of `where`, `clip` and `expm1`  =>  dx = dy where x > 0, else dy alpha e^x = dy (y + alpha).
    """
    x = as_floating(x)
    return where(x > 0, x, alpha * expm1(clip(x, max=0)))  # e^1000 would overflow even where it is not chosen


def hardtanh(x: TensorLike, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """Return x limited to [min_val, max_val], elementwise.

    Raises ValueError if min_val > max_val.

    >>> tl.hardtanh([-2.0, 0.5, 2.0])
    Tensor([-1.   0.5  1. ], shape=(3,), dtype=float32)

    Composed of `where` and `clip`  =>  dx = dy where min_val < x < max_val, else 0. At the bounds themselves the
    gradient is 0, whereas that of `clip` is dy.
    """
    min_val, max_val = checked_real("hardtanh", "min_val", min_val), checked_real("hardtanh", "max_val", max_val)
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val must not be above max_val, got {min_val} and {max_val}; swap them")
    x = as_tensor(x)
    return where((x > min_val) & (x < max_val), x, clip(x.detach(), min_val, max_val))


# ---- smooth ------------------------------------------------------------------------------------------------------


def softsign(x: TensorLike) -> Tensor:
    """Return x / (1 + |x|), elementwise (Bergstra et al. 2009). Integers and booleans give float64.

    >>> tl.softsign([-1.0, 0.0, 3.0])
    Tensor([-0.5   0.    0.75], shape=(3,), dtype=float32)

    Composed of `abs`, a sum and a quotient  =>  dx = dy / (1 + |x|)^2.
    """
    x = as_floating(x)
    return x / (1 + absolute(x))


@at_least_float32  # far below 0, where x is large and the sigmoid small, float16 would leave few digits
def silu(x: TensorLike) -> Tensor:
    """Return x sigmoid(x), elementwise, also called swish (Elfwing et al. 2017; Ramachandran et al. 2017).

    Integers and booleans give float64.

    >>> tl.silu([-1.0, 0.0, 1.0])
    Tensor([-0.2689  0.      0.7311], shape=(3,), dtype=float32)

    Composed of `sigmoid` and a product: y = x s  =>  dx = dy (s + x s (1 - s)) = dy (s + y (1 - s)).
    """
    x = as_floating(x)
    return x * sigmoid(x)


@at_least_float32
def mish(x: TensorLike) -> Tensor:
    """Return x tanh(softplus(x)), elementwise (Misra 2019). Integers and booleans give float64.

    >>> tl.mish([-1.0, 0.0, 1.0])
    Tensor([-0.3034  0.      0.8651], shape=(3,), dtype=float32)

    Composed of `softplus`, `tanh` and a product: y = x t  =>  dx = dy (t + x (1 - t^2) sigmoid(x)).
    """
    x = as_floating(x)
    return x * tanh(softplus(x))


class Gelu(Function):
    """y = x P(x), with P(x) = (1 + erf(x / sqrt(2))) / 2, the probability that a standard normal variable is below x.

    P'(x) = p(x) = exp(-x^2 / 2) / sqrt(2 pi)  =>  dx = dy (P(x) + x p(x)).

    Keeps x; statistics: P(x).
    Kernels: numba/activations.py, cuda/activations.py.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        y, self.statistics = gelu_formula(x)
        return y

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return gelu_gradient(dy, x, normal_portion(x) if self.statistics is None else self.statistics)


@singledispatch
def gelu_formula(x: Array) -> tuple[Array, Array]:
    """Return y and, for the gradient, P(x)."""
    portion = normal_portion(x)
    return x * portion, portion


@singledispatch
def gelu_gradient(dy: Array, x: Array, portion: Array) -> Array:
    """Return dx, given P(x)."""
    xp = namespace_of(dy)
    near = xp.clip(x, -40, 40)  # outside, p(x) is 0 in every dtype, and infinity · 0 would be NaN
    return dy * (portion + near * xp.exp(-0.5 * near * near) * (1 / math.sqrt(2 * math.pi)))


def normal_portion(x: Array) -> Array:
    """Return the probability that a standard normal variable is below x."""
    return 0.5 + 0.5 * Erf.run(x * math.sqrt(0.5))


class GeluTanh(Function):
    """y = x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3).

    du/dx = sqrt(2/pi) (1 + 3 · 0.044715 x^2)  =>  dx = dy ((1 + tanh u) / 2 + x (1 - tanh^2 u) / 2 · du/dx).

    Keeps x.
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
    """Return tanh u, and x clipped to [-10, 10]: outside, tanh u rounds to -1 or 1, but x^3 may overflow."""
    xp = namespace_of(x)
    near = xp.clip(x, -10, 10)
    return xp.tanh(_GELU_SCALE * (near + _GELU_CUBIC * near * near * near)), near


@derivation(Gelu, GeluTanh)
@at_least_float32  # for x far below 0, 1 + erf would lose all digits of float16
def gelu(x: TensorLike, approximate: str = "none") -> Tensor:
    """Return the Gaussian error linear unit x P(x), elementwise, with P the standard normal distribution function.

    ``approximate="tanh"`` approximates P by a tanh (Hendrycks and Gimpel 2016, section 2), which is faster and differs
    by less than 5e-4. Integers and booleans give float64. Raises ValueError if `approximate` is neither of "none" and
    "tanh".

    >>> tl.gelu([-1.0, 0.0, 1.0])
    Tensor([-0.1587  0.      0.8413], shape=(3,), dtype=float32)
    """
    forms = {"none": Gelu, "tanh": GeluTanh}
    if not isinstance(approximate, str) or approximate not in forms:
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {shown(approximate)}")
    x = as_floating(x)
    return forms[approximate].apply(x)


# ---- gates -------------------------------------------------------------------------------------------------------


def glu(x: TensorLike, axis: int = -1) -> Tensor:
    """Return a · sigmoid(b), where a and b are the two halves of x along `axis` (Dauphin et al. 2017, section 2).

    Raises ValueError if the size along `axis` is odd.

    >>> tl.glu([3.0, 4.0, 0.0, 0.0])
    Tensor([1.5 2. ], shape=(2,), dtype=float32)

    Composed of `split`, `sigmoid` and a product: y = a s  =>  da = dy s, db = dy a s (1 - s) = dy y (1 - s).
    """
    a, b = _halves(x, axis, "glu")
    return a * sigmoid(b)


def swiglu(x: TensorLike, axis: int = -1) -> Tensor:
    """Return silu(a) · b, where a and b are the two halves of x along `axis`.

    In equation 5 of Shazeer 2020, "GLU variants improve Transformer", a = x W and b = x V: one product with [W V].
    Raises ValueError if the size along `axis` is odd.

    >>> tl.swiglu([1.0, 2.0, 3.0, 4.0])
    Tensor([2.1932 7.0464], shape=(2,), dtype=float32)

    Composed of `split`, `silu` and a product  =>  db = dy silu(a), and da = dy b times the slope of `silu`.
    """
    a, b = _halves(x, axis, "swiglu")
    return silu(a) * b


def _halves(x: TensorLike, axis: int, name: str) -> tuple[Tensor, ...]:
    x = as_tensor(x)
    axis = normalized_axis(axis, x.ndim, name)
    if x.shape[axis] % 2:
        raise ValueError(f"{name}: the size along axis {axis} must be even, got shape {x.shape}")
    return split(x, 2, axis)
