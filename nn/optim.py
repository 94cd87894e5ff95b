"""Optimizers. What a step does to one parameter is a formula in `tensorlib.ops.update`; here is who is stepped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np

import tensorlib as tl
from nn.checks import check_flag, check_fraction, check_number, shape_mismatches
from nn.module import Module, Parameter
from tensorlib.arrays.backend import backend_of
from tensorlib.engine.value import as_array
from tensorlib.messages import kind_of
from tensorlib.ops.update import adam_update, sgd_update

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm"]

SMALL = 1 << 15  # elements: up to here an update spends more time on calls than on arithmetic


class Optimizer:
    """Updates parameters from their gradients. Making one for parameters on NumPy calls `tl.keep_memory`.

    Where `elementwise` is set, small parameters come to `update` together, as one flat array.

    Args:
        parameters: ``model.parameters()``, or ``model.named_parameters()``: the names then name the state.
        learning_rate: may be set anew before any step.
    """

    slots: tuple[str, ...] = ()  # the arrays kept for each parameter, such as Adam's moments
    elementwise = False  # does `update`, defined in this very class, treat each element by itself, with slots alone?

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Make an optimizer, unless it is asked for in PyTorch's words."""
        if "lr" in options:
            raise TypeError(f"{cls.__name__}: lr is called learning_rate, got lr={options['lr']}")
        return super().__new__(cls)

    def __init__(self, parameters: Iterable[Parameter | tuple[str, Parameter]], learning_rate: float) -> None:
        self.parameters = self._named(parameters)
        self.learning_rate = learning_rate
        self.steps = dict.fromkeys(self.parameters, 0)  # updates so far, of each: Adam's bias correction counts them
        self.state: dict[str, dict[str, Any]] = {name: {} for name in self.parameters}
        if any(p.backend.xp is np for p in self.parameters.values()):
            tl.keep_memory()

    def __setattr__(self, name: str, value: Any) -> None:
        kind = type(self).__name__
        if name == "learning_rate":
            if callable(value):
                raise TypeError(f"{kind}: learning_rate must be a number, got a function; set it to schedule(step)")
            check_number(kind, learning_rate=value)
        elif name == "lr":
            raise AttributeError(f"{kind}: lr is called learning_rate, got lr = {value}")
        object.__setattr__(self, name, value)

    def _named(self, parameters: Iterable[Any]) -> dict[str, Parameter]:
        kind = type(self).__name__
        pairs: list[tuple[str, Any]] = []
        for i, p in enumerate(_listed(kind, parameters)):
            pairs.append(p if isinstance(p, tuple) and len(p) == 2 else (getattr(p, "name", "") or str(i), p))
        for name, p in pairs:
            if not isinstance(p, tl.Tensor):
                raise TypeError(f"{kind}: needs parameters, got {kind_of(p)} among them; pass model.parameters()")
            if not (p.is_leaf and p.requires_grad):
                what = "requires no gradient" if p.is_leaf else "was computed"
                raise ValueError(f"{kind}: needs leaves that require a gradient, but {name} of shape {p.shape} {what}")
        first: dict[int, str] = {}
        for name, p in pairs:
            if id(p) in first:
                raise ValueError(
                    f"{kind}: {name} is given twice, first as {first[id(p)]}; each step would count double"
                )
            first[id(p)] = name
        twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        if twice:
            raise ValueError(
                f"{kind}: parameters must have different names, got {twice[0]} twice; of several models pass "
                '[*a.named_parameters("a"), *b.named_parameters("b")]'
            )
        if not pairs:
            raise ValueError(
                f"{kind}: needs one or more parameters, got none; a generator is empty once it was used up"
            )
        return dict(pairs)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient. Nothing changes where one of these does not fit."""
        gradients = {n: self._gradient(n, p) for n, p in self.parameters.items() if p.grad is not None}
        together: dict[tuple[Any, ...], list[str]] = {}
        for name, g in gradients.items():
            parameter, state = self.parameters[name], self.state[name]
            for slot in self.slots:
                state[slot] = _beside(parameter, state.get(slot))
            if self._joins_small_ones and parameter.size <= SMALL and parameter.backend.xp is np:
                together.setdefault((self.steps[name], parameter.dtype), []).append(name)
            else:
                parameter.replace(as_array(self.update(parameter.data, g, state, self.steps[name] + 1)))
                self.steps[name] += 1
        for names in together.values():
            self._update_together({name: gradients[name] for name in names})

    def _update_together(self, gradients: dict[str, Any]) -> None:
        """Update many small parameters as one array: twenty calls for all cost less than twenty for each."""
        states = {slot: _joined([self.state[name][slot] for name in gradients]) for slot in self.slots}
        old = _joined([self.parameters[name].data for name in gradients])
        step = self.steps[next(iter(gradients))] + 1
        new, start = self.update(old, _joined(list(gradients.values())), states, step), 0
        for name, g in gradients.items():
            end = start + g.size
            for slot, joined in states.items():
                np.copyto(self.state[name][slot], joined[start:end].reshape(g.shape))
            self.parameters[name].replace(new[start:end].reshape(g.shape).copy())  # not a view, which would hold all
            self.steps[name] = step
            start = end

    @property
    def _joins_small_ones(self) -> bool:
        """Whether the class whose `update` is used says that it is elementwise; a subclass's own may not be."""
        return next(vars(c).get("elementwise", False) for c in type(self).__mro__ if "update" in vars(c))

    def _gradient(self, name: str, parameter: Parameter) -> Any:
        """Return the array of a parameter's gradient, after checking that it fits."""
        grad, kind = parameter.grad, type(self).__name__
        if not isinstance(grad, tl.Tensor):
            raise TypeError(f"{kind}: the gradient of {name} must be a Tensor, got {kind_of(grad)}")
        if grad.shape != parameter.shape:
            raise ValueError(f"{kind}: the gradient of {name} must have its shape {parameter.shape}, got {grad.shape}")
        if type(grad.data) is not type(parameter.data):
            raise TypeError(
                f"{kind}: the gradient of {name} must be on its backend {parameter.backend.name}, "
                f"got {grad.backend.name}; move the model before the backward pass"
            )
        return grad.data.astype(parameter.dtype, copy=False)

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
        if not isinstance(arrays, Mapping):
            raise TypeError(
                f"{type(self).__name__}: the state must be a mapping of names to arrays, got {kind_of(arrays)}"
            )
        problems = shape_mismatches(expected, {name: np.shape(array) for name, array in arrays.items()})
        if problems:
            raise ValueError(f"{type(self).__name__}: the state does not fit: {'; '.join(problems)}")
        for name, parameter in self.parameters.items():
            self.steps[name] = int(arrays[f"{name}.steps"])
            self.state[name] = {
                slot: parameter.backend.asarray(arrays[f"{name}.{slot}"], parameter.dtype) for slot in self.slots
            }


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Sutskever et al. 2013) and L2 weight decay if asked for."""

    elementwise = True

    def __init__(
        self,
        parameters: Any,
        learning_rate: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, learning_rate)
        check_fraction("SGD", momentum=momentum)
        check_number("SGD", weight_decay=weight_decay)
        check_flag("SGD", nesterov=nesterov)
        if nesterov and not momentum:
            raise ValueError(f"SGD: momentum must lie in (0, 1) for nesterov, got {momentum}; 0.9 is usual")
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.slots = ("velocity",) if momentum else ()

    def update(self, p: Any, g: Any, state: dict[str, Any], step: int) -> Any:
        """Apply `sgd_update`."""
        velocity = state.get("velocity")
        return sgd_update(p, g, velocity, float(self.learning_rate), self.momentum, self.weight_decay, self.nesterov)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015). Its weight decay is L2: added to the gradient. `AdamW` decouples it."""

    slots = ("m", "v")
    elementwise = True
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
        kind = type(self).__name__
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueError(f"{kind}: betas must be two numbers, as (0.9, 0.999); got {betas}")
        check_fraction(kind, **{"betas[0]": betas[0], "betas[1]": betas[1]})
        check_number(kind, eps=eps, weight_decay=weight_decay)
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


