"""Optimizers and gradient clipping. The update formulas are in `tensorlib.ops.update`, where kernels override them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import tensorlib as tl
from nn.checks import check_fraction, check_number
from nn.gradient_norm import clip_grad_norm, guarded_step
from nn.loss_scale import LossScale
from nn.optimizer import Optimizer
from tensorlib.arrays.backend import Array
from tensorlib.messages import unknown_name
from tensorlib.ops.arguments import check_flag
from tensorlib.ops.update import adam_update, sgd_update
from tensorlib.ops.update_in_place import Guard, adam_steps, sgd_steps

__all__ = ["SGD", "Adam", "AdamW", "LossScale", "Optimizer", "clip_grad_norm", "guarded_step"]


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

    settings = ("momentum", "weight_decay", "nesterov")

    @property
    def slots(self) -> tuple[str, ...]:  # type: ignore[override]  # the momentum may be set between steps
        """The velocity, if there is momentum."""
        return ("velocity",) if self.momentum else ()

    def update(self, p: Array, g: Array, state: dict[str, Array], step: int) -> Array:
        """Apply `sgd_update`."""
        velocity = state.get("velocity")
        return sgd_update(p, g, velocity, float(self.learning_rate), self.momentum, self.weight_decay, self.nesterov)

    def update_in_place(
        self, ps: list[Array], gs: list[Array], state: dict[str, list[Array]], counts: list[Array], guard: Guard | None
    ) -> None:
        """Apply `sgd_steps`."""
        options = {"momentum": self.momentum, "weight_decay": self.weight_decay, "nesterov": self.nesterov}
        sgd_steps(ps, gs, state.get("velocity"), counts, guard, learning_rate=self.current_rate, **options)


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
    settings = ("betas", "eps", "weight_decay", "decoupled")
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

    def update_in_place(
        self, ps: list[Array], gs: list[Array], state: dict[str, list[Array]], counts: list[Array], guard: Guard | None
    ) -> None:
        """Apply `adam_steps`."""
        adam_steps(
            ps,
            gs,
            state["m"],
            state["v"],
            counts,
            guard,
            learning_rate=self.current_rate,
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


_PYTORCH_NAMES = {  # from PyTorch's name to what to write instead
    "lr_scheduler": "nn.schedules: optimizer.learning_rate = schedule(step) before each step",
    **dict.fromkeys(
        ("RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "Rprop", "SparseAdam", "Adafactor", "Muon"),
        "optim.Adam",
    ),
    "LBFGS": "optim.Adam, or scipy.optimize.minimize with gradients from tl.grad", "ASGD": "optim.SGD and nn.averaging",
    "swa_utils": "nn.averaging", "AveragedModel": "nn.averaging.ExponentialMovingAverage",
    "GradScaler": "optim.LossScale", "autocast": "tl.precision, as in `with tl.precision('bf16'):`",
    "clip_grad_norm_": "optim.clip_grad_norm", "clip_grad_value_": "p.grad = p.grad.clip(-c, c) for each p",
}  # fmt: skip

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Raise AttributeError; if `name` is PyTorch's, the message gives its equivalent here."""
        raise AttributeError(unknown_name("nn.optim", name, __all__, _PYTORCH_NAMES))
