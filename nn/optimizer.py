"""Optimizer: the base class of all optimizers. It holds parameters and state, and checks both.

The formulas that update one parameter are in `tensorlib.ops.update`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

import tensorlib as tl
from nn.batches import FlatBatch, joined
from nn.checks import check_number
from nn.device_updates import update_on_device
from nn.parameter_lists import named_tensors, require_one_to_train
from nn.states import fitting_arrays
from nn.step_counts import StepCounts
from tensorlib.arrays.backend import Array, backend_of
from tensorlib.arrays.capturing import current_capture, note_read
from tensorlib.arrays.shapes import as_dtype, sum_dtype
from tensorlib.arrays.sharing import read_only
from tensorlib.engine.value import as_array
from tensorlib.messages import kind_of, shown, unknown_name
from tensorlib.ops.update_in_place import Guard
from tensorlib.pytorch_words import check_keywords

__all__ = ["Optimizer"]

_PYTORCH_NAMES = {  # from PyTorch's name to what to write instead
    "param_groups": "optimizer.learning_rate, and one optimizer for each group", "defaults": "vars(optimizer)",
    "add_param_group": "one optimizer for each group",
}  # fmt: skip

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

    A parameter with ``requires_grad = False`` is frozen: no step changes it until it is set to True again. Raises
    TypeError or ValueError unless the parameters are different leaf Tensors with different names, and at least one of
    them requires a gradient. An optimizer for parameters on NumPy calls `tl.keep_memory`.
    """

    slots: tuple[str, ...] = ()  # the arrays kept for each parameter, such as Adam's moments
    # True if the `update` that this class defines treats each element independently and keeps no state but the slots.
    # Small parameters are then concatenated into one array for `update`.
    elementwise = False

    settings: tuple[str, ...] = ()  # the attributes, but for the learning rate, on which `update_in_place` depends

    _guarded = False  # whether `update` is the user's: it may neither write into p or g nor share what it returns

    def __init_subclass__(cls, **options: Any) -> None:
        """Note whether the update is the user's."""
        super().__init_subclass__(**options)
        cls._guarded = not cls.update.__module__.startswith("nn.")

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Make an optimizer; raise TypeError for PyTorch's name of an argument, with ours."""
        if "lr" in options:
            raise TypeError(f"{cls.__name__}: lr is called learning_rate, got lr={options['lr']}")
        check_keywords(cls, options)
        return super().__new__(cls)

    def __init__(self, parameters: Iterable[tl.Tensor | tuple[str, tl.Tensor]], learning_rate: float) -> None:
        self.parameters = named_tensors(type(self).__name__, parameters)
        require_one_to_train(type(self).__name__, self.parameters)
        self.learning_rate = learning_rate
        self.counts = StepCounts(self.parameters)  # updates of each parameter so far, for Adam
        self.state: dict[str, dict[str, Array]] = {name: {} for name in self.parameters}
        self.skipped: Array = np.zeros((), bool)  # set by `guarded_step`
        self._batches: dict[tuple[str, ...], FlatBatch] = {}
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

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Reached only when the attribute does not exist.
            if name.startswith("_"):
                return object.__getattribute__(self, name)
            known = {*dir(type(self)), *vars(self)}
            raise AttributeError(unknown_name(type(self).__name__, name, known, _PYTORCH_NAMES))

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for parameter in self.parameters.values():
            parameter.grad = None
            note_read(parameter)

    def step(self) -> None:
        """Update every parameter that has a gradient and is not frozen.

        Raises RuntimeError if there is none, and TypeError or ValueError, before any update, if the type, shape or
        backend of a gradient is wrong.
        """
        self.take_step(self.checked_gradients())

    def checked_gradients(self) -> dict[str, Array]:
        """Return the gradients of those parameters that a step updates, by name; raise what `step` raises."""
        for parameter in self.parameters.values():
            note_read(parameter)
        trained = {name: p for name, p in self.parameters.items() if p.grad is not None and p.requires_grad}
        if not trained:
            raise RuntimeError(
                f"{type(self).__name__}: step needs a gradient, but none of {len(self.parameters)} parameters has one; "
                "call loss.backward() between zero_grad() and step(), with a loss computed by these parameters"
            )
        return {name: self._gradient(name, p) for name, p in trained.items()}

    def take_step(self, gradients: Mapping[str, Array], guard: Guard | None = None) -> None:
        """Update parameters by gradients that `checked_gradients` returned. `guard` holds for updates in place only."""
        on_device = [name for name in gradients if self.is_in_place(self.parameters[name])]
        if on_device:
            update_on_device(self, on_device, gradients, guard)
        alone, batches = [], dict[tuple[int, np.dtype], list[str]]()
        elementwise, steps = self._is_elementwise, self.counts.on_host([n for n in gradients if n not in on_device])
        for name in steps:
            parameter = self.parameters[name]
            if elementwise and parameter.size <= SMALL and isinstance(parameter.array, np.ndarray):
                batches.setdefault((steps[name], parameter.dtype), []).append(name)
            else:
                alone.append(name)
        for name in alone:
            self._update_alone(name, gradients[name])
        before, self._batches = self._batches, {}
        for names in batches.values():
            self._update_batch({name: gradients[name] for name in names}, before)

    def _update_alone(self, name: str, g: Array) -> None:
        """Update one parameter, which gets a new array."""
        parameter = self.parameters[name]
        if current_capture() is not None:
            raise RuntimeError(
                f"{type(self).__name__}: update makes a new array of {name}, which a recorded step would not see; take "
                "the step outside of tl.capture, or define update_in_place"
            )
        self.fit_state(name)
        g = as_dtype(g, sum_dtype(parameter))
        new = self._updated(as_dtype(parameter.data, g.dtype), g, self.state[name], self.counts.host[name] + 1)
        parameter.replace(as_dtype(new, parameter.dtype), copy=False)
        self.counts.host[name] += 1

    def _update_batch(self, gradients: dict[str, Array], before: dict[tuple[str, ...], FlatBatch]) -> None:
        """Update small parameters as one array: at any size an update takes twenty NumPy calls, or a compiled one."""
        names = tuple(gradients)
        key = (*self.slots, *names)
        batch = before.get(key)
        if batch is None or not batch.is_current():
            for name in names:
                self.fit_state(name)
            batch = FlatBatch(self.parameters, self.state, self.slots, names)
        self._batches[key] = batch
        own = [as_dtype(g, sum_dtype(self.parameters[name])) for name, g in gradients.items()]
        flat_g, step = joined(own), self.counts.host[names[0]] + 1
        new = self._updated(as_dtype(batch.values, flat_g.dtype), flat_g, batch.slots, step)
        batch.replace(as_dtype(new, self.parameters[names[0]].dtype))
        for name in names:
            self.counts.host[name] = step

    def fit_state(self, name: str) -> None:
        """Let the state of a parameter have its current backend and dtype."""
        parameter, state = self.parameters[name], self.state[name]
        for slot in self.slots:
            state[slot] = _fitting(state.get(slot), parameter)

    def _updated(self, p: Array, g: Array, state: dict[str, Array], step: int) -> Array:
        """Return the result of `update`, after checking that it is an array of the shape of p."""
        own = _State(state) if self._guarded else state
        new: Any = as_array(self._guarded_update(p, g, own, step) if self._guarded else self.update(p, g, state, step))
        if type(new) is not type(p) or new.shape != p.shape:
            tensor = "; return its .data" if isinstance(new, tl.Tensor) else ""
            remedy = "; is its return missing?" if new is None else tensor
            raise TypeError(
                f"{type(self).__name__}: update must return the new array of a parameter, of shape {p.shape}, "
                f"got {shown(new)}{remedy}"
            )
        if self._guarded:
            state |= self._own_arrays(own, state)
            new = new.copy()  # it may be an array that the optimizer or the caller keeps
        return new

    def _guarded_update(self, p: Array, g: Array, state: dict[str, Array], step: int) -> Any:
        """Return the result of a user's `update`, which gets arrays that it cannot write to or, on CuPy, copies."""
        p, g = [read_only(x) if isinstance(x, np.ndarray) else x.copy() for x in (p, g)]
        try:
            return self.update(p, g, state, step)
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise ValueError(
                f"{type(self).__name__}: update must not write into p or g, which others may hold; return a new array, "
                "such as p - self.learning_rate * g"
            ) from error

    def _own_arrays(self, given: dict[str, Array], state: dict[str, Array]) -> dict[str, Array]:
        """Return copies of the arrays that a user's `update` has put into the state, after checking them."""
        undeclared = [name for name in given if name not in state]
        if undeclared:
            raise TypeError(
                f"{type(self).__name__}: update keeps {undeclared[0]!r} in the state, which state_dict would not save; "
                f"declare it in the class: slots = {(*self.slots, *undeclared)}"
            )
        changed = {}
        for slot, old in state.items():
            new: Any = as_array(given.get(slot))
            if type(new) is not type(old) or new.shape != old.shape:
                raise TypeError(
                    f"{type(self).__name__}: state[{slot!r}] must stay an array of shape {old.shape}, got {shown(new)}"
                )
            if new is not old:
                changed[slot] = new.copy()
        return changed

    @property
    def _is_elementwise(self) -> bool:
        """The `elementwise` of the class that defines `update`; a subclass that overrides `update` must set it."""
        return next(vars(c).get("elementwise", False) for c in type(self).__mro__ if "update" in vars(c))

    def _gradient(self, name: str, parameter: tl.Tensor) -> Array:
        """Check that a parameter's gradient fits; return its array."""
        grad, kind = parameter.grad, type(self).__name__
        if not isinstance(grad, tl.Tensor):
            raise TypeError(f"{kind}: the gradient of {name} must be a Tensor, got {kind_of(grad)}")
        if grad.shape != parameter.shape:
            raise ValueError(f"{kind}: the gradient of {name} must have its shape {parameter.shape}, got {grad.shape}")
        if type(grad.array) is not type(parameter.array):
            raise TypeError(
                f"{kind}: the gradient of {name} must be on its backend {parameter.backend.name}, "
                f"got {grad.backend.name}; move the model before the backward pass"
            )
        return grad.array

    def update(self, p: Array, g: Array, state: dict[str, Array], step: int) -> Array:
        """Return the new array of one parameter, given its array, its gradient and the number of this step.

        `state` holds the arrays of `slots`, zeros at first, and is updated in place. A class of your own gets p and g
        read-only; what it returns, or assigns in `state`, is copied.
        """
        raise NotImplementedError

    def update_in_place(
        self, ps: list[Array], gs: list[Array], state: dict[str, list[Array]], counts: list[Array], guard: Guard | None
    ) -> None:
        """Update parameters on a device, in their arrays, and count their steps; see `tensorlib.ops.update_in_place`.

        It is called instead of `update` if the class that defines `update` also defines this method.
        """
        raise NotImplementedError

    def current_rate(self) -> float:
        """Return the learning rate, which a captured step reads anew at each replay."""
        return float(self.learning_rate)

    def is_in_place(self, parameter: tl.Tensor) -> bool:
        """Return whether a step writes into the array of a parameter: on a device, unless `update` is the user's."""
        if isinstance(parameter.array, np.ndarray):
            return False
        return next("update_in_place" in vars(c) for c in type(self).__mro__ if "update" in vars(c))

    @property
    def steps(self) -> dict[str, int]:
        """The number of updates of each parameter so far. Waits for the GPU if the parameters are there."""
        return self.counts.numbers()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of the state on the host: "NAME.steps" and "NAME.SLOT" for each parameter, at first zeros.

        It holds what steps have computed. Settings such as the learning rate are not part of it, unlike in PyTorch:
        they are arguments of the constructor, and a schedule sets the learning rate again from the number of the step.
        """
        arrays, steps = {}, self.steps
        for name, p in self.parameters.items():
            arrays[f"{name}.steps"] = np.array(steps[name])
            for slot in self.slots:
                array = self.state[name].get(slot)
                host = np.zeros(p.shape, sum_dtype(p)) if array is None else np.array(p.backend.to_numpy(array))
                arrays[f"{name}.{slot}"] = host
        return arrays

    def load_state_dict(self, arrays: Mapping[str, Any]) -> None:
        """Replace the state by a copy of `arrays`, as returned by `state_dict`. The learning rate stays as it is.

        Raises ValueError with *all* names that are missing, unexpected, of the wrong shape, or of values that the
        state cannot hold, and then changes nothing.
        """
        types: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        types |= {f"{name}.steps": ((), np.dtype(np.int64)) for name in self.parameters}
        types |= {f"{n}.{s}": (p.shape, sum_dtype(p)) for n, p in self.parameters.items() for s in self.slots}
        converted, problems = fitting_arrays(type(self).__name__, arrays, types)
        negative = (n for n in self.parameters if np.any(converted.get(f"{n}.steps", np.zeros(())) < 0))
        problems += [f"{name}.steps must be at least 0" for name in negative]
        if problems:
            raise ValueError(f"{type(self).__name__}: the state does not fit: {'; '.join(problems)}")
        self._batches = {}  # they hold the state so far
        for name, parameter in self.parameters.items():
            moved = {slot: parameter.backend.asarray(converted[f"{name}.{slot}"]) for slot in self.slots}
            self.state[name] = moved
        device = {name: p for name, p in self.parameters.items() if self.is_in_place(p)}
        self.counts.load({name: int(converted[f"{name}.steps"]) for name in self.parameters}, device)


class _State(dict[str, Any]):
    """The state of one parameter as the user's `update` gets it."""

    def __missing__(self, name: str) -> Any:
        raise TypeError(f"update: the state has no {name!r}; declare it in the class: slots = {(*self, name)}")


def _fitting(array: Array | None, parameter: tl.Tensor) -> Array:
    """Return a state array on the parameter's current backend and for its current dtype, or zeros in place of None."""
    dtype = sum_dtype(parameter)
    if array is None:
        return parameter.backend.xp.zeros(parameter.shape, dtype)
    if type(array) is not type(parameter.data):
        return parameter.backend.asarray(backend_of(array).to_numpy(array), dtype)
    return as_dtype(array, dtype)
