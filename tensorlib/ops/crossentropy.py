"""Cross-entropy from logits, and from log-probabilities."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import Array, Backend, backend_of, namespace_of
from tensorlib.arrays.shapes import largest
from tensorlib.engine.function import Function, as_tensor, derivation, is_tensor
from tensorlib.ops.arguments import at_least_float32, checked_floating, checked_integer, checked_real, operand
from tensorlib.ops.gathering import take_along_axis
from tensorlib.ops.indexing import where
from tensorlib.ops.losses import check_reduction
from tensorlib.ops.softmax import Softmax, log_softmax

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["cross_entropy", "nll_loss"]


class CrossEntropy(Function):
    """loss_n = -sum_v q_nv log softmax(x_n)_v for logits x (N, V) and the smoothed target q; 0 for ignored rows.

    With smoothing e, q is 1 - e + e/V for the target and e/V for every other class (Szegedy et al. 2016, section 7; as
    in PyTorch). Since q sums to 1, loss_n = logsumexp(x_n) - (1 - e) x_n,target - e mean(x_n). Here d logsumexp(x)/dx
    is softmax(x), and the other terms are linear in x  =>  dx_nv = dloss_n (softmax(x_n)_v - q_nv).

    Keeps logits, targets and counted; statistics (for each row): largest logit, logarithm of the sum of exponentials.
    Kernels: numpy/crossentropy.py, numba/crossentropy.py, cuda/crossentropy.py.
    """

    def forward(self, logits: Array, targets: Array, counted: Array, smoothing: float) -> Array:
        self.targets, self.counted, self.smoothing = targets, counted, smoothing
        loss, self.statistics = cross_entropy_formula(logits, targets, counted, smoothing)
        self.save(logits)
        return loss

    def backward(self, dloss: Array) -> Any:
        (logits,) = self.saved
        return cross_entropy_gradient(dloss, logits, self.statistics, self.targets, self.counted, self.smoothing)


def without_ignored(logits: Array, counted: Array) -> Array:
    """Return the logits with zeros in ignored rows: these may hold anything, and inf - inf would be NaN."""
    return namespace_of(logits).where(counted[:, None], logits, 0)


@singledispatch
def cross_entropy_formula(logits: Array, targets: Array, counted: Array, smoothing: float) -> tuple[Array, Any]:
    """Return the losses, and for the gradient the largest logit of each row and log of the sum of exp(logit - top)."""
    xp = namespace_of(logits)
    logits = without_ignored(logits, counted)
    top = largest(logits, (1,))
    top = xp.where(top == -math.inf, 0, top)  # -inf - -inf would be NaN
    shifted = logits - top
    total = xp.exp(shifted).sum(axis=-1, keepdims=True)
    log_total = xp.log(xp.where(total == 0, xp.ones_like(total), total))
    loss = log_total - (1 - smoothing) * xp.take_along_axis(shifted, targets[:, None], axis=-1)
    if smoothing:  # a class excluded by a logit of -inf makes the mean -inf, and 0 · -inf would be NaN
        loss = loss - smoothing * shifted.mean(axis=-1, keepdims=True)
    return xp.where(counted, loss[:, 0], 0), (top, log_total)


@singledispatch
def cross_entropy_gradient(
    dloss: Array, logits: Array, kept: Any, targets: Array, counted: Array, smoothing: float
) -> Array:
    """Return the gradient of the logits as derived in `CrossEntropy`; `kept` is what the formula returned, or None."""
    xp, here = backend_of(targets).xp, namespace_of(dloss)
    classes = logits.shape[-1]
    is_target = (xp.arange(classes) == targets[:, None]).astype(logits.dtype)
    q = is_target * (1 - smoothing) + smoothing / classes
    weight = here.where(counted, dloss, 0).reshape(-1, 1)
    logits = without_ignored(logits, counted)
    if kept is None:
        return weight * (Softmax.run(logits, axis=-1, visible=None) - q)
    top, log_total = kept
    return weight * (here.exp(logits - top - log_total) - q)


@derivation(CrossEntropy)
@at_least_float32  # the sum of 100,000 exponentials would overflow at 65504
def cross_entropy(
    logits: TensorLike,
    targets: TensorLike,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Return the cross-entropy, in nats, between `logits` (..., V) and integer `targets` (...).

    Rows whose target is `ignore_index` (padding) do not contribute, whatever their logits are: "mean" divides by the
    number of the other rows, and is 0 if there are none.

    The classes are the last axis; PyTorch has them on axis 1 of (N, V, L), which is ``logits.swapaxes(1, -1)`` here.

    `targets` may also be probabilities (..., V) of a floating dtype. They may require a gradient, and no row is
    ignored. A class whose (smoothed) probability is 0 does not contribute, even if its logit is -inf.

    `reduction` is "mean", "sum" or "none" (one loss per row, the shape of logits without the last axis).

    Raises IndexError for targets outside [0, V), and ValueError or TypeError for shapes, dtypes and backends that do
    not fit. Targets on a GPU are not fetched to check their range.

    >>> tl.cross_entropy([[2.0, 0.0], [0.0, 0.0]], [0, 1], reduction="none")
    Tensor([0.1269 0.6931], shape=(2,), dtype=float32)
    """
    check_reduction("cross_entropy", reduction)
    label_smoothing = checked_real("cross_entropy", "label_smoothing", label_smoothing)
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1), got {label_smoothing}")
    logits = scores_of("cross_entropy", logits)
    classes, shape = logits.shape[-1], logits.shape[:-1]
    given = operand(targets)
    if _are_probabilities(given, logits):
        if classes == 1:
            raise ValueError(
                f"cross_entropy: two or more classes are required, because with one the loss is always 0; got logits "
                f"and targets of shape {logits.shape}; for yes or no use binary_cross_entropy_with_logits"
            )
        probabilities = as_tensor(given, like=logits)
        _check_backend("cross_entropy", probabilities.data, logits.backend)
        return _soft_cross_entropy(logits, probabilities, label_smoothing, reduction)
    ids, counted = class_targets("cross_entropy", logits.shape, logits.backend, given, ignore_index)
    losses = CrossEntropy.apply(
        logits.reshape(math.prod(shape), classes),
        targets=ids.reshape(-1),
        counted=counted.reshape(-1),
        smoothing=label_smoothing,
    )
    return losses.reshape(shape) if reduction == "none" else over_counted(losses, counted, reduction)


