"""Losses between numbers and between probabilities, composed of ops."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tensorlib.engine.function import as_tensor
from tensorlib.messages import shown
from tensorlib.ops.arguments import as_floating, at_least_float32, check_flag, checked_real
from tensorlib.ops.arithmetic import clip
from tensorlib.ops.exponential import softplus
from tensorlib.ops.indexing import where

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["binary_cross_entropy_with_logits", "huber_loss", "kl_div", "l1_loss", "mse_loss"]


@at_least_float32  # squares and sums would overflow at 65504
def mse_loss(x: TensorLike, targets: TensorLike, reduction: str = "mean") -> Tensor:
    """Return the squared error e^2, where e = x - targets; both have the same shape.

    loss = e^2  =>  dx = dloss · 2 e, dtargets = -dx. `reduction` is "mean" (over all elements), "sum" or "none".

    Raises ValueError if the shapes differ, instead of broadcasting.

    >>> tl.mse_loss([1.0, 2.0], [1.0, 4.0])
    Tensor(2., shape=(), dtype=float32)
    """
    check_reduction("mse_loss", reduction)
    x, targets = _same_shape("mse_loss", x, targets)
    return _apply_reduction((x - targets).square(), reduction)


@at_least_float32
def l1_loss(x: TensorLike, targets: TensorLike, reduction: str = "mean") -> Tensor:
    """Return the absolute error |e|, where e = x - targets; both have the same shape.

    loss = |e|  =>  dx = dloss sign(e), 0 where e = 0; dtargets = -dx. `reduction` is "mean" (over all elements), "sum"
    or "none".

    Raises ValueError if the shapes differ, instead of broadcasting.

    >>> tl.l1_loss([1.0, 2.0], [1.0, 4.0])
    Tensor(1., shape=(), dtype=float32)
    """
    check_reduction("l1_loss", reduction)
    x, targets = _same_shape("l1_loss", x, targets)
    return _apply_reduction((x - targets).abs(), reduction)


@at_least_float32
def huber_loss(x: TensorLike, targets: TensorLike, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """Return e^2 / 2 where the error e = x - targets is within +-`delta`, and delta (|e| - delta / 2) beyond.

    It is quadratic near 0, linear far out (Huber 1964)  =>  dx = dloss clip(e, -delta, delta), dtargets = -dx.
    `x` and `targets` have the same shape. `reduction` is "mean" (over all elements), "sum" or "none".

    Raises ValueError if the shapes differ, instead of broadcasting, or if `delta` is not above 0.

    >>> tl.huber_loss([0.5, 3.0], [0.0, 0.0], reduction="none")
    Tensor([0.125 2.5  ], shape=(2,), dtype=float32)
    """
    check_reduction("huber_loss", reduction)
    delta = checked_real("huber_loss", "delta", delta)
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be larger than 0, got {delta}")
    x, targets = _same_shape("huber_loss", x, targets)
    error = x - targets
    near = clip(error, -delta, delta)
    return _apply_reduction(near * (error - 0.5 * near), reduction)  # both cases in one, without an overflowing square


@at_least_float32
def binary_cross_entropy_with_logits(
    logits: TensorLike, targets: TensorLike, pos_weight: TensorLike | None = None, reduction: str = "mean"
) -> Tensor:
    """Return -(w t log p + (1 - t) log(1 - p)), in nats, with p = sigmoid(logits), t the targets, w `pos_weight`.

    `logits` and `targets` (numbers from 0 to 1) have the same shape. `pos_weight`, which broadcasts to it, is how much
    more a positive counts than a negative, for example one number per class. The result is accurate even where p rounds
    to 0 or 1, because it uses -log sigmoid(x) = softplus(-x) and -log(1 - sigmoid(x)) = softplus(x).

    =>  dlogits = dloss ((1 - t) p - w t (1 - p)).

    `reduction` is "mean" (over all elements), "sum" or "none". Raises ValueError if the shapes differ.

    >>> tl.binary_cross_entropy_with_logits([0.0, 2.0], [1.0, 0.0], reduction="none")
    Tensor([0.6931 2.1269], shape=(2,), dtype=float32)
    """
    name = "binary_cross_entropy_with_logits"
    check_reduction(name, reduction)
    logits, targets = _same_shape(name, logits, targets)
    positive = targets * _cost(-logits, targets == 0)
    if pos_weight is not None:
        number = isinstance(pos_weight, (int, float, np.generic))
        positive = positive * (pos_weight if number else as_tensor(pos_weight, like=logits))
        if positive.shape != logits.shape:
            raise ValueError(
                f"{name}: pos_weight must broadcast to the shape of logits, {logits.shape}; "
                f"got {as_tensor(pos_weight).shape}"
            )
    return _apply_reduction(positive + (1 - targets) * _cost(logits, targets == 1), reduction)


def _cost(x: Tensor, excluded: Tensor) -> Tensor:
    """Return softplus(x), but something finite where x is inf and `excluded`, with a weight of 0: 0 · inf is NaN."""
    return softplus(where(excluded & (x == math.inf), -math.inf, x))


@at_least_float32
def kl_div(log_probs: TensorLike, targets: TensorLike, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Return the terms of the Kullback-Leibler divergence of q from p, p (log p - log q), in nats.

    `log_probs` is log q, from the model; `targets`, of the same shape, is p, or log p if `log_target`. An element with
    p = 0 contributes nothing, whatever its log q, and passes no gradient  =>  dlog_probs = -dloss p.

    `reduction` is "sum", "batchmean" (the sum divided by the size of the first axis: the true divergence), "mean"
    (over all elements, including classes, as in PyTorch) or "none".

    >>> tl.kl_div(np.log([0.5, 0.5]), np.array([0.25, 0.75]), reduction="sum")
    Tensor(0.1308, shape=(), dtype=float64)
    """
    check_reduction("kl_div", reduction, ("mean", "sum", "none", "batchmean"))
    check_flag("kl_div", "log_target", log_target)
    log_probs, targets = _same_shape("kl_div", log_probs, targets)
    impossible = targets == (-math.inf if log_target else 0)  # both factors are set to 0 there: 0 · inf would be NaN
    log_q = where(impossible, 0.0, log_probs)
    if log_target:
        terms = targets.exp() * (where(impossible, 0.0, targets) - log_q)
    else:
        terms = targets * (where(impossible, 1.0, targets).log() - log_q)
    if reduction == "batchmean":
        if not terms.ndim:
            raise ValueError("kl_div: reduction 'batchmean' needs an axis for the batch, got shape ()")
        return terms.sum() / max(terms.shape[0], 1)
    return _apply_reduction(terms, reduction)


