"""Normalisation: of rows, of channels, of vectors to length 1."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.errors import called_op
from tensorlib.engine.function import Function, as_tensor
from tensorlib.ops.arguments import Axis, at_least_float32, check_flag, checked_real
from tensorlib.ops.arithmetic import maximum
from tensorlib.ops.elementwise import rsqrt
from tensorlib.ops.reduce import norm
from tensorlib.ops.shape import broadcast_to

__all__ = ["batch_norm", "cosine_similarity", "layer_norm", "normalize", "rms_norm"]


# ---- over the last axis ------------------------------------------------------------------------------------------


class LayerNorm(Function):
    """y = (x - mean) / sqrt(var + eps) · weight + bias, statistics over the last axis (Ba et al. 2016, section 3)."""

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
    width = max(x.shape[-1], 1)  # the mean of nothing would warn
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
    # With h = (x - mean) rstd and g = dy weight:  dmean/dx_j = 1/D,  drstd/dx_j = -rstd^2 h_j / D
    # => dx = rstd (g - mean(g) - h mean(g h)),   dweight = sum of dy h,   dbias = sum of dy over all rows.
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


@at_least_float32
def layer_norm(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Return x (..., D) normalised to mean 0 and variance 1 over its last axis, times `weight` plus `bias` (D,).

    Without weight the scale is 1, without bias the shift is 0. Ba et al. 2016, section 3.
    """
    x = _floating("layer_norm", x)
    weight, bias = _per_feature("layer_norm", x, -1, weight=weight, bias=bias)
    xp, width = x.backend.xp, x.shape[-1:]
    weight = xp.ones(width, x.dtype) if weight is None else weight
    bias = xp.zeros(width, x.dtype) if bias is None else bias
    return LayerNorm.apply(x, weight, bias, eps=_not_negative("layer_norm", eps))


@at_least_float32
def rms_norm(x: Any, weight: Any = None, eps: float = 1e-6) -> Any:
    """Return x / sqrt(mean(x^2) + eps) over the last axis of x (..., D), times `weight` (D,) if there is one.

    Zhang and Sennrich 2019, equation 4: layer normalisation without the mean.
    """
    x = _floating("rms_norm", x)
    (weight,) = _per_feature("rms_norm", x, -1, weight=weight)
    y = x * rsqrt(x.square().mean(axis=-1, keepdims=True) + _not_negative("rms_norm", eps))
    return y if weight is None else y * weight


# ---- over the batch ----------------------------------------------------------------------------------------------


def batch_norm(
    x: Any,
    weight: Any = None,
    bias: Any = None,
    mean: Any = None,
    var: Any = None,
    eps: float = 1e-5,
    return_statistics: bool = False,
) -> Any:
    """Return (x - mean) / sqrt(var + eps) · weight + bias, one mean and variance for each channel.

    Axis 1 of x (B, C, ...) is the channels; `weight`, `bias`, `mean` and `var` are (C,). Without `mean` and `var` they
    are those of the batch, over all axes but axis 1, with divisor n, and gradients flow through them (training); with
    both they are constants, or whatever the caller computed (evaluation). With `return_statistics` the result is
    (y, mean, var), from which a module keeps its running averages; of float16 they are float32. Ioffe and Szegedy
    2015, algorithm 1.
    """
    check_flag("batch_norm", "return_statistics", return_statistics)
    x, eps = _floating("batch_norm", x), _not_negative("batch_norm", eps)
    if (mean is None) != (var is None):
        raise ValueError(f"batch_norm: mean and var go together, got only {'mean' if var is None else 'var'}")
    weight, bias, mean, var = _per_feature("batch_norm", x, 1, weight=weight, bias=bias, mean=mean, var=var)
    if x.dtype == "float16":
        y, mean, var = batch_norm(x.astype("float32"), weight, bias, mean, var, eps, return_statistics=True)
        return (y.astype("float16"), mean, var) if return_statistics else y.astype("float16")
    others = (0, *range(2, x.ndim))

    def per_channel(z: Any) -> Any:
        return z.reshape(-1, *(1,) * (x.ndim - 2))

    if mean is None:
        mean = x.mean(axis=others)
        var = (x - per_channel(mean)).square().mean(axis=others)
    scale = rsqrt(var + eps)
    y = (x - per_channel(mean)) * per_channel(scale if weight is None else scale * weight)
    y = y if bias is None else y + per_channel(bias)
    return (y, mean, var) if return_statistics else y


# ---- to length 1 -------------------------------------------------------------------------------------------------


@at_least_float32
def normalize(x: Any, ord: float = 2, axis: Axis = -1, eps: float = 1e-12) -> Any:
    """Return x / max(norm, eps), its norm over `axis` being (sum |x|^ord)^(1/ord): vectors of length 1.

    `ord` is 1 or more; inf means the largest |x|. A vector of zeros stays one, with gradient dy / eps.
    """
    x = _floating("normalize", x)
    if not checked_real("normalize", "ord", ord) >= 1:
        raise ValueError(f"normalize: ord must be 1 or more (below it there is no norm), got {ord}")
    return x / maximum(norm(x, ord, axis, keepdims=True), _not_negative("normalize", eps))


@at_least_float32
def cosine_similarity(x: Any, y: Any, axis: int = -1, eps: float = 1e-8) -> Any:
    """Return the cosine of the angle between x and y along `axis`: <x, y> / (max(|x|, eps) max(|y|, eps)).

    Shapes broadcast; the result lacks `axis`. A vector of zeros has cosine 0 with everything, and finite gradients.
    """
    x = as_tensor(x)
    y = as_tensor(y, like=x)
    try:
        shape = np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        raise ValueError(f"cosine_similarity: shapes must broadcast, got {x.shape} and {y.shape}") from None
    x, y = (normalize(broadcast_to(z, shape), 2, axis, eps) for z in (x, y))
    return (x * y).sum(axis=axis)


# ---- what is given, checked --------------------------------------------------------------------------------------


def _not_negative(name: str, eps: Any) -> float:
    eps = checked_real(name, "eps", eps)
    if not eps >= 0:
        raise ValueError(f"{called_op(name)}: eps must be at least 0, got {eps}")
    return eps


def _floating(name: str, x: Any) -> Any:
    x = as_tensor(x)
    if x.dtype.kind != "f":
        raise TypeError(f"{name}: x must be of a floating dtype, got {x.dtype}; use x.astype('float32')")
    return x


def _per_feature(name: str, x: Any, axis: int, **given: Any) -> list[Any]:
    """Return what is given as Tensors, None where it isn't, after checking that each has the size of that axis of x."""
    if x.ndim < (axis + 1 if axis >= 0 else 1):
        raise ValueError(f"{name}: x must have {'a last axis' if axis < 0 else 'an axis 1'}, got shape {x.shape}")
    found = []
    for argument, z in given.items():
        z = None if z is None else as_tensor(z, like=x)
        if z is not None and z.shape != (x.shape[axis],):
            raise ValueError(
                f"{name}: {argument} must have the size of {'the last axis' if axis < 0 else 'axis 1'} of x, "
                f"({x.shape[axis]},) for x {x.shape}; got {z.shape}"
            )
        found.append(z)
    return found
