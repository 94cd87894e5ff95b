"""Function: a differentiable op as its author sees it: `forward` and `backward` side by side, and `apply`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard, TypeVar

import numpy as np

from tensorlib.arrays.backend import Array, backend_of
from tensorlib.arrays.conversion import check_numbers, floats_beside, new_array
from tensorlib.arrays.sharing import read_only
from tensorlib.engine.errors import by_name, explained, require_arrays
from tensorlib.engine.node import Edge, Node, next_serial
from tensorlib.engine.recording import DEFAULT_STATE, State, calling_line
from tensorlib.engine.recording import STATE as STATE  # also for the ops
from tensorlib.engine.value import Value, as_array, as_value, checked_array, wrap
from tensorlib.messages import unknown_name
from tensorlib.pytorch_words import CONTEXT_NAMES

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__ = ["Function"]

F = TypeVar("F", bound=Callable[..., Any])


class Function(Node):
    """A differentiable operation; subclass it to write one.

    >>> class Square(tl.Function):
    ...     def forward(self, x):
    ...         self.save(x)
    ...         return x * x
    ...
    ...     def backward(self, dy):
    ...         (x,) = self.saved
    ...         return 2 * x * dy
    >>> def square(x):
    ...     return Square.apply(x)
    >>> x = tl.Tensor(3.0, requires_grad=True)
    >>> square(x).backward()
    >>> x.grad.item()
    6.0

    ``forward`` gets the positional arguments of ``apply`` as raw arrays (Python scalars stay scalars) and the keyword
    arguments unchanged; it returns an array, or a tuple of arrays. ``backward`` gets one gradient per output and
    returns one per positional input, None if no gradient flows there. Write it with operators, array methods and
    ``namespace_of(dy)``, so that it works on arrays and, for second derivatives, on Tensors.

    Attributes for the author of an op:
        saved: the inputs or outputs that ``save`` kept, a copy of an array that the caller may write to; under
            create_graph they are Tensors with their history. Like all attributes, it is dropped with the graph.
        statistics: anything else that is kept *for speed*, such as LayerNorm's 1/std. It is None under create_graph,
            where ``backward`` must recompute it from ``saved``: a statistic treated as a constant gives a right first
            derivative and a wrong second one.
        needs: for each input, whether its gradient is wanted; all False if nothing is recorded. Skip unwanted ones.
        broadcasts: set to True in the class if inputs broadcast; the engine then sums gradients back to input shapes.
        fresh: set to True in the class if every gradient is a new array that nothing else refers to: it may then become
            a ``.grad`` without being copied.
        differentiable: set to False in the class if outputs have no gradient (indices, booleans) and so are constants.
    """

    broadcasts: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    fresh: ClassVar[bool] = False

    guarded: ClassVar[bool] = False  # for the op of a user: arrays are read-only, and what it returns is checked

    needs: tuple[bool, ...] = ()

    def __init_subclass__(cls) -> None:
        """Refuse an op in PyTorch's form when it is defined."""
        cls.guarded = not cls.__module__.startswith("tensorlib.")
        for method in ("forward", "backward"):
            if isinstance(vars(cls).get(method), staticmethod):
                raise TypeError(
                    f"{cls.__name__}: {method} must be a method, got a staticmethod; write def {method}(self, ...), "
                    "with self in place of ctx"
                )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Reached only when the attribute does not exist. Python itself looks up private names, for example to copy.
            if name.startswith("_"):
                return object.__getattribute__(self, name)
            raise AttributeError(unknown_name(type(self).__name__, name, dir(type(self)), CONTEXT_NAMES))

    def forward(self, *arrays: Any, **attributes: Any) -> Any:
        """Compute the value from raw arrays."""
        raise NotImplementedError(f"{type(self).__name__}: forward is missing")

    def backward(self, *dy: Any, **_: Any) -> Any:
        """Return the gradient with respect to each input, given the gradient with respect to each output."""
        raise NotImplementedError(f"{type(self).__name__}: backward is missing, so it has no gradient")

    def save(self, *arrays: Array) -> None:
        """Keep inputs or outputs of this op for ``backward``, in the given order, as ``self.saved``."""
        if self.edges is not None:
            self.saved = arrays

    @classmethod
    def apply(cls, *inputs: Any, **attributes: Any) -> Tensor:
        """Run `forward` on the inputs' arrays; record the op if an input needs a gradient.

        Inputs are Tensors, or anything that `Tensor` accepts; Python scalars stay scalars. Returns a Tensor, or a
        tuple of Tensors if `forward` returned a tuple.
        """
        # The fast path of every op: it reads the state once, and calls functions for unusual inputs only.
        state = STATE.get()
        recording = state.record and cls.differentiable
        arrays: list[Any] = []
        edges: list[Edge | None] = []
        needs: list[bool] = []
        for x in inputs:
            if isinstance(x, Value):
                arrays.append(x.array)
                if recording and x.needs_grad:
                    edges.append((x if x.node is None else x.node, x.output_index))
                    needs.append(True)
                    continue
            else:
                arrays.append(_operand(x, inputs))
            edges.append(None)
            needs.append(False)

        op = cls()
        op.needs = tuple(needs)
        recorded = True in needs
        if recorded:
            op.edges, op.serial, op.attributes = edges, next_serial(), attributes
            if len(arrays) == 2 and arrays[0] is arrays[1]:
                arrays[1] = arrays[1][...]  # x * x: a view, as in _distinct, but without a function call
            elif len(arrays) > 2:
                arrays = _distinct(arrays)
        if cls.guarded:
            arrays = [read_only(x) for x in arrays]  # an op could change the Tensors of its caller unnoticed
        try:
            y = op.forward(*arrays, **attributes)
        except (TypeError, ValueError, OverflowError) as error:
            raise explained(op, arrays, attributes, error) from error

        if cls.guarded:
            require_arrays(op, "forward", y)
        # Nearly all ops have one output.
        if isinstance(y, tuple):
            return op._several_outputs(state, inputs, arrays, y, recorded)
        if recorded:
            op.describe(arrays, (y,), inputs)
        result = wrap(np.asarray(y) if isinstance(y, np.generic) else y, op if recorded else None)
        if state is not DEFAULT_STATE:
            op._notify(state, inputs, (result,))
        return result

    @classmethod
    def run(cls, *inputs: Any, **attributes: Any) -> Any:
        """Run this op inside another op: on arrays call ``forward`` and record nothing, on Tensors call ``apply``."""
        if any(isinstance(x, Value) for x in inputs):
            return cls.apply(*inputs, **attributes)
        op = cls()
        op.needs = (False,) * len(inputs)
        return op.forward(*inputs, **attributes)

    def _several_outputs(
        self, state: State, inputs: Sequence[Any], arrays: Sequence[Any], outputs: tuple[Any, ...], recorded: bool
    ) -> Any:
        """Finish `apply` for a `forward` that returned a tuple: one node, several Tensors."""
        if recorded:
            self.describe(arrays, outputs, inputs)
        node = self if recorded else None
        results = tuple([wrap(as_array(y), node if y.dtype.kind == "f" else None, k) for k, y in enumerate(outputs)])
        if state is not DEFAULT_STATE:
            self._notify(state, inputs, results)
        return results

    def _notify(self, state: State, inputs: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        """Note where this op was called, and notify the observers of this thread."""
        self.path, self.precision = state.path, state.precision
        if state.source:
            self.source = calling_line()
        if state.tape is not None:
            state.tape.ran(self, inputs)
        if state.watch is not None:
            state.watch.forward(self, inputs, outputs)


def _operand(x: Any, inputs: Sequence[Any]) -> Any:
    """Return the argument of `forward` for an input that is not a Tensor.

    A number, also NumPy's, becomes a Python number, which changes no array's dtype; numbers alone become arrays.
    """
    if isinstance(x, np.generic):
        x = x.item()
    try:
        if isinstance(x, complex):
            check_numbers("Tensor", np.dtype(complex))
        if isinstance(x, (int, float)):
            for other in inputs:
                if not isinstance(other, (int, float, np.generic)):
                    return x
            return new_array(x, np.float32 if any(isinstance(other, float) for other in inputs) else None)
        if hasattr(x, "dtype"):
            return checked_array(x)
        for other in inputs:
            if isinstance(other, Value):
                return new_array(x, backend=other.backend, floats=floats_beside(other.dtype))
        for other in inputs:
            if hasattr(other, "dtype") and not isinstance(other, np.generic):
                return new_array(x, backend=backend_of(other), floats=floats_beside(other.dtype))
        return new_array(x)
    except (TypeError, ValueError) as error:
        raise by_name(error, "Tensor") from None


def _distinct(arrays: list[Any]) -> list[Any]:
    """Replace repeats of an array, as in x * x.detach(), by views: saved inputs are recognized by identity."""
    first = {id(x): i for i, x in reversed([*enumerate(arrays)])}
    return [x if first[id(x)] == i or not hasattr(x, "dtype") else x[...] for i, x in enumerate(arrays)]


def derivation(*ops: type[Function]) -> Callable[[F], F]:
    """Append the docstrings of `ops`, which state formulas and gradients, to a public function's docstring."""

    def add(function: F) -> F:
        texts = [inspect.cleandoc(text) for text in (function.__doc__, *(op.__doc__ for op in ops)) if text]
        function.__doc__ = "\n\n".join(texts)
        return function

    return add


def constant(array: Any) -> Tensor:
    """Return a Tensor that holds an array, without a copy: for arrays that no caller has."""
    return wrap(as_array(array))


def as_tensor(x: Any, like: Value | None = None) -> Tensor:
    """Return `x` if it is a Tensor, otherwise a constant; an error names the function that the user called."""
    try:
        return as_value(x, like)
    except (TypeError, ValueError) as error:
        raise by_name(error, "Tensor") from None


def is_tensor(x: Any) -> TypeGuard[Tensor]:
    """Return whether `x` is a Tensor of this library; a torch.Tensor has attributes of the same names."""
    return isinstance(x, Value)
