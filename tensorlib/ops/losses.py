"""Losses between numbers, between probabilities: sentences made of ops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorlib.engine.function import as_tensor
from tensorlib.messages import shown
from tensorlib.ops.arguments import as_floating, at_least_float32, check_flag, checked_real
from tensorlib.ops.arithmetic import minimum
from tensorlib.ops.exponential import softplus
from tensorlib.ops.indexing import where

__all__ = ["binary_cross_entropy_with_logits", "huber_loss", "kl_div", "l1_loss", "mse_loss"]


@at_least_float32  # squares and sums would overflow at 65504
def mse_loss(x: Any, targets: Any, reduction: str = "mean") -> Any:
    """Return the squared error (x - targets)^2, of inputs of one shape.

    `reduction` is "mean" (over all elements), "sum" or "none".
    """
    check_reduction("mse_loss", reduction)
    x, targets = _pair("mse_loss", x, targets)
    return _reduced((x - targets).square(), reduction)


@at_least_float32
def l1_loss(x: Any, targets: Any, reduction: str = "mean") -> Any:
    """Return the absolute error |x - targets|, of inputs of one shape; its gradient is 0 where they are equal.

    `reduction` is "mean" (over all elements), "sum" or "none".
    """
    check_reduction("l1_loss", reduction)
    x, targets = _pair("l1_loss", x, targets)
    return _reduced((x - targets).abs(), reduction)


@at_least_float32
def huber_loss(x: Any, targets: Any, delta: float = 1.0, reduction: str = "mean") -> Any:
    """Return e^2 / 2 where the error e = |x - targets| is at most `delta`, and delta (e - delta / 2) beyond.

    Quadratic near zero, linear far out, with a slope that is nowhere larger than delta (Huber 1964). `x` and `targets`
    have one shape. `reduction` is "mean" (over all elements), "sum" or "none".
    """
    check_reduction("huber_loss", reduction)
    delta = checked_real("huber_loss", "delta", delta)
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be larger than 0, got {delta}")
    x, targets = _pair("huber_loss", x, targets)
    error = (x - targets).abs()
    near = minimum(error, delta)
    return _reduced(near * (error - 0.5 * near), reduction)  # both cases at once, and no square that could overflow


@at_least_float32
def binary_cross_entropy_with_logits(logits: Any, targets: Any, pos_weight: Any = None, reduction: str = "mean") -> Any:
    """Return -(w t log p + (1 - t) log(1 - p)), in nats, with p = sigmoid(logits), t the targets, w `pos_weight`.

    `logits` and `targets` (numbers from 0 to 1) have one shape, to which `pos_weight` broadcasts: how much more a
    positive counts than a negative, one number a class, say. Exact where p rounds to 0 or 1, as
    -log sigmoid(x) = softplus(-x) and -log(1 - sigmoid(x)) = softplus(x).

    `reduction` is "mean" (over all elements), "sum" or "none".
    """
    name = "binary_cross_entropy_with_logits"
    check_reduction(name, reduction)
    logits, targets = _pair(name, logits, targets)
    positive = targets * softplus(-logits)
    if pos_weight is not None:
        number = isinstance(pos_weight, (int, float, np.generic))
        positive = positive * (pos_weight if number else as_tensor(pos_weight, like=logits))
        if positive.shape != logits.shape:
            raise ValueError(
                f"{name}: pos_weight must broadcast to the shape of logits, {logits.shape}; "
                f"got {as_tensor(pos_weight).shape}"
            )
    return _reduced(positive + (1 - targets) * softplus(logits), reduction)


@at_least_float32
def kl_div(log_probs: Any, targets: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    """Return the terms of the Kullback-Leibler divergence of q from p, p (log p - log q), in nats.

    `log_probs` are log q, the model's; `targets` are p, or log p with `log_target`, of the same shape. A place with
    p = 0 counts nothing, whatever log q is there, and passes no gradient.

    `reduction` is "sum", "batchmean" (the sum by the size of the first axis: the divergence proper), "mean" (over all
    elements, classes too, as in PyTorch) or "none".
    """
    check_reduction("kl_div", reduction, ("mean", "sum", "none", "batchmean"))
    check_flag("kl_div", "log_target", log_target)
    log_probs, targets = _pair("kl_div", log_probs, targets)
    impossible = targets == (-math.inf if log_target else 0)  # there both factors become 0: 0 · inf would be NaN
    log_q = where(impossible, 0.0, log_probs)
    if log_target:
        terms = targets.exp() * (where(impossible, 0.0, targets) - log_q)
    else:
        terms = targets * (where(impossible, 1.0, targets).log() - log_q)
    if reduction == "batchmean":
        if not terms.ndim:
            raise ValueError("kl_div: reduction 'batchmean' needs an axis for the batch, got shape ()")
        return terms.sum() / max(terms.shape[0], 1)
    return _reduced(terms, reduction)


# ---- what they share ---------------------------------------------------------------------------------------------


def check_reduction(name: str, reduction: str, allowed: tuple[str, ...] = ("mean", "sum", "none")) -> None:
    """Raise ValueError, naming the op, for a reduction that is not among those allowed."""
    if not isinstance(reduction, str) or reduction not in allowed:
        listed = ", ".join(map(repr, allowed[:-1]))
        raise ValueError(f"{name}: reduction must be {listed} or {allowed[-1]!r}, got {shown(reduction)}")


def _pair(name: str, x: Any, targets: Any) -> tuple[Any, Any]:
    """Return both as Tensors of one shape: broadcasting (N,) against (N, 1) would compare all with all."""
    x = as_tensor(x)
    targets = as_tensor(targets, like=x)
    if targets.backend is not x.backend:
        raise TypeError(
            f"{name}: both arguments must be on one backend, got {x.backend.name} and {targets.backend.name}; "
            f"move one with .to({x.backend.name!r})"
        )
    if x.dtype.kind != "f" and targets.dtype.kind != "f":
        x = as_floating(x)  # differences of two uint8 would wrap around
    if x.shape != targets.shape:
        raise ValueError(f"{name}: both arguments must have the same shape, got {x.shape} and {targets.shape}")
    return x, targets


def _reduced(losses: Any, reduction: str) -> Any:
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()
