"""Normalization of rows and of channels, and of vectors to length 1."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.errors import called_op
from tensorlib.engine.function import Function, as_tensor, derivation
from tensorlib.ops.arguments import Axis, at_least_float32, check_flag, checked_floating, checked_real
from tensorlib.ops.arithmetic import maximum
from tensorlib.ops.elementwise import rsqrt
from tensorlib.ops.indexing import where
from tensorlib.ops.reduce import norm
from tensorlib.ops.shape import broadcast_to

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["batch_norm", "cosine_similarity", "layer_norm", "normalize", "rms_norm"]


# ---- over the last axis --------------------------------------------------------------------------------------------


class LayerNorm(Function):
    """y = (x - mean) / sqrt(var + eps) · weight + bias with statistics over the last axis (Ba et al. 2016, section 3).

    With rstd = 1 / sqrt(var + eps), h = (x - mean) rstd, g = dy weight: dmean/dx_j = 1/D, drstd/dx_j = -rstd^2 h_j / D
    =>  dx = rstd (g - mean(g) - h mean(g h)), dweight = sum of dy h, dbias = sum of dy over all rows.

    Keeps x and weight; statistics: mean, 1/std.
    Kernels: numpy/normalize.py, numba/normalize.py, cuda/normalize.py.
    """

    fresh = True

    def forward(self, x: Array, weight: Array, bias: Array, eps: float) -> Array:
        self.eps = eps
        y, self.statistics = layer_norm_formula(x, weight, bias, eps)
        self.save(x, weight)
        return y

    def backward(self, dy: Array) -> Any:
        x, weight = self.saved
        mean, rstd = self.statistics or layer_norm_statistics(x, self.eps)
        return layer_norm_gradient(dy, x, weight, mean, rstd, self.needs)


def layer_norm_statistics(x: Array, eps: float) -> tuple[Array, Array]:
    """Return the mean and 1 / sqrt(variance + eps) over the last axis."""
    width = max(x.shape[-1], 1)  # the mean of an empty axis would cause a warning
    mean = x.sum(axis=-1, keepdims=True) / width
    centred = x - mean
    return mean, 1 / namespace_of(x).sqrt((centred * centred).sum(axis=-1, keepdims=True) / width + eps)


@singledispatch
def layer_norm_formula(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, tuple[Array, Array]]:
    mean, rstd = layer_norm_statistics(x, eps)
    return (x - mean) * rstd * weight + bias, (mean, rstd)


@singledispatch
def layer_norm_gradient(
    dy: Array, x: Array, weight: Array, mean: Array, rstd: Array, needs: tuple[bool, ...]
) -> tuple[Array | None, Array | None, Array | None]:
    """Return dx, dweight and dbias; each is None if it is not needed."""
    dx = dweight = dbias = None
    rows, width = tuple(range(x.ndim - 1)), max(x.shape[-1], 1)
    h = (x - mean) * rstd
    if needs[0]:
        g = dy * weight
        dx = rstd * (g - (g.sum(axis=-1, keepdims=True) + h * (g * h).sum(axis=-1, keepdims=True)) / width)
    if needs[1]:
        dweight = (dy * h).sum(axis=rows)
    if needs[2]:
        dbias = dy.sum(axis=rows)
    return dx, dweight, dbias


@derivation(LayerNorm)
@at_least_float32
def layer_norm(
    x: TensorLike, weight: TensorLike | None = None, bias: TensorLike | None = None, eps: float = 1e-5
) -> Tensor:
    """Return x (..., D) normalized to mean 0 and variance 1 over its last axis, times `weight` plus `bias` (D,).

    By default the weight is 1 and the bias 0. float16 is computed in float32.

    Raises TypeError if x is not floating, and ValueError if `weight` or `bias` differs in size from the last axis of x.

    >>> tl.layer_norm([[1.0, 2.0, 3.0]])
    Tensor([[-1.2247  0.      1.2247]], shape=(1, 3), dtype=float32)
    """
    x = checked_floating("layer_norm", "x", x)
    weight, bias = feature_vectors("layer_norm", x, -1, weight=weight, bias=bias)
    xp, width = x.backend.xp, x.shape[-1:]
    weight = xp.ones(width, x.dtype) if weight is None else weight
    bias = xp.zeros(width, x.dtype) if bias is None else bias
    return LayerNorm.apply(x, weight, bias, eps=checked_eps("layer_norm", eps))


@at_least_float32
def rms_norm(x: TensorLike, weight: TensorLike | None = None, eps: float = 1e-6) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) over the last axis of x (..., D), times `weight` (D,) if given.

    This is layer normalization without the mean (Zhang and Sennrich 2019, equation 4). float16 is computed in float32.

    With r = 1 / sqrt(mean(x^2) + eps) and g = dy weight  =>  dx = r (g - x r^2 mean(g x)), dweight = sum of dy x r.

    >>> tl.rms_norm([[1.0, 2.0, 3.0]])
    Tensor([[0.4629 0.9258 1.3887]], shape=(1, 3), dtype=float32)
    """
    x = checked_floating("rms_norm", "x", x)
    (weight,) = feature_vectors("rms_norm", x, -1, weight=weight)
    y = x * rsqrt(x.square().mean(axis=-1, keepdims=True) + checked_eps("rms_norm", eps))
    return y if weight is None else y * weight


