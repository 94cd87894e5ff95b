"""Optimizers and gradient clipping. The update formulas are in `tensorlib.ops.update`, where kernels override them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

import tensorlib as tl
from nn.checks import check_fraction, check_number
from nn.loss_scale import LossScale
from nn.optimizer import Optimizer, parameter_list
from tensorlib.arrays.backend import Array
from tensorlib.arrays.shapes import as_dtype, sum_dtype
from tensorlib.messages import kind_of, unknown_name
from tensorlib.ops.arguments import check_flag
from tensorlib.ops.update import adam_update, sgd_update

__all__ = ["SGD", "Adam", "AdamW", "LossScale", "Optimizer", "clip_grad_norm"]


class SGD(Optimizer):
    """Stochastic gradient descent, optionally with momentum (Sutskever et al. 2013) and L2 weight decay.

    g' = g + weight_decay p;  v <- momentum v + g';  p <- p - learning_rate (v, or g' + momentum v with nesterov).

    >>> w = nn.Parameter([1.0, 2.0])
    >>> optimizer = optim.SGD([w], learning_rate=0.25)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.numpy()
    array([0.5, 1. ], dtype=float32)

    Raises ValueError for a momentum outside [0, 1), a negative weight decay, or `nesterov` without momentum.
    """

    elementwise = True

    def __init__(
        self,
        parameters: Iterable[tl.Tensor | tuple[str, tl.Tensor]],
        learning_rate: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, learning_rate)
        check_fraction("SGD", momentum=momentum)
        check_number("SGD", weight_decay=weight_decay)
        check_flag("SGD", "nesterov", nesterov, "; name your arguments")
        if nesterov and not momentum:
            raise ValueError(f"SGD: momentum must lie in (0, 1) for nesterov, got {momentum}; 0.9 is usual")
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov

    @property
    def slots(self) -> tuple[str, ...]:  # type: ignore[override]  # the momentum may be set between steps
        """The velocity, if there is momentum."""
        return ("velocity",) if self.momentum else ()

    def update(self, p: Array, g: Array, state: dict[str, Array], step: int) -> Array:
        """Apply `sgd_update`."""
        velocity = state.get("velocity")
        return sgd_update(p, g, velocity, float(self.learning_rate), self.momentum, self.weight_decay, self.nesterov)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1). Its weight decay is added to the gradient, unlike that of `AdamW`.

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;
    p <- p - learning_rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) at step t of this parameter.

    >>> w = nn.Parameter([1.0, 2.0])
    >>> optimizer = optim.Adam([w], learning_rate=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()  # the first step moves every element by the learning rate
    >>> w.numpy()
    array([0.5, 1.5], dtype=float32)

    Raises ValueError for betas outside [0, 1) and for a negative eps or weight decay.
    """

    slots = ("m", "v")
    elementwise = True
    decoupled = False

    def __init__(
        self,
        parameters: Iterable[tl.Tensor | tuple[str, tl.Tensor]],
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, learning_rate)
        kind = type(self).__name__
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueError(f"{kind}: betas must be two numbers, as (0.9, 0.999); got {betas}")
        check_fraction(kind, **{"betas[0]": betas[0], "betas[1]": betas[1]})
        check_number(kind, eps=eps, weight_decay=weight_decay)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def update(self, p: Array, g: Array, state: dict[str, Array], step: int) -> Array:
        """Apply `adam_update`."""
        return adam_update(
            p,
            g,
            state["m"],
            state["v"],
            step=step,
            learning_rate=float(self.learning_rate),
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            weight_decay=self.weight_decay,
            decoupled=self.decoupled,
        )


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameter directly (Loshchilov and Hutter 2019, algorithm 2).

    p <- p - learning_rate weight_decay p, in addition to the step of `Adam`.

    >>> w = nn.Parameter([1.0, 2.0])
    >>> w.grad = tl.zeros(2)
    >>> optim.AdamW([w], learning_rate=0.5, weight_decay=0.5).step()
    >>> w.numpy()
    array([0.75, 1.5 ], dtype=float32)
    """

    decoupled = True

    def __init__(
        self,
        parameters: Iterable[tl.Tensor | tuple[str, tl.Tensor]],
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, learning_rate, betas, eps, weight_decay)


def clip_grad_norm(parameters: Iterable[tl.Tensor], max_norm: float) -> float:
    """Scale all gradients so that their joint Euclidean norm is at most `max_norm`; return the norm before scaling.

    g <- g min(1, max_norm / norm): Pascanu et al. 2013, algorithm 1. Each call waits for the GPU once.

    >>> w = nn.Parameter([0.0, 0.0])
    >>> w.grad = tl.Tensor([3.0, 4.0])
    >>> optim.clip_grad_norm([w], max_norm=1.0)
    5.0
    >>> w.grad.numpy().round(6)
    array([0.6, 0.8], dtype=float32)

    Raises ValueError, and changes nothing, if the norm is not finite.
    """
    check_number("clip_grad_norm", above=True, finite=False, max_norm=max_norm)
    # A tied parameter may be listed twice, by two modules; its gradient counts once.
    listed = list({id(p): p for p in parameter_list("clip_grad_norm", parameters)}.values())
    wrong = [p for p in listed if not isinstance(p, tl.Tensor)]
    if wrong:
        raise TypeError(f"clip_grad_norm: needs parameters, got {kind_of(wrong[0])}; pass model.parameters()")
    with_grad = [(p, p.grad) for p in listed if p.grad is not None]
    if not with_grad:
        return 0.0
    total: Any = 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # a norm that is not finite raises an error below
        for _, grad in with_grad:
            g = as_dtype(grad.data.reshape(-1), sum_dtype(grad))  # float16 squares overflow from 256 on
            total = total + g @ g
    norm = math.sqrt(total.item())
    if not math.isfinite(norm):
        bad = [p.name or str(p.shape) for p, grad in with_grad if not tl.isfinite(grad).all().item()]
        cause = f"those of {', '.join(bad)} are not" if bad else "the sum of their squares overflows"
        raise ValueError(f"clip_grad_norm: gradients must be finite, but {cause}")
    if norm > max_norm:
        for p, grad in with_grad:
            half = grad.dtype == np.float16  # in which the factor may be 0
            scaled = (grad.astype("float32") if half else grad) * (max_norm / norm)
            p.grad = (scaled.astype("float16") if half else scaled).detach()
    return norm


_PYTORCH_NAMES = {  # from PyTorch's name to what to write instead
    "lr_scheduler": "nn.schedules: optimizer.learning_rate = schedule(step) before each step",
    **dict.fromkeys(
        ("RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "Rprop", "SparseAdam", "Adafactor", "Muon"),
        "optim.Adam",
    ),
    "LBFGS": "optim.Adam, or scipy.optimize.minimize with gradients from tl.grad", "ASGD": "optim.SGD and nn.averaging",
    "swa_utils": "nn.averaging",
    "clip_grad_norm_": "optim.clip_grad_norm", "clip_grad_value_": "p.grad = p.grad.clip(-c, c) for each p",
}  # fmt: skip

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Raise AttributeError; if `name` is PyTorch's, the message gives its equivalent here."""
        raise AttributeError(unknown_name("nn.optim", name, __all__, _PYTORCH_NAMES))
