"""The output layer and its loss in one op: from hidden states to cross-entropy."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array
from tensorlib.engine.function import Function, derivation
from tensorlib.ops.arguments import at_least_float32, checked_real, operand
from tensorlib.ops.crossentropy import (
    class_targets,
    cross_entropy,
    cross_entropy_formula,
    cross_entropy_gradient,
    over_counted,
)
from tensorlib.ops.linalg import rows
from tensorlib.ops.linear import linear, linear_formula, linear_gradient, linear_operands
from tensorlib.ops.losses import check_reduction

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["linear_cross_entropy"]


class LinearCrossEntropy(Function):
    """loss = sum over counted rows n of cross_entropy(x_n W + b, target_n), for x (N, D) and W (D, V).

    The logits (N, V) would be by far the largest array of a training step. A kernel computes one block of logits at a
    time and turns it into its gradient, so that all gradients are ready before backward, up to the factor dloss.

    With the logits z = x W + b and dz as in cross-entropy  =>  dx = dz W^T, dW = x^T dz, db = sum of dz over rows.

    Keeps x, weight, bias, targets and counted; statistics (from a kernel): dx, dweight, dbias.
    Kernels: numpy/linear_cross_entropy.py, numba/linear_cross_entropy.py, cuda/linear_cross_entropy.py.
    """

    fresh = True

    def forward(self, x: Array, weight: Array, *bias: Array, targets: Array, counted: Array, smoothing: float) -> Array:
        self.classes = (targets, counted, smoothing)
        loss, self.statistics = linear_cross_entropy_formula(x, weight, *bias, classes=self.classes, needs=self.needs)
        self.save(x, weight, *bias)
        return loss

    def backward(self, dloss: Array) -> Any:
        return linear_cross_entropy_gradient(
            dloss, *self.saved, classes=self.classes, kept=self.statistics, needs=self.needs
        )


@singledispatch
def linear_cross_entropy_formula(x: Array, weight: Array, *bias: Array, classes: Any, needs: Any) -> tuple[Array, Any]:
    """Return the loss, and the gradients that a kernel computes with it (None from this formula)."""
    losses, _ = cross_entropy_formula(linear_formula(x, weight, *bias), *classes)
    return losses.sum(), None


@singledispatch
def linear_cross_entropy_gradient(
    dloss: Array, x: Array, weight: Array, *bias: Array, classes: Any, kept: Any, needs: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    """Return dx, dweight and, if there is a bias, dbias; the formula computes the logits again."""
    targets, counted, smoothing = classes
    z = linear_formula(x, weight, *bias)
    return linear_gradient(cross_entropy_gradient(dloss, z, None, targets, counted, smoothing), x, weight, needs)


@derivation(LinearCrossEntropy)
@at_least_float32
def linear_cross_entropy(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None,
    targets: TensorLike,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Return ``cross_entropy(linear(x, weight, bias), targets, ...)`` without ever holding all logits on a CPU.

    x (..., D) are hidden states; `weight` (D, V) and `bias`, (V,) or None, are the output layer; `targets` (...) are
    integers in [0, V). The other arguments are those of `tl.cross_entropy`. Memory grows with the vocabulary V like the
    weight, not like the logits (..., V); but with reduction="none" all logits are computed at once. float16 is computed
    in float32.

    >>> tl.linear_cross_entropy([[1.0, 2.0]], np.eye(2, 3, dtype="float32"), None, [1])
    Tensor(0.4076, shape=(), dtype=float32)
    """
    check_reduction("linear_cross_entropy", reduction)
    smoothing = checked_real("linear_cross_entropy", "label_smoothing", label_smoothing)
    if not 0 <= smoothing < 1:
        raise ValueError(f"linear_cross_entropy: label_smoothing must lie in [0, 1), got {smoothing}")
    operands = linear_operands("linear_cross_entropy", x, weight, bias)
    x, weight = operands[:2]
    if reduction == "none":
        return cross_entropy(linear(*operands), targets, ignore_index, smoothing, reduction)
    given = operand(targets)
    shape = (*x.shape[:-1], weight.shape[1])
    ids, counted = class_targets("linear_cross_entropy", shape, x.backend, given, ignore_index)
    total = LinearCrossEntropy.apply(
        rows(x) if x.ndim != 2 else x,
        *operands[1:],
        targets=ids.reshape(-1),
        counted=counted.reshape(-1),
        smoothing=smoothing,
    )
    return total if reduction == "sum" else over_counted(total, counted, "mean")