def _soft_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float, reduction: str) -> Tensor:
    """Return the loss for targets that are probabilities. They may require a gradient, so it is composed of ops."""
    q = targets * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
    log_probs = log_softmax(logits)
    excluded = (q == 0) & (log_probs == -math.inf)  # 0 · -inf would be NaN
    losses = -(q * where(excluded, 0.0, log_probs)).sum(axis=-1)
    return over_counted(losses, logits.backend.xp.ones(losses.shape, bool), reduction)


@at_least_float32
def nll_loss(log_probs: TensorLike, targets: TensorLike, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """Return -log_probs[..., target]: the loss of log-probabilities (..., V) for integer `targets` (...).

    For the output of `log_softmax` this is the cross-entropy. Rows whose target is `ignore_index` do not contribute:
    "mean" divides by the number of the other rows, and is 0 if there are none. `reduction` is "mean", "sum" or "none"
    (one loss per target). The errors are those of `cross_entropy`.

    >>> tl.nll_loss([[-0.5, -1.0], [-2.0, -0.1]], [0, 1], reduction="none")
    Tensor([0.5 0.1], shape=(2,), dtype=float32)

    Composed of `take_along_axis` and `where`  =>  the log-probability of each counted target gets -dloss (for "mean"
    divided by the number of counted rows), and all others get 0.
    """
    check_reduction("nll_loss", reduction)
    log_probs = scores_of("nll_loss", log_probs)
    given = operand(targets)
    ids, counted = class_targets("nll_loss", log_probs.shape, log_probs.backend, given, ignore_index)
    chosen = take_along_axis(log_probs, ids.reshape((*ids.shape, 1)), axis=-1).reshape(ids.shape)
    return over_counted(where(counted, -chosen, 0.0), counted, reduction)


def over_counted(losses: Tensor, counted: Array, reduction: str) -> Tensor:
    """Return the reduction of the losses of all rows, 0 for ignored ones; the mean is over the counted rows."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    # The count stays on the device as an array: fetching it would wait for the GPU at every step.
    return losses.sum() / losses.backend.xp.maximum(counted.sum(), 1).astype(losses.dtype)


# ---- checks of arguments -----------------------------------------------------------------------------------------


def scores_of(name: str, x: TensorLike) -> Tensor:
    """Return logits or log-probabilities as a Tensor (..., V)."""
    x = checked_floating(name, "the first argument", x)
    if not x.ndim or not x.shape[-1]:
        raise ValueError(f"{name}: the last axis of the first argument must hold the classes, got shape {x.shape}")
    return x


def _are_probabilities(targets: Any, logits: Tensor) -> bool:
    """Return whether targets are floating numbers, one for each logit."""
    return targets.dtype.kind == "f" and tuple(targets.shape) == tuple(logits.shape)


def class_targets(
    name: str, scores: tuple[int, ...], home: Backend, targets: Any, ignore_index: int
) -> tuple[Array, Array]:
    """Return targets as an array of class numbers, 0 where ignored, and a mask of the targets that count.

    `scores` is the shape (..., V) of the logits, `home` their backend.
    """
    ignore_index = checked_integer(name, "ignore_index", ignore_index)
    targets = targets.array if is_tensor(targets) else targets
    if targets.size == 0 and isinstance(targets, np.ndarray):
        targets = targets.astype(np.int64)  # an empty list becomes float32
    shape, classes = tuple(scores[:-1]), scores[-1]
    if targets.dtype.kind not in "iu":
        also = f", or probabilities of shape {(*shape, classes)}" if name == "cross_entropy" else ""
        also += "; for probabilities use cross_entropy(linear(...), targets)" if name == "linear_cross_entropy" else ""
        remedy = "; use targets.astype('int64')" if tuple(targets.shape) == shape else ""
        raise TypeError(
            f"{name}: targets must be integers of shape {shape}{also}; got dtype {targets.dtype} of shape "
            f"{tuple(targets.shape)}{remedy}"
        )
    if tuple(targets.shape) != shape:
        raise ValueError(
            f"{name}: targets must have the shape of the first argument without the last axis, {shape}; "
            f"got {tuple(targets.shape)}{_shape_remedy(name, scores, tuple(targets.shape))}"
        )
    if isinstance(targets, np.ndarray):  # the check is free on the host; targets on a GPU are not fetched for it
        check_range(name, targets, classes, ignore_index)
        targets = targets if home.xp is np else home.asarray(targets)
    else:
        _check_backend(name, targets, home)
    counted = targets != ignore_index
    return home.xp.where(counted, targets, home.xp.zeros_like(targets)), counted


def _shape_remedy(name: str, scores: tuple[int, ...], targets: tuple[int, ...]) -> str:
    """Return the end of the message for targets of a shape that does not fit."""
    if len(scores) > 2 and targets == (scores[0], *scores[2:]):
        return "; the classes belong on the last axis, so move them there by tl.moveaxis(x, 1, -1)"
    if targets == (*scores[:-1], 1):
        return "; drop the last axis by targets[..., 0]"
    if targets == scores and name == "cross_entropy":
        return "; as probabilities they must be floating: targets.astype('float32')"
    return ""


def _check_backend(name: str, targets: Array, home: Backend) -> None:
    if backend_of(targets) is not home:
        also = "" if isinstance(targets, np.ndarray) else ", or on the host"
        raise TypeError(
            f"{name}: targets must be on the backend of the first argument, {home.name}{also}; "
            f"got {backend_of(targets).name}"
        )


def check_range(name: str, targets: np.ndarray, classes: int, ignore_index: int) -> None:
    """Raise IndexError, naming the first target outside [0, classes) and its position, if there is one."""
    bad = ((targets < 0) | (targets >= classes)) & (targets != ignore_index)
    if bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        raise IndexError(
            f"{name}: target {int(targets[position])} at position {position} is outside the {classes} classes; "
            f"{_range_remedy(int(targets[position]), classes)}"
        )


def _range_remedy(target: int, classes: int) -> str:
    if classes == 1:
        return "for yes or no use binary_cross_entropy_with_logits"
    return f"number the classes from 0, widen the first argument, or pass ignore_index={target} if it is padding"
