"""Layer normalisation."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from tensorlib.backend import Array, namespace_of
from tensorlib.function import Function

__all__ = ["layer_norm"]


class LayerNorm(Function):
    """y = (x - mean) / sqrt(var + eps) · weight + bias, statistics over the last axis (Ba et al. 2016, section 3)."""

    def forward(self, x: Array, weight: Array, bias: Array, eps: float) -> Array:
        self.eps = eps
        y, self.statistics = layer_norm_formula(x, weight, bias, eps)
        self.save(x, weight)
        return y

    def backward(self, dy: Array) -> Any:
        x, weight = self.saved
        mean, rstd = self.statistics or layer_norm_statistics(x, self.eps)
        return layer_norm_gradient(dy, x, weight, mean, rstd)


def layer_norm_statistics(x: Array, eps: float) -> tuple[Array, Array]:
    """Return the mean and 1 / sqrt(variance + eps) over the last axis; for float16 computed in float32."""
    wide = x.astype("float32") if x.dtype == "float16" else x
    mean = wide.mean(axis=-1, keepdims=True)
    centred = wide - mean
    return mean, 1 / namespace_of(x).sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)


@singledispatch
def layer_norm_formula(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, tuple[Array, Array]]:
    mean, rstd = layer_norm_statistics(x, eps)
    y = (x - mean) * rstd * weight + bias
    return y.astype(x.dtype), (mean, rstd)


@singledispatch
def layer_norm_gradient(dy: Array, x: Array, weight: Array, mean: Array, rstd: Array) -> tuple[Array, Array, Array]:
    # With h = (x - mean) rstd and g = dy weight:  dmean/dx_j = 1/D,  drstd/dx_j = -rstd^2 h_j / D
    # => dx = rstd (g - mean(g) - h mean(g h)),   dweight = sum of dy h,   dbias = sum of dy over all rows.
    h = (x - mean) * rstd
    g = dy * weight
    dx = rstd * (g - g.mean(axis=-1, keepdims=True) - h * (g * h).mean(axis=-1, keepdims=True))
    rows = tuple(range(x.ndim - 1))
    return dx, (dy * h).sum(axis=rows), dy.sum(axis=rows)


def layer_norm(x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
    """Return x (..., D) normalised to mean 0 and variance 1 over its last axis, times `weight` plus `bias` (D,)."""
    if x.ndim == 0 or x.shape[-1:] != weight.shape or weight.shape != bias.shape:
        raise ValueError(
            f"layer_norm: weight and bias must have the size of the last axis of x, got x {x.shape}, "
            f"weight {weight.shape}, bias {bias.shape}"
        )
    return LayerNorm.apply(x, weight, bias, eps=eps)
