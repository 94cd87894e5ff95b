"""One step of each optimizer, and of the average of a parameter over the steps, as formulas on raw arrays.

The optimizer's own arrays (moments) are updated in place. The parameter is returned as a new array, because the old one
may be saved in a graph or still be referenced elsewhere. The formulas do not refer to Parameters or schedules, so
that kernels can override them like any formula.
"""

from __future__ import annotations

from functools import singledispatch

from tensorlib.arrays.backend import Array, namespace_of

__all__ = ["adam_update", "average_update", "sgd_update"]


@singledispatch
def sgd_update(
    p: Array, g: Array, velocity: Array | None, learning_rate: float, momentum: float, weight_decay: float,
    nesterov: bool,
) -> Array:  # fmt: skip
    """Return p after one step of stochastic gradient descent with momentum (Sutskever et al. 2013), as in PyTorch.

    g' = g + weight_decay p;  v <- momentum v + g';  p <- p - learning_rate d,
    where d is v or, with `nesterov`, g' + momentum v.
    """
    if weight_decay:
        g = g + weight_decay * p
    if velocity is not None:
        velocity *= momentum
        velocity += g
        g = g + momentum * velocity if nesterov else velocity
    return p - learning_rate * g


@singledispatch
def adam_update(
    p: Array, g: Array, m: Array, v: Array, *, step: int, learning_rate: float, beta1: float, beta2: float, eps: float,
    weight_decay: float, decoupled: bool,
) -> Array:  # fmt: skip
    """Return p after a step of Adam (Kingma and Ba 2015, algorithm 1) or AdamW (Loshchilov and Hutter 2019, alg. 2).

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;
    p <- p - learning_rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).
    Weight decay is added to g or, if `decoupled` (AdamW), subtracted from p: p <- p - learning_rate weight_decay p.

    Kernels: numpy/update.py, numba/update.py, cuda/update.py.
    """
    if weight_decay and decoupled:
        p = p * (1 - learning_rate * weight_decay)
    elif weight_decay:
        g = g + weight_decay * p
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g * g
    unbiased = namespace_of(v).sqrt(v / (1 - beta2**step))
    return p - (learning_rate / (1 - beta1**step)) * m / (unbiased + eps)


@singledispatch
def average_update(e: Array, w: Array, decay: float) -> None:
    """Move the exponential moving average e towards a parameter w, in place: e <- decay e + (1 - decay) w.

    It is computed as e + (1 - decay) (w - e), which leaves an average of equal values exactly as it is.

    Kernels: numpy/update.py, numba/update.py, cuda/update.py.
    """
    e += (1 - decay) * (w - e)
