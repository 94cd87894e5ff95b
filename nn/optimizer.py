"""Optimizer: the base class of all optimizers. It holds parameters and state, and checks both.

The formulas that update one parameter are in `tensorlib.ops.update`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

import tensorlib as tl
from nn.batches import FlatBatch, joined
from nn.checks import check_number
from nn.module import Module
from nn.states import fitting_arrays
from tensorlib.arrays.backend import Array, backend_of
from tensorlib.arrays.capturing import note_read
from tensorlib.arrays.shapes import as_dtype, sum_dtype
from tensorlib.arrays.sharing import read_only
from tensorlib.engine.value import as_array
from tensorlib.messages import kind_of, shown, unknown_name
from tensorlib.pytorch_words import check_keywords

__all__ = ["Optimizer", "named_tensors", "parameter_list"]

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
        self._require_one_to_train()
        self.learning_rate = learning_rate
        self.steps = dict.fromkeys(self.parameters, 0)  # updates of each parameter so far, for Adam
        self.state: dict[str, dict[str, Array]] = {name: {} for name in self.parameters}
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

    def _require_one_to_train(self) -> None:
        """Raise ValueError if every parameter is frozen."""
        if not any(p.requires_grad for p in self.parameters.values()):
            name, p = next(iter(self.parameters.items()))
            others = ", nor does any other" if len(self.parameters) > 1 else ""
            raise ValueError(
                f"{type(self).__name__}: needs a parameter that requires a gradient, but {name} of shape {p.shape} "
                f"requires no gradient{others}; set p.requires_grad = True for those to train"
            )

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
        trained = {name: p for name, p in self.parameters.items() if p.grad is not None and p.requires_grad}
        if not trained:
            raise RuntimeError(
                f"{type(self).__name__}: step needs a gradient, but none of {len(self.parameters)} parameters has one; "
                "call loss.backward() between zero_grad() and step(), with a loss computed by these parameters"
            )
        gradients = {name: self._gradient(name, p) for name, p in trained.items()}
        batches: dict[tuple[int, np.dtype], list[str]] = {}
        elementwise = self._is_elementwise
        for name, g in gradients.items():
            parameter = self.parameters[name]
            if elementwise and g.size <= SMALL and isinstance(g, np.ndarray):
                batches.setdefault((self.steps[name], parameter.dtype), []).append(name)
            else:
                self._fit_state(name)
                p = as_dtype(parameter.data, g.dtype)
                new = self._updated(p, g, self.state[name], self.steps[name] + 1)
                parameter.replace(as_dtype(new, parameter.dtype), copy=False)
                self.steps[name] += 1
        before, self._batches = self._batches, {}
        for names in batches.values():
            self._update_batch({name: gradients[name] for name in names}, before)

    def _update_batch(self, gradients: dict[str, Array], before: dict[tuple[str, ...], FlatBatch]) -> None:
        """Update small parameters as one array: at any size an update takes twenty NumPy calls, or a compiled one."""
        names = tuple(gradients)
        key = (*self.slots, *names)
        batch = before.get(key)
        if batch is None or not batch.is_current():
            for name in names:
                self._fit_state(name)
            batch = FlatBatch(self.parameters, self.state, self.slots, names)
        self._batches[key] = batch
        flat_g, step = joined(list(gradients.values())), self.steps[names[0]] + 1
        new = self._updated(as_dtype(batch.values, flat_g.dtype), flat_g, batch.slots, step)
        batch.replace(as_dtype(new, self.parameters[names[0]].dtype))
        for name in names:
            self.steps[name] = step

    def _fit_state(self, name: str) -> None:
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
        """Check that a parameter's gradient fits; return its array in the dtype of the update."""
        grad, kind = parameter.grad, type(self).__name__
        if not isinstance(grad, tl.Tensor):
            raise TypeError(f"{kind}: the gradient of {name} must be a Tensor, got {kind_of(grad)}")
        note_read(parameter)
        if grad.shape != parameter.shape:
            raise ValueError(f"{kind}: the gradient of {name} must have its shape {parameter.shape}, got {grad.shape}")
        if type(grad.array) is not type(parameter.array):
            raise TypeError(
                f"{kind}: the gradient of {name} must be on its backend {parameter.backend.name}, "
                f"got {grad.backend.name}; move the model before the backward pass"
            )
        return as_dtype(grad.array, sum_dtype(parameter))

    def update(self, p: Array, g: Array, state: dict[str, Array], step: int) -> Array:
        """Return the new array of one parameter, given its array, its gradient and the number of this step.

        `state` holds the arrays of `slots`, zeros at first, and is updated in place. A class of your own gets p and g
        read-only; what it returns, or assigns in `state`, is copied.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of the state on the host: "NAME.steps" and "NAME.SLOT" for each parameter, at first zeros.

        It holds what steps have computed. Settings such as the learning rate are not part of it, unlike in PyTorch:
        they are arguments of the constructor, and a schedule sets the learning rate again from the number of the step.
        """
        arrays = {}
        for name, p in self.parameters.items():
            arrays[f"{name}.steps"] = np.array(self.steps[name])
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
        for name, parameter in self.parameters.items():
            self.steps[name] = int(converted[f"{name}.steps"])
            moved = {slot: parameter.backend.asarray(converted[f"{name}.{slot}"]) for slot in self.slots}
            self.state[name] = moved


