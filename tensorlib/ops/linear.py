"""The linear layer x W + b, alone or followed by the ReLU and dropout of a feed-forward block."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.shapes import summed
from tensorlib.engine.function import Function, as_tensor, derivation
from tensorlib.ops.dropout import Dropout, checked_probability, dropout_scale, next_draw
from tensorlib.ops.linalg import product, rows

if TYPE_CHECKING:
    from tensorlib.arrays.random import Generator
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["linear", "linear_relu"]


class Linear(Function):
    """z = x W + b for the rows of x (..., D), W (D, E), b (E,).

    z_ne = sum_d x_nd W_de + b_e  =>  dx = dz W^T, dW = x^T dz, db = sum_n dz_n.

    Keeps x and weight.
    Kernels: numpy/linear.py, numba/linear.py, cuda/linear.py.
    """

    fresh = True

    def forward(self, x: Array, weight: Array, *bias: Array) -> Array:
        self.save(x, weight)
        return linear_formula(x, weight, *bias)

    def backward(self, dz: Array) -> Any:
        x, weight = self.saved
        return linear_gradient(dz, x, weight, self.needs)


@singledispatch
def linear_formula(x: Array, weight: Array, bias: Array | None = None) -> Array:
    z = product(x, weight)
    return z if bias is None else z + bias


@singledispatch
def linear_gradient(dz: Array, x: Array, weight: Array, needs: tuple[bool, ...]) -> tuple[Array | None, ...]:
    """Return dx, dweight and, if there is a bias, dbias; each is None if it is not needed."""
    return (
        product(dz, weight.swapaxes(0, 1)) if needs[0] else None,
        product(rows(x).swapaxes(0, 1), rows(dz)) if needs[1] else None,
        *[summed(rows(dz), (0,)) if needed else None for needed in needs[2:]],
    )


class LinearRelu(Function):
    """y = max(x W + b, 0) · m, where m is dropout's mask: 0 or 1/(1-p).

    =>  d(x W + b) = dy / (1-p) where y > 0, else 0; the rest is as in Linear.

    The y of an inactive unit and that of a dropped unit are both 0. So y alone shows where the gradient flows, and the
    mask need not be drawn again. A NaN propagates and receives its gradient, as in `relu`.

    Keeps x, weight and y.
    Kernels: numpy/linear.py, numba/linear.py, cuda/linear.py.
    """

    fresh = True

    def forward(self, x: Array, weight: Array, *bias: Array, p: float, key: int, draw: int) -> Array:
        self.scale = dropout_scale(p) if p else 1.0
        y = linear_relu_formula(x, weight, bias[0] if bias else None, p, key, draw)
        self.save(x, weight, y)
        return y

    def backward(self, dy: Array) -> Any:
        x, weight, y = self.saved
        return linear_gradient(linear_relu_gradient(dy, y, self.scale), x, weight, self.needs)


@singledispatch
def linear_relu_formula(x: Array, weight: Array, bias: Array | None, p: float, key: int, draw: int) -> Array:
    z = linear_formula(x, weight) if bias is None else linear_formula(x, weight, bias)
    y = namespace_of(z).maximum(z, 0)
    return Dropout.run(y, p=p, key=key, draw=draw) if p else y


@singledispatch
def linear_relu_gradient(dy: Array, y: Array, scale: float) -> Array:
    """Return dz, where y = scale · z if z > 0 and z was not dropped, else 0."""
    return namespace_of(dy).where(y <= 0, 0, dy * scale)


@derivation(Linear)
def linear(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None) -> Tensor:
    """Return x weight + bias for x (..., D), weight (D, E) and bias (E,): (..., E).

    The weight is (in, out), so that the formula reads as in the papers; PyTorch's weight is its transpose.

    Raises ValueError if the shapes don't fit.

    >>> tl.linear([[1.0, 2.0]], [[1.0, 0.0, 2.0], [0.0, 1.0, 2.0]], [0.5, 0.5, 0.5])
    Tensor([[1.5 2.5 6.5]], shape=(1, 3), dtype=float32)
    """
    return Linear.apply(*linear_operands("linear", x, weight, bias))


@derivation(LinearRelu)
def linear_relu(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    dropout: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """Return dropout(relu(x weight + bias)) for x (..., D), weight (D, E) and bias (E,): (..., E).

    This is the first half of a feed-forward block (Vaswani et al. 2017, equation 2) in one op; on a CPU it works on
    numbers that are still in the cache. `dropout` and `generator` are as in `tl.dropout`.

    >>> tl.linear_relu([[1.0, 2.0]], [[1.0, -1.0], [1.0, -1.0]])
    Tensor([[3. 0.]], shape=(1, 2), dtype=float32)
    """
    p = checked_probability("linear_relu", "dropout", dropout)
    key, draw = next_draw("linear_relu", p, generator)
    return LinearRelu.apply(*linear_operands("linear_relu", x, weight, bias), p=p, key=key, draw=draw)


def linear_operands(name: str, x: TensorLike, weight: TensorLike, bias: TensorLike | None) -> tuple[Tensor, ...]:
    """Return x, weight and, if given, bias as Tensors, after checking that their shapes fit."""
    x = as_tensor(x)
    weight = as_tensor(weight, like=x)
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[:1]:
        hint = "; did you mean weight.T?" if weight.ndim == 2 and x.shape[-1:] == weight.shape[1:] else ""
        raise ValueError(f"{name}: x must be (..., in) and weight (in, out), got {x.shape} and {weight.shape}{hint}")
    if bias is None:
        return x, weight
    bias = as_tensor(bias, like=x)
    if bias.shape != weight.shape[1:]:
        hint = "; targets come after the bias, which may be None" if bias.dtype.kind in "iu" else ""
        raise ValueError(
            f"{name}: bias must have shape {weight.shape[1:]}, the outputs of weight; got {bias.shape}{hint}"
        )
    return x, weight, bias
