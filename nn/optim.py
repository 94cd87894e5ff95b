"""Optimizers. What a step does to one parameter is a formula in `tensorlib.ops.update`; here is who is stepped."""

from __future__ import annotations

import math
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

    Steps are counted for all parameters together: one that had no gradient so far counts as having had zeros.

    Args:
        parameters: ``model.parameters()``, or ``model.named_parameters()``: the names then name the state.
        learning_rate: may be set anew before any step.
    """

    slots: tuple[str, ...] = ()  # the arrays kept for each parameter, such as Adam's moments

    def __init__(self, parameters: Iterable[Parameter | tuple[str, Parameter]], learning_rate: float) -> None:
        pairs = [p if isinstance(p, tuple) else (p.name or str(i), p) for i, p in enumerate(parameters)]
        if not pairs:
            raise ValueError(f"{type(self).__name__}: needs at least one parameter, got none")
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError(f"{type(self).__name__}: parameters must have different names; pass named_parameters()")
        self.parameters: dict[str, Parameter] = dict(pairs)
        self.learning_rate = learning_rate
        self.steps = 0
        self.state: dict[str, dict[str, Any]] = {name: {} for name in names}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        self.steps += 1
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            state = self.state[name]
            for slot in self.slots:
                if slot not in state:
                    state[slot] = parameter.backend.xp.zeros(parameter.shape, parameter.dtype)
            parameter.replace(as_array(self.update(parameter.data, parameter.grad.data, state)))

    def update(self, p: Any, g: Any, state: dict[str, Any]) -> Any:
        """Return the new array of one parameter; update its state in place."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of the state on the host: "steps", and "NAME.SLOT" for each parameter, zeros before a step."""
        arrays = {"steps": np.array(self.steps)}
        for name, p in self.parameters.items():
            for slot in self.slots:
                array = self.state[name].get(slot)
                host = np.zeros(p.shape, p.dtype) if array is None else np.array(p.backend.to_numpy(array))
                arrays[f"{name}.{slot}"] = host
        return arrays

    def load_state_dict(self, arrays: Mapping[str, Any]) -> None:
        """Take over a state; all names and shapes that do not fit are one error, and then nothing changes."""
        expected = {"steps": ()} | {f"{n}.{s}": p.shape for n, p in self.parameters.items() for s in self.slots}
        problems = [f"missing {k}" for k in expected if k not in arrays]
        problems += [f"unexpected {k}" for k in arrays if k not in expected]
        problems += [
            f"{k} must have shape {expected[k]}, got {np.shape(v)}"
            for k, v in arrays.items()
            if k in expected and np.shape(v) != expected[k]
        ]
        if problems:
            raise ValueError(f"{type(self).__name__}: the state does not fit: {'; '.join(problems)}")
        self.steps = int(arrays["steps"])
        for name, parameter in self.parameters.items():
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
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.slots = ("velocity",) if momentum else ()

    def update(self, p: Any, g: Any, state: dict[str, Any]) -> Any:
        """Apply `sgd_update`."""
        velocity = state.get("velocity")
        return sgd_update(p, g, velocity, self.learning_rate, self.momentum, self.weight_decay, self.nesterov)


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
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def update(self, p: Any, g: Any, state: dict[str, Any]) -> Any:
        """Apply `adam_update`."""
        return adam_update(
            p,
            g,
            state["m"],
            state["v"],
            step=self.steps,
            lr=self.learning_rate,
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