# ---- over the batch ------------------------------------------------------------------------------------------------


@overload
def batch_norm(
    x: TensorLike,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    mean: TensorLike | None = None,
    var: TensorLike | None = None,
    eps: float = 1e-5,
    return_statistics: Literal[False] = False,
) -> Tensor: ...
@overload
def batch_norm(
    x: TensorLike,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    mean: TensorLike | None = None,
    var: TensorLike | None = None,
    eps: float = 1e-5,
    *,
    return_statistics: Literal[True],
) -> tuple[Tensor, Tensor, Tensor]: ...
def batch_norm(
    x: TensorLike,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    mean: TensorLike | None = None,
    var: TensorLike | None = None,
    eps: float = 1e-5,
    return_statistics: bool = False,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Return (x - mean) / sqrt(var + eps) · weight + bias, with one mean and variance for each channel.

    The channels are axis 1 of x (B, C, ...); `weight`, `bias`, `mean` and `var` are (C,). If `mean` and `var` are
    None, those of the batch are used (over all axes but axis 1, with divisor n), and gradients flow through them, as in
    training; otherwise both must be given, as in evaluation. With `return_statistics` the result is (y, mean, var),
    from which a module updates its running averages; if x is float16, mean and var are float32. See Ioffe and Szegedy
    2015, algorithm 1.

    With r = 1 / sqrt(var + eps), h = (x - mean) r and g = dy weight, over the batch:
    =>  dx = r (g - mean(g) - h mean(g h)), or r g if mean and var are constants; dweight = sum dy h, dbias = sum dy.

    >>> tl.batch_norm([[1.0, 10.0], [3.0, 30.0]])
    Tensor([[-1. -1.]
            [ 1.  1.]], shape=(2, 2), dtype=float32)
    """
    check_flag("batch_norm", "return_statistics", return_statistics)
    x, eps = checked_floating("batch_norm", "x", x), checked_eps("batch_norm", eps)
    if (mean is None) != (var is None):
        raise ValueError(f"batch_norm: mean and var must come together, got only {'mean' if var is None else 'var'}")
    weight, bias, mean, var = feature_vectors("batch_norm", x, 1, weight=weight, bias=bias, mean=mean, var=var)
    if x.dtype == "float16":
        y, mean, var = batch_norm(x.astype("float32"), weight, bias, mean, var, eps, return_statistics=True)
        return (y.astype("float16"), mean, var) if return_statistics else y.astype("float16")
    others = (0, *range(2, x.ndim))

    def per_channel(z: Tensor) -> Tensor:
        return z.reshape(-1, *(1,) * (x.ndim - 2))

    if mean is None or var is None:
        mean = x.mean(axis=others)
        var = (x - per_channel(mean)).square().mean(axis=others)
    scale = rsqrt(var + eps)
    y = (x - per_channel(mean)) * per_channel(scale if weight is None else scale * weight)
    y = y if bias is None else y + per_channel(bias)
    return (y, mean, var) if return_statistics else y


# ---- to length 1 ---------------------------------------------------------------------------------------------------


@at_least_float32
def normalize(x: TensorLike, ord: float = 2, axis: Axis = -1, eps: float = 1e-12) -> Tensor:
    """Return x / max(n, eps) with n = (sum |x|^ord)^(1/ord) over `axis`: vectors of length 1.

    `ord` is 1 or more; infinity means the largest |x|. A vector of zeros stays zero, with gradient dy / eps. float16 is
    computed in float32. For ord = 2 and y = x / n  =>  dx = (dy - y <dy, y>) / n.

    >>> tl.normalize([3.0, 4.0])
    Tensor([0.6 0.8], shape=(2,), dtype=float32)
    """
    x = checked_floating("normalize", "x", x)
    if not checked_real("normalize", "ord", ord) >= 1:
        raise ValueError(f"normalize: ord must be 1 or more (below 1 it is not a norm), got {ord}")
    length = norm(x, ord, axis, keepdims=True)
    zero = length.detach() == 0
    if not isinstance(zero.data, np.ndarray) or zero.data.any():  # x / eps is smooth where the norm itself has a kink
        length = where(zero, 0.0, norm(where(zero, 1.0, x), ord, axis, keepdims=True))
    return x / maximum(length, checked_eps("normalize", eps))


@at_least_float32
def cosine_similarity(x: TensorLike, y: TensorLike, axis: int = -1, eps: float = 1e-8) -> Tensor:
    """Return the cosine of the angle between x and y along `axis`: c = <x, y> / (max(|x|, eps) max(|y|, eps)).

    With u = x / |x| and v = y / |y|  =>  dx = dc (v - c u) / |x|, dy = dc (u - c v) / |y|.

    x and y broadcast; the result lacks `axis`. A vector of zeros has cosine 0 with every vector, and finite gradients.
    float16 is computed in float32.

    >>> tl.cosine_similarity([1.0, 0.0], [[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    Tensor([1.     0.     0.7071], shape=(3,), dtype=float32)
    """
    x = as_tensor(x)
    y = as_tensor(y, like=x)
    try:
        shape = np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        raise ValueError(f"cosine_similarity: shapes must broadcast, got {x.shape} and {y.shape}") from None
    x, y = (normalize(broadcast_to(z, shape), 2, axis, eps) for z in (x, y))
    return (x * y).sum(axis=axis)


# ---- checks of arguments -------------------------------------------------------------------------------------------


def checked_eps(name: str, eps: Any) -> float:
    eps = checked_real(name, "eps", eps)
    if not eps >= 0:
        raise ValueError(f"{called_op(name)}: eps must be at least 0, got {eps}")
    return eps


def feature_vectors(name: str, x: Tensor, axis: int, **given: Any) -> list[Tensor | None]:
    """Return the given vectors as Tensors (None stays None), after checking that each has the size of axis `axis`."""
    if x.ndim < (axis + 1 if axis >= 0 else 1):
        raise ValueError(f"{name}: x must have {'a last axis' if axis < 0 else 'an axis 1'}, got shape {x.shape}")
    found: list[Tensor | None] = []
    for argument, z in given.items():
        z = None if z is None else as_tensor(z, like=x)
        if z is not None and z.shape != (x.shape[axis],):
            raise ValueError(
                f"{name}: {argument} must have the size of {'the last axis' if axis < 0 else 'axis 1'} of x, "
                f"({x.shape[axis]},) for x {x.shape}; got {z.shape}"
            )
        if z is not None and z.dtype.kind != "f":
            raise TypeError(
                f"{name}: {argument} must be floating, got {z.dtype}; no shape is given, as it would be to PyTorch's"
            )
        found.append(z)
    return found
