"""Optimizer: the base class of all optimizers. It holds parameters and state, and checks both.

The formulas that update one parameter are in `tensorlib.ops.update`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np

import tensorlib as tl
from nn.checks import check_number, shape_mismatches
from nn.module import Module
from tensorlib.arrays.backend import Array, backend_of
from tensorlib.arrays.shapes import as_dtype, sum_dtype
from tensorlib.engine.value import as_array
from tensorlib.messages import kind_of

__all__ = ["Optimizer", "parameter_list"]

SMALL = 1 << 15  # elements; updates up to this size spend more time on calls than on arithmetic


class Optimizer:
    """Updates parameters from their gradients: subclass it and write `update`.

    Args:
        parameters: ``model.parameters()``, or ``model.named_parameters()`` to use these names in the state.
        learning_rate: a number; the attribute of this name may be set to a new number between steps.

    >>> class SignDescent(optim.Optimizer):
    ...     def update(self, p, g, state, step):
    ...         return p - self.learning_rate * np.sign(g)
    >>> w = nn.Parameter([1.0, 2.0])
    >>> optimizer = SignDescent([w], learning_rate=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.numpy()
    array([0.5, 1.5], dtype=float32)

    Parameters in float16 are updated in float32 and rounded, and their state is float32: in float16, Adam's eps of 1e-8
    would be 0, and so would the squares of gradients below 2e-4.

    Raises TypeError or ValueError unless the parameters are different leaf Tensors that require a gradient and have
    different names. An optimizer for parameters on NumPy calls `tl.keep_memory`.
    """

    slots: tuple[str, ...] = ()  # the arrays kept for each parameter, such as Adam's moments
    # True if the `update` that this class defines treats each element independently and keeps no state but the slots.
    # Small parameters are then concatenated into one array for `update`.
    elementwise = False

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Make an optimizer; raise TypeError for PyTorch's name of the learning rate."""
        if "lr" in options:
            raise TypeError(f"{cls.__name__}: lr is called learning_rate, got lr={options['lr']}")
        return super().__new__(cls)

    def __init__(self, parameters: Iterable[tl.Tensor | tuple[str, tl.Tensor]], learning_rate: float) -> None:
        self.parameters = self._named_parameters(parameters)
        self.learning_rate = learning_rate
        self.steps = dict.fromkeys(self.parameters, 0)  # updates of each parameter so far, for Adam
        self.state: dict[str, dict[str, Array]] = {name: {} for name in self.parameters}
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

    def _named_parameters(self, parameters: Iterable[Any]) -> dict[str, tl.Tensor]:
        """Return the parameters by name: the given name, otherwise the one set by a module, otherwise the index."""
        kind = type(self).__name__
        pairs: list[tuple[str, Any]] = []
        for i, p in enumerate(parameter_list(kind, parameters)):
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
                    f"{kind}: {name} is given twice, first as {first[id(p)]}; each step would update it twice"
                )
            first[id(p)] = name
        repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        if repeated:
            raise ValueError(
                f"{kind}: parameters must have different names, got {repeated[0]} twice; for several models pass "
                '[*a.named_parameters("a"), *b.named_parameters("b")]'
            )
        if not pairs:
            raise ValueError(f"{kind}: needs one or more parameters, got none; a generator is empty once it is used up")
        return dict(pairs)

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient.

        Raises TypeError or ValueError, before any update, if the type, shape or backend of a gradient is wrong.
        """
        gradients = {n: self._gradient(n, p) for n, p in self.parameters.items() if p.grad is not None}
        batches: dict[tuple[int, np.dtype], list[str]] = {}
        for name, g in gradients.items():
            parameter, state = self.parameters[name], self.state[name]
            for slot in self.slots:
                state[slot] = _fitting(state.get(slot), parameter)
            if self._is_elementwise and parameter.size <= SMALL and parameter.backend.xp is np:
                batches.setdefault((self.steps[name], parameter.dtype), []).append(name)
            else:
                p = as_dtype(parameter.data, g.dtype)
                _replace(parameter, as_array(self.update(p, g, state, self.steps[name] + 1)))
                self.steps[name] += 1
        for names in batches.values():
            self._update_batch({name: gradients[name] for name in names})

    def _update_batch(self, gradients: dict[str, Array]) -> None:
        """Update small parameters as one array, because an update takes about twenty NumPy calls at any size."""
        states = {slot: _flat([self.state[name][slot] for name in gradients]) for slot in self.slots}
        flat_g = _flat(list(gradients.values()))
        old = as_dtype(_flat([self.parameters[name].data for name in gradients]), flat_g.dtype)
        step = self.steps[next(iter(gradients))] + 1
        new, start = self.update(old, flat_g, states, step), 0
        for name, g in gradients.items():
            end = start + g.size
            for slot, flat in states.items():
                moment: Any = self.state[name][slot]
                moment[...] = flat[start:end].reshape(g.shape)
            # Copy, because a view would keep the whole concatenated array alive.
            _replace(self.parameters[name], new[start:end].reshape(g.shape).copy())
            self.steps[name] = step
            start = end

    @property
    def _is_elementwise(self) -> bool:
        """The `elementwise` of the class that defines `update`; a subclass that overrides `update` must set it."""
        return next(vars(c).get("elementwise", False) for c in type(self).__mro__ if "update" in vars(c))

    def _gradient(self, name: str, parameter: tl.Tensor) -> Array:
        """Check that a parameter's gradient fits; return its array in the dtype of the update."""
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
        return as_dtype(grad.data, sum_dtype(parameter))

    def update(self, p: Array, g: Array, state: dict[str, Array], step: int) -> Array:
        """Return the new array of one parameter, given its array, its gradient and the number of this step.

        `state` holds the arrays of `slots`, zeros at first, and is updated in place.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of the state on the host: "NAME.steps" and "NAME.SLOT" for each parameter, at first zeros."""
        arrays = {}
        for name, p in self.parameters.items():
            arrays[f"{name}.steps"] = np.array(self.steps[name])
            for slot in self.slots:
                array = self.state[name].get(slot)
                host = np.zeros(p.shape, sum_dtype(p)) if array is None else np.array(p.backend.to_numpy(array))
                arrays[f"{name}.{slot}"] = host
        return arrays

    def load_state_dict(self, arrays: Mapping[str, Any]) -> None:
        """Replace the state by a copy of `arrays`, as returned by `state_dict`.

        Raises ValueError with *all* names that are missing, unexpected or of the wrong shape, and then changes nothing.
        """
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
                slot: parameter.backend.asarray(arrays[f"{name}.{slot}"], sum_dtype(parameter)) for slot in self.slots
            }


def parameter_list(operation: str, parameters: Any) -> list[Any]:
    """Return the parameters as a list; raise TypeError, saying what to pass instead, unless they are an iterable."""
    if isinstance(parameters, Module | tl.Tensor | Mapping | str) or not isinstance(parameters, Iterable):
        remedy = "[x]" if isinstance(parameters, tl.Tensor) else "model.parameters()"
        raise TypeError(
            f"{operation}: needs an iterable of one or more parameters, got {kind_of(parameters)}; pass {remedy}"
        )
    return list(parameters)


def _flat(arrays: list[Array]) -> Array:
    return np.concatenate([array.reshape(-1) for array in arrays])


def _fitting(array: Array | None, parameter: tl.Tensor) -> Array:
    """Return a state array on the parameter's current backend and for its current dtype, or zeros in place of None."""
    dtype = sum_dtype(parameter)
    if array is None:
        return parameter.backend.xp.zeros(parameter.shape, dtype)
    if type(array) is not type(parameter.data):
        return parameter.backend.asarray(backend_of(array).to_numpy(array), dtype)
    return as_dtype(array, dtype)


def _replace(parameter: tl.Tensor, new: Array) -> None:
    parameter.replace(as_dtype(new, parameter.dtype))
