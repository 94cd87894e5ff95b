"""Cross-entropy from logits."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import numpy as np

from tensorlib.backend import Array, backend_of, namespace_of
from tensorlib.function import Function, as_tensor
from tensorlib.ops.reduce import Logsumexp

__all__ = ["cross_entropy"]


class CrossEntropy(Function):
    """loss_n = -sum_v q_nv log softmax(x_n)_v, with q the smoothed target; 0 for rows that are ignored.

    q puts 1 - e + e/V on the target and e/V on each other class: Szegedy et al. 2016 (section 7), as PyTorch does.
    As q sums to 1, loss_n = logsumexp(x_n) - (1 - e) x_n,target - e mean(x_n).
    """

    def forward(self, logits: Array, targets: Array, counted: Array, smoothing: float) -> Array:
        self.targets, self.counted, self.smoothing = targets, counted, smoothing
        loss, self.statistics = cross_entropy_formula(logits, targets, counted, smoothing)
        self.save(logits)
        return loss

    def backward(self, dloss: Array) -> Any:
        (logits,) = self.saved
        lse = Logsumexp.run(logits, axis=-1, keepdims=True) if self.statistics is None else self.statistics
        return cross_entropy_gradient(dloss, logits, lse, self.targets, self.counted, self.smoothing)


@singledispatch
def cross_entropy_formula(logits: Array, targets: Array, counted: Array, smoothing: float) -> tuple[Array, Array]:
    xp = namespace_of(logits)
    lse = Logsumexp.run(logits, axis=-1, keepdims=True)
    chosen = xp.take_along_axis(logits, targets[:, None], axis=-1)
    loss = lse - (1 - smoothing) * chosen
    if smoothing:  # only then: a class ruled out by a logit of -inf would make the mean -inf, and 0 · -inf is NaN
        loss = loss - smoothing * logits.mean(axis=-1, keepdims=True)
    return xp.where(counted, loss[:, 0], 0), lse


@singledispatch
def cross_entropy_gradient(
    dloss: Array, logits: Array, lse: Array, targets: Array, counted: Array, smoothing: float
) -> Array:
    # dlse/dx_v = softmax(x)_v, and the rest of the loss is linear in x   =>   dx_v = dloss (softmax(x)_v - q_v)
    xp = backend_of(targets).xp
    classes = logits.shape[-1]
    is_target = (xp.arange(classes) == targets[:, None]).astype(logits.dtype)
    q = is_target * (1 - smoothing) + smoothing / classes
    weight = (dloss * counted).reshape(-1, 1)
    return weight * (namespace_of(dloss).exp(logits - lse) - q)


def cross_entropy(
    logits: Any,
    targets: Any,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    """Return the cross-entropy, in nats, between `logits` (..., V) and integer `targets` (...).

    Rows whose target is `ignore_index` (padding) count nothing: "mean" divides by the number of the others, and is 0
    where there is none. Targets outside [0, V) raise IndexError, if they come from the host.

    `reduction` is "mean", "sum" or "none" (one loss a row, the shape of targets).
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"cross_entropy: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1), got {label_smoothing}")
    logits = as_tensor(logits)
    targets = targets.data if hasattr(targets, "requires_grad") else targets
    targets = targets if hasattr(targets, "dtype") else np.asarray(targets)
    if tuple(targets.shape) != tuple(logits.shape[:-1]):
        raise ValueError(
            f"cross_entropy: targets must have the shape of logits without the last axis, {logits.shape[:-1]}; "
            f"got {tuple(targets.shape)}"
        )
    classes, shape = logits.shape[-1], logits.shape[:-1]
    if isinstance(targets, np.ndarray):  # on the host the check is free; ids on a GPU are not fetched for it
        _check_targets(targets, classes, ignore_index)
        targets = targets if logits.backend.xp is np else logits.backend.asarray(targets)
    xp = logits.backend.xp
    flat = targets.reshape(-1)
    counted = flat != ignore_index
    losses = CrossEntropy.apply(
        logits.reshape(math.prod(shape), classes),
        targets=xp.where(counted, flat, xp.zeros_like(flat)),
        counted=counted,
        smoothing=label_smoothing,
    )
    if reduction == "none":
        return losses.reshape(shape)
    if reduction == "sum":
        return losses.sum()
    # The count stays on the device as an array: fetching it would wait for the GPU at every step.
    return losses.sum() / xp.maximum(counted.sum(), 1).astype(losses.dtype)


def _check_targets(targets: np.ndarray, classes: int, ignore_index: int) -> None:
    if targets.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: targets must be integers, got dtype {targets.dtype}")
    bad = ((targets < 0) | (targets >= classes)) & (targets != ignore_index)
    if bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        raise IndexError(
            f"cross_entropy: target {int(targets[position])} at position {position} is outside the {classes} classes"
        )