class _State(dict[str, Any]):
    """The state of one parameter as the user's `update` gets it."""

    def __missing__(self, name: str) -> Any:
        raise TypeError(f"update: the state has no {name!r}; declare it in the class: slots = {(*self, name)}")


def named_tensors(kind: str, parameters: Iterable[Any]) -> dict[str, tl.Tensor]:
    """Return parameters by name: the given name, otherwise the one set by a module, otherwise the index.

    Raises TypeError or ValueError, in the name of the class `kind`, unless they are different leaves with different
    names, and at least one.
    """
    pairs: list[tuple[str, Any]] = []
    for i, p in enumerate(parameter_list(kind, parameters)):
        pairs.append(p if isinstance(p, tuple) and len(p) == 2 else (getattr(p, "name", "") or str(i), p))
    first: dict[int, str] = {}
    for name, p in pairs:
        if not isinstance(p, tl.Tensor):
            remedy = "make one optimizer for each group" if isinstance(p, dict) else "pass model.parameters()"
            raise TypeError(f"{kind}: needs parameters, got {kind_of(p)} among them; {remedy}")
        if not p.is_leaf:
            raise ValueError(
                f"{kind}: needs leaves that require a gradient, but {name} of shape {p.shape} was computed by "
                f"{p.node.name if p.node else ''}; make the result a leaf: nn.Parameter(x)"
            )
        if id(p) in first:
            raise ValueError(f"{kind}: {name} is given twice, first as {first[id(p)]}; each step would update it twice")
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


def parameter_list(operation: str, parameters: Any) -> list[Any]:
    """Return the parameters as a list; raise TypeError, saying what to pass instead, unless they are an iterable."""
    if isinstance(parameters, Module | tl.Tensor | Mapping | str) or not isinstance(parameters, Iterable):
        remedy = "[x]" if isinstance(parameters, tl.Tensor) else "model.parameters()"
        raise TypeError(
            f"{operation}: needs an iterable of one or more parameters, got {kind_of(parameters)}; pass {remedy}"
        )
    return list(parameters)


def _fitting(array: Array | None, parameter: tl.Tensor) -> Array:
    """Return a state array on the parameter's current backend and for its current dtype, or zeros in place of None."""
    dtype = sum_dtype(parameter)
    if array is None:
        return parameter.backend.xp.zeros(parameter.shape, dtype)
    if type(array) is not type(parameter.data):
        return parameter.backend.asarray(backend_of(array).to_numpy(array), dtype)
    return as_dtype(array, dtype)