# ---- shared helpers ------------------------------------------------------------------------------------------------


def check_reduction(name: str, reduction: str, allowed: tuple[str, ...] = ("mean", "sum", "none")) -> None:
    """Raise ValueError, naming the op, for a reduction that is not among those allowed."""
    if not isinstance(reduction, str) or reduction not in allowed:
        listed = ", ".join(map(repr, allowed[:-1]))
        raise ValueError(f"{name}: reduction must be {listed} or {allowed[-1]!r}, got {shown(reduction)}")


def _same_shape(name: str, x: TensorLike, targets: TensorLike) -> tuple[Tensor, Tensor]:
    """Return both as Tensors of the same shape: broadcasting (N,) against (N, 1) would compare every pair."""
    x = as_tensor(x)
    targets = as_tensor(targets, like=x)
    if targets.backend is not x.backend:
        raise TypeError(
            f"{name}: both arguments must be on one backend, got {x.backend.name} and {targets.backend.name}; "
            f"move the targets with .to({x.backend.name!r})"
        )
    if x.dtype.kind != "f" and targets.dtype.kind != "f":
        x = as_floating(x)  # the difference of two uint8 would wrap around
    if x.shape != targets.shape:
        remedy = f"; use targets.reshape{x.shape}" if x.size == targets.size else ""
        raise ValueError(f"{name}: both arguments must have the same shape, got {x.shape} and {targets.shape}{remedy}")
    return x, targets


def _apply_reduction(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()
