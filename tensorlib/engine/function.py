"""Function: an op and, once applied, a node of the graph.

``apply`` runs ``forward`` on raw arrays and, if an input requires a gradient, keeps the Function as the *node* of its
output. Edges lead from node to node (and to leaf Tensors), never to intermediate Tensors: nothing but the graph keeps
the graph alive, there are no reference cycles, and memory returns without the garbage collector.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from tensorlib.arrays.backend import Array, backend_of
from tensorlib.engine.errors import by_name, diagnosed
from tensorlib.engine.recording import NOTHING_SPECIAL, STATE, State, calling_line, shown_line
from tensorlib.messages import CONTEXT_NAMES, shown, unknown_name

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__ = ["Function"]


_NUMBERS = itertools.count()


class Function:
    """A differentiable operation; subclass it to write one.

    ::

        class Square(Function):
            def forward(self, x):
                self.save(x)
                return x * x

            def backward(self, dy):
                (x,) = self.saved
                return 2 * x * dy

        def square(x):
            return Square.apply(x)

    ``forward`` gets raw arrays (and Python scalars as they are) for the positional arguments of ``apply``, the
    keyword arguments unchanged, and returns an array, or a tuple of arrays. ``backward`` gets one gradient per
    output and returns one per positional input (None: no gradient flows). It is written with operators, array
    methods and ``namespace_of(dy)``, so that it serves arrays and, for second derivatives, Tensors.

    Attributes for the writer of an op:
        saved: what ``save`` kept: inputs or outputs. Tensors on their own nodes under create_graph.
        statistics: anything else worth keeping *for speed*, such as LayerNorm's 1/std. None under create_graph,
            where the formula must compute it from ``saved``: a statistic taken for a constant has a right gradient
            and a wrong second one.
        needs: for each input, whether its gradient is wanted; all False where nothing is recorded. Compute no other.
        broadcasts: set True in the class if inputs broadcast; the engine then sums gradients back to input shapes.
        fresh: set True in the class if every gradient is a new array that nothing else refers to: it may then become
            a ``.grad`` without being copied.
        differentiable: set False in the class if outputs have no gradient (indices, booleans): they are constants.
    """

    broadcasts: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    fresh: ClassVar[bool] = False

    # Defaults stand in the class: a node writes only what it has, for writing ten attributes would cost a microsecond.
    saved: tuple[Any, ...] = ()
    needs: tuple[bool, ...] = ()
    statistics: Any = None
    path: str = ""
    source: str | None = None
    _arrays: Sequence[Any] = ()  # the inputs of forward, while it runs
    _edges: Sequence[tuple[Function | Tensor, int] | None] | None = None  # None: nothing recorded, or already released
    _number: int = 0  # nodes are numbered as they are recorded, so this is above those of all that it was made of
    _inputs: Sequence[tuple[tuple[int, ...], Any]] = ()  # (shape, dtype) of every input
    _outputs: Sequence[tuple[tuple[int, ...], Any]] = ()
    _roles: Sequence[int] = ()  # for each saved array: i >= 0 input i, i < 0 output -1 - i
    _versions: Sequence[tuple[Tensor, int]] = ()  # the leaves whose arrays were saved, and their versions then
    _hooks: dict[int, dict[int, Any]] | None = None  # by output: functions of its gradient; see Tensor.register_hook
    _retained: dict[int, Any] | None = None  # by output: a weak reference to a Tensor that asked to retain_grad
    _region: Any = None  # the checkpoint that can compute `saved` again
    _cuts: Sequence[Any] = ()  # where the history of inputs was cut off, noted by `debug`

    def __init_subclass__(cls) -> None:
        """Refuse an op in PyTorch's form when it is defined."""
        for method in ("forward", "backward"):
            if isinstance(vars(cls).get(method), staticmethod):
                raise TypeError(
                    f"{cls.__name__}: {method} must be a method, got a staticmethod; write def {method}(self, ...), "
                    "with self in the place of ctx"
                )

    def __getattr__(self, name: str) -> Any:
        # Only for names that there are not. Python itself asks for some (copying does), and needs no advice.
        if name.startswith("_"):
            return object.__getattribute__(self, name)
        raise AttributeError(unknown_name(type(self).__name__, name, dir(type(self)), CONTEXT_NAMES))

    def forward(self, *arrays: Any, **attributes: Any) -> Any:
        """Compute the value from raw arrays."""
        raise NotImplementedError(f"{type(self).__name__}: forward is missing")

    def backward(self, *dy: Any) -> Any:
        """Return the gradient with respect to each input, given the gradient with respect to each output."""
        raise NotImplementedError(f"{type(self).__name__}: backward is missing, so it has no gradient")

    def save(self, *arrays: Array) -> None:
        """Keep inputs or outputs of this op for ``backward``, in this order, as ``self.saved``."""
        if self._edges is not None:
            self.saved = arrays

    @classmethod
    def apply(cls, *inputs: Any, **attributes: Any) -> Any:
        """Run the op on Tensors (or anything that `Tensor` takes; Python scalars stay scalars) and record it."""
        state = STATE.get()
        record, recorded = state.record and cls.differentiable, False
        arrays: list[Any] = []
        edges: list[tuple[Function | Tensor, int] | None] = []
        needs: list[bool] = []
        for x in inputs:
            if isinstance(x, _tensor.Tensor):
                arrays.append(x._array)
                if record and x._requires_grad:
                    edges.append((x if x._node is None else x._node, x._index))
                    needs.append(True)
                    recorded = True
                    continue
            else:
                arrays.append(_operand(x, inputs))
            edges.append(None)
            needs.append(False)

        node = cls()
        node.needs = tuple(needs)
        if recorded:
            node._edges, node._number = edges, next(_NUMBERS)
            if len(arrays) == 2:
                if arrays[0] is arrays[1]:  # x + x, without a detour
                    arrays[1] = arrays[1][...]
            elif len(arrays) > 2:
                arrays = _told_apart(arrays)
        node._arrays = arrays
        try:
            y = node.forward(*arrays, **attributes) if attributes else node.forward(*arrays)
        except (TypeError, ValueError) as error:
            raise diagnosed(node, arrays, attributes, error) from error
        several = isinstance(y, tuple)
        origin = node._finish(y if several else (y,)) if recorded else None
        if not several:
            result = _tensor.wrap(np.asarray(y) if isinstance(y, np.generic) else y, origin)
            if state is not NOTHING_SPECIAL:
                node._tell(state, inputs, (result,))
            return result
        results = tuple([_tensor.wrap(as_array(o), origin, k) for k, o in enumerate(y)])
        if state is not NOTHING_SPECIAL:
            node._tell(state, inputs, results)
        return results

    @classmethod
    def run(cls, *inputs: Any, **attributes: Any) -> Any:
        """Use this op inside another's ``backward``: on arrays it only computes, on Tensors it is ``apply``."""
        if any(isinstance(x, _tensor.Tensor) for x in inputs):
            return cls.apply(*inputs, **attributes)
        node = cls()
        node._arrays, node.needs = inputs, (False,) * len(inputs)
        return node.forward(*inputs, **attributes)

    def _finish(self, outputs: tuple[Array, ...]) -> Self:
        """Turn the op that has just run into a node: note shapes, let go of what was not saved."""
        if self.saved:
            self._note_roles(outputs)
        inputs: list[Any] = []  # loops, for comprehensions are calls before Python 3.12
        for x in self._arrays:
            inputs.append((x.shape, x.dtype) if hasattr(x, "dtype") else ((), None))
        shapes: list[Any] = []
        try:
            for y in outputs:
                shapes.append((y.shape, y.dtype))
        except AttributeError:
            raise TypeError(
                f"{self.name}: forward must return an array, or a tuple of arrays, got {shown(y)}; "
                "use arrays of tl.namespace_of(x)"
            ) from None
        self._inputs, self._outputs, self._arrays = inputs, shapes, ()
        return self

    def _tell(self, state: State, inputs: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        """Note where this op was called, and tell who wants to know of it."""
        self.path = state.path
        if state.source:
            self.source = calling_line()
        if state.tape is not None:
            state.tape.ran(self, inputs)
        if state.watch is not None:
            state.watch.forward(self, inputs, outputs)

    def _note_roles(self, outputs: tuple[Array, ...]) -> None:
        """Note what each saved array is (see `_roles`), and of a leaf's the version."""
        assert self._edges is not None
        roles: list[int] = []
        versions: list[tuple[Tensor, int]] = []
        arrays = self._arrays
        for array in self.saved:
            for i, x in enumerate(arrays):
                if x is array:
                    roles.append(i)
                    if (edge := self._edges[i]) is not None and not isinstance(leaf := edge[0], Function):
                        versions.append((leaf, leaf.version))
                    break
            else:
                roles.append(self._output_role(array, outputs))
        self._roles, self._versions = roles, versions

    def _output_role(self, array: Array, outputs: tuple[Array, ...]) -> int:
        for k, y in enumerate(outputs):
            if y is array:
                return -1 - k
        raise ValueError(
            f"{self.name}: save() keeps inputs or outputs of the op, got another array of shape {array.shape}; "
            "put what is computed on the way into self.statistics"
        )

    @property
    def name(self) -> str:
        """The op's name as messages and pictures show it: the class name in snake case."""
        return op_name(type(self))

    def origin(self) -> str:
        """Return where this node was recorded, as messages say it: the module, and the line if it was noted."""
        module = f"in module {self.path}" if self.path else "outside any module"
        line = (
            f"recorded at {shown_line(self.source)}"
            if self.source
            else "run the forward pass within tl.debug() to see its line"
        )
        return f"{module}; {line}"

    def saved_tensors(self) -> tuple[Tensor, ...]:
        """Return ``saved`` as Tensors on their own nodes, so that a gradient of the gradient finds its way."""
        assert self._edges is not None
        found: list[Any] = []
        for array, role in zip(self.saved, self._roles, strict=True):
            edge = (self, -1 - role) if role < 0 else self._edges[role]
            if edge is None:
                found.append(array if np.isscalar(array) else _tensor.wrap(array))
            elif isinstance(edge[0], _tensor.Tensor):
                found.append(edge[0])
            else:
                found.append(_tensor.wrap(as_array(array), edge[0], edge[1]))
        return tuple(found)

    def saved_by_role(self) -> list[tuple[int, Any]]:
        """Return the saved arrays, each with its role (see `_roles`); none while a checkpoint has forgotten them."""
        return list(zip(self._roles, self.saved, strict=True)) if self.saved else []

    def release(self) -> None:
        """Let go of everything that only ``backward`` needed."""
        self._edges, self.saved, self.statistics, self._versions = None, (), None, ()
        if self._region or self._cuts:
            self._region, self._cuts = None, ()


def replaced_since(what: str, leaf: Tensor, version: int) -> RuntimeError:
    """Return the error for a leaf that has another value now than it had, with this version, in the forward pass."""
    return RuntimeError(
        f"backward: {what} needs the value that {leaf.name or 'a leaf'} of shape {leaf.shape} had in the "
        f"forward pass (version {version}), but it was replaced since (version {leaf.version}); "
        "run the backward pass before the update"
    )


def op_name(cls: type[Function]) -> str:
    """Return the class name in snake case: LayerNorm -> layer_norm."""
    return "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__).lstrip("_")


def as_array(y: Any) -> Array:
    """NumPy's reductions return scalars, CuPy's 0-d arrays; a Tensor always holds an array."""
    return np.asarray(y) if isinstance(y, np.generic) else y


def as_tensor(x: Any, like: Tensor | None = None) -> Tensor:
    """Return x if it is a Tensor, else a constant made of it: an array as it is, numbers beside `like`."""
    if isinstance(x, _tensor.Tensor):
        return x
    try:
        if like is not None:
            return _tensor.Tensor(x, backend=like.backend)
        array = hasattr(x, "dtype") and not isinstance(x, np.generic)
        return _tensor.wrap(_checked(x)) if array else _tensor.Tensor(x)
    except (TypeError, ValueError) as error:
        raise by_name(error, "Tensor") from None


def _checked(array: Any) -> Array:
    """Return an array that the caller gave: of NumPy or CuPy, and of numbers."""
    if type(array) is not np.ndarray:
        backend_of(array)  # which explains itself to whoever comes with an array of another library
    if array.dtype.kind not in "biufc":
        raise TypeError(f"Tensor: data must be numbers, got dtype {array.dtype}")
    return array


def _operand(x: Any, inputs: Sequence[Any]) -> Any:
    """Return what forward gets for an input that is no Tensor. NumPy scalars count as Python scalars: they are weak."""
    if isinstance(x, np.generic):
        x = x.item()
    number = isinstance(x, (int, float, complex))
    try:
        if not number and hasattr(x, "dtype"):
            return _checked(x)
        for beside in inputs:
            if isinstance(beside, _tensor.Tensor):
                return x if number else _tensor.Tensor(x, backend=beside.backend)._array
        for beside in inputs:
            if hasattr(beside, "dtype") and not isinstance(beside, np.generic):
                return x if number else _tensor.Tensor(x, backend=backend_of(beside))._array
        return _tensor.Tensor(x)._array  # scalars or lists alone, as in tl.exp(1.0), make an array
    except (TypeError, ValueError) as error:
        raise by_name(error, "Tensor") from None


def _told_apart(arrays: list[Any]) -> list[Any]:
    """Put a view in the place of an array that comes twice, as in x * x.detach(): `save` knows inputs by identity."""
    first = {id(x): i for i, x in reversed([*enumerate(arrays)])}
    return [x if first[id(x)] == i or not hasattr(x, "dtype") else x[...] for i, x in enumerate(arrays)]


# Tensor and the ops stand on this module, so it may import Tensor's only when everything above exists.
import tensorlib.tensor as _tensor  # noqa: E402