def _listed(operation: str, parameters: Any) -> list[Any]:
    """Return the parameters as a list; say what to pass where they come in another form."""
    if isinstance(parameters, Module | tl.Tensor | Mapping | str) or not isinstance(parameters, Iterable):
        remedy = "[x]" if isinstance(parameters, tl.Tensor) else "model.parameters()"
        raise TypeError(
            f"{operation}: needs an iterable of one or more parameters, got {kind_of(parameters)}; pass {remedy}"
        )
    return list(parameters)


def _joined(arrays: list[Any]) -> Any:
    return np.concatenate([array.reshape(-1) for array in arrays])


def _beside(parameter: Parameter, array: Any) -> Any:
    """Return an array of the optimizer's state where the parameter is now: it may have been moved or converted."""
    if array is None:
        return parameter.backend.xp.zeros(parameter.shape, parameter.dtype)
    if type(array) is not type(parameter.data):
        return parameter.backend.asarray(backend_of(array).to_numpy(array), parameter.dtype)
    return array if array.dtype == parameter.dtype else array.astype(parameter.dtype)


def clip_grad_norm(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients so that their joint Euclidean norm is at most `max_norm`; return the norm before.

    Pascanu et al. 2013, algorithm 1. Raises ValueError, and changes nothing, where the norm is not finite. Waits for
    the GPU once.
    """
    check_number("clip_grad_norm", above=True, finite=False, max_norm=max_norm)
    listed = _listed("clip_grad_norm", parameters)
    wrong = [p for p in listed if not isinstance(p, tl.Tensor)]
    if wrong:
        raise TypeError(f"clip_grad_norm: needs parameters, got {kind_of(wrong[0])}; pass model.parameters()")
    with_grad = [(p, p.grad) for p in listed if p.grad is not None]
    if not with_grad:
        return 0.0
    total: Any = 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite gets an error of its own
        for _, grad in with_grad:
            g = grad.data.reshape(-1)
            g = g.astype("float32") if g.dtype == "float16" else g  # whose squares overflow at 256
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
