"""Optimizers. What a step does to one parameter is a formula in `tensorlib.ops.update`; here is who is stepped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

import tensorlib as tl
from nn.module import Parameter
from tensorlib.function import as_array
from tensorlib.ops.update import adam_update, sgd_update

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm"]


class Optimizer:
    """Updates parameters from their gradients.

    Args:
        parameters: ``model.parameters()``, or ``model.named_parameters()``: the names then name the state.
        learning_rate: may be set anew before any step.
    """

    slots: tuple[str, ...] = ()  # the arrays kept for each parameter, such as Adam's moments

    def __init__(self, parameters: Iterable[Parameter | tuple[str, Parameter]], learning_rate: float) -> None:
        self.parameters = self._named(parameters)
        if not learning_rate >= 0:
            raise ValueError(f"{type(self).__name__}: learning_rate must not be negative, got {learning_rate}")
        self.learning_rate = learning_rate
        self.steps = dict.fromkeys(self.parameters, 0)  # updates so far, of each: Adam's bias correction counts them
        self.state: dict[str, dict[str, Any]] = {name: {} for name in self.parameters}

    def _named(self, parameters: Iterable[Any]) -> dict[str, Parameter]:
        kind = type(self).__name__
        given = [] if isinstance(parameters, tl.Tensor) else list(parameters)
        pairs = [p if isinstance(p, tuple) else (getattr(p, "name", "") or str(i), p) for i, p in enumerate(given)]
        if not pairs or not all(isinstance(p, tl.Tensor) and p.is_leaf and p.requires_grad for _, p in pairs):
            raise ValueError(
                f"{kind}: needs an iterable of one or more parameters, leaves that require a gradient; "
                f"got {type(parameters).__name__}; pass model.parameters()"
            )
        counts = Counter(name for name, _ in pairs)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ValueError(
                f"{kind}: parameters must have different names, got {twice[0]} twice; of several models pass "
                '[*a.named_parameters("a"), *b.named_parameters("b")]'
            )
        return dict(pairs)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            if parameter.grad.shape != parameter.shape:
                raise ValueError(
                    f"{type(self).__name__}: the gradient of {name} must have its shape {parameter.shape}, "
                    f"got {parameter.grad.shape}"
                )
            self.steps[name] += 1
            state = self.state[name]
            for slot in self.slots:
                if slot not in state:
                    state[slot] = parameter.backend.xp.zeros(parameter.shape, parameter.dtype)
            g = parameter.grad.data.astype(parameter.dtype, copy=False)
            parameter.replace(as_array(self.update(parameter.data, g, state, self.steps[name])))

    def update(self, p: Any, g: Any, state: dict[str, Any], step: int) -> Any:
        """Return the new array of one parameter, at its step number `step`; update its state in place."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of the state on the host: "NAME.steps" and "NAME.SLOT", for each parameter; zeros at first."""
        arrays = {}
        for name, p in self.parameters.items():
            arrays[f"{name}.steps"] = np.array(self.steps[name])
            for slot in self.slots:
                array = self.state[name].get(slot)
                host = np.zeros(p.shape, p.dtype) if array is None else np.array(p.backend.to_numpy(array))
                arrays[f"{name}.{slot}"] = host
        return arrays

    def load_state_dict(self, arrays: Mapping[str, Any]) -> None:
        """Take over a state; all names and shapes that do not fit are one error, and then nothing changes."""
        expected: dict[str, tuple[int, ...]] = {f"{name}.steps": () for name in self.parameters}
        expected |= {f"{n}.{s}": p.shape for n, p in self.parameters.items() for s in self.slots}
        problems = [f"missing {k}" for k in expected if k not in arrays]
        problems += [f"unexpected {k}" for k in arrays if k not in expected]
        problems += [
            f"{k} must have shape {expected[k]}, got {np.shape(v)}"
            for k, v in arrays.items()
            if k in expected and np.shape(v) != expected[k]
        ]
        if problems:
            raise ValueError(f"{type(self).__name__}: the state does not fit: {'; '.join(problems)}")
        for name, parameter in self.parameters.items():
            self.steps[name] = int(arrays[f"{name}.steps"])
            self.state[name] = {
                slot: parameter.backend.asarray(arrays[f"{name}.{slot}"], parameter.dtype) for slot in self.slots
            }


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Sutskever et al. 2013) and L2 weight decay if asked for."""

    def __init__(
        self,
        parameters: Any,
        learning_rate: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, learning_rate)
        if not 0 <= momentum < 1 or (nesterov and not momentum):
            raise ValueError(f"SGD: momentum must lie in [0, 1), and in (0, 1) for nesterov; got {momentum}")
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.slots = ("velocity",) if momentum else ()

    def update(self, p: Any, g: Any, state: dict[str, Any], step: int) -> Any:
        """Apply `sgd_update`."""
        velocity = state.get("velocity")
        return sgd_update(p, g, velocity, float(self.learning_rate), self.momentum, self.weight_decay, self.nesterov)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015). Its weight decay is L2: added to the gradient. `AdamW` decouples it."""

    slots = ("m", "v")
    decoupled = False

    def __init__(
        self,
        parameters: Any,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, learning_rate)
        if not all(0 <= beta < 1 for beta in betas) or not eps >= 0:
            raise ValueError(f"{type(self).__name__}: betas must lie in [0, 1) and eps >= 0; got {betas} and {eps}")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def update(self, p: Any, g: Any, state: dict[str, Any], step: int) -> Any:
        """Apply `adam_update`."""
        return adam_update(
            p,
            g,
            state["m"],
            state["v"],
            step=step,
            lr=float(self.learning_rate),
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            weight_decay=self.weight_decay,
            decoupled=self.decoupled,
        )


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameter directly (Loshchilov and Hutter 2019)."""

    decoupled = True

    def __init__(
        self,
        parameters: Any,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, learning_rate, betas, eps, weight_decay)


def clip_grad_norm(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients so that their joint Euclidean norm is at most `max_norm`; return the norm before.

    Pascanu et al. 2013, algorithm 1. Raises ValueError, and changes nothing, where the norm is not finite. Waits for
    the GPU once.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm: max_norm must be positive, got {max_norm}")
    with_grad = [(p, p.grad) for p in parameters if p.grad is not None]
    if not with_grad:
        return 0.0
    total: Any = 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite gets an error of its own
        for _, grad in with_grad:
            g = grad.data.reshape(-1)
            total = total + g @ g
    norm = math.sqrt(total.item())
    if not math.isfinite(norm):
        bad = [p.name or str(p.shape) for p, grad in with_grad if not tl.isfinite(grad).all().item()]
        whose = f"those of {', '.join(bad)} are not" if bad else "the sum of their squares overflows"
        raise ValueError(f"clip_grad_norm: gradients must be finite, but {whose}")
    if norm > max_norm:
        for p, grad in with_grad:
            p.grad = (grad * (max_norm / norm)).detach()
    return norm
