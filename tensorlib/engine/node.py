"""Node: the part of an applied op that the graph uses: its inputs' nodes, saved arrays, shapes and origin.

Edges lead from node to node (and to leaf Values), never to intermediate Values. So the graph keeps no intermediate
Value alive, there are no reference cycles, and memory is freed without the garbage collector.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import Array
from tensorlib.arrays.sharing import SHARED, kept, noted, overwritten_since
from tensorlib.engine.recording import shown_line
from tensorlib.engine.value import Value, as_array, wrap

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__ = ["Edge", "Node", "next_serial", "op_name"]

Edge = tuple["Node | Value", int]
"""The destination of a gradient: a node and the number of one of its outputs, or a leaf and 0. See `edge_of`."""

ArrayType = tuple[Any, Any]
"""The shape and dtype of an input or output; of an input without an edge, what `noted` returns, and its dtype."""


class Node:
    """An applied op in the graph. `Function`, which the author of an op sees, is its only direct subclass.

    Attributes:
        edges: for each input, where its gradient flows to; None for an input that needs no gradient. The attribute is
            None instead of a sequence if the op was not recorded or its graph has been released.
        serial: the recording order; always greater than the serials of the node's inputs.
        input_types, output_types: the shape and dtype of each input and output.
        attributes: the keyword arguments of ``apply``, such as an axis.
        saved: the arrays that `backward` needs. Each is an input or an output of the op.
        saved_roles: for each saved array, i >= 0 if it is input i, -1 - k if it is output k.
        leaf_versions: the leaves among the saved inputs, each with its version in the forward pass.
        statistics: intermediate results kept for the speed of `backward`.
        gradient_hooks: by output, the hooks on its gradient; see `register_hook`.
        retained: by output, a weak reference to the Value that called `retain_grad`.
        path: the module that the op was called in, as "encoder.layers.0".
        source: the user's line that called it, as "file.py:12", if it was noted.
        precision: that of matrix products where the op was called; its gradient is computed in the same.
        region: the `checkpoint` that can compute `saved` again.
        cuts: the places where the history of inputs was cut off, if noted within `debug`.
    """

    # Defaults are class attributes, so that a node sets few attributes itself: setting ten takes a microsecond.
    edges: Sequence[Edge | None] | None = None
    serial: int = 0
    input_types: Sequence[ArrayType] = ()
    output_types: Sequence[ArrayType] = ()
    attributes: dict[str, Any] | None = None
    saved: tuple[Any, ...] = ()
    saved_roles: Sequence[int] = ()
    leaf_versions: Sequence[tuple[Value, int]] = ()
    statistics: Any = None
    gradient_hooks: dict[int, dict[int, Any]] | None = None
    retained: dict[int, Any] | None = None
    path: str = ""
    source: str | None = None
    precision: str = "float32"
    region: Any = None
    cuts: Sequence[Any] = ()

    def describe(self, inputs: Sequence[Any], outputs: tuple[Array, ...], given: Sequence[Any]) -> None:
        """Record the types of inputs and outputs, and the roles of saved arrays, after `forward`.

        `inputs` are the arguments of `forward`, made from `given`, those of ``apply``.
        """
        if self.saved:
            self._note_saved_roles(inputs, outputs, given)
        input_types: list[Any] = []  # in loops: before Python 3.12 a comprehension costs a function call
        for x, edge, one in zip(inputs, self.edges or (), given, strict=True):
            input_types.append((noted(x, one), getattr(x, "dtype", None)) if edge is None else (x.shape, x.dtype))
        output_types: list[Any] = []
        for y in outputs:
            output_types.append((y.shape, y.dtype))
        self.input_types, self.output_types = input_types, output_types

    def _note_saved_roles(self, inputs: Sequence[Any], outputs: tuple[Array, ...], given: Sequence[Any]) -> None:
        """Record which input or output each saved array is, and the versions of saved leaves.

        Where the caller can write to a saved array, a copy is saved instead.
        """
        assert self.edges is not None
        roles: list[int] = []
        versions: list[tuple[Value, int]] = []
        callers: list[int] = []
        for array in self.saved:
            for i, x in enumerate(inputs):
                if x is array:
                    roles.append(i)
                    if (edge := self.edges[i]) is not None:
                        if isinstance(leaf := edge[0], Value):
                            versions.append((leaf, leaf.version))
                    elif hasattr(x, "dtype") and not isinstance(given[i], Value):
                        callers.append(i)
                    break
            else:
                roles.append(self._output_role(array, outputs))
        self.saved_roles, self.leaf_versions = roles, versions
        if callers or SHARED:
            pairs = zip(self.saved, roles, strict=True)
            self.saved = tuple([a.copy() if role in callers else kept(a) for a, role in pairs])

    def _output_role(self, array: Array, outputs: tuple[Array, ...]) -> int:
        for k, y in enumerate(outputs):
            if y is array:
                return -1 - k
        raise ValueError(
            f"{self.name}: save() keeps inputs or outputs of the op, got another array of shape {array.shape}; "
            "keep intermediate results in self.statistics"
        )

    @property
    def name(self) -> str:
        """The op's name in messages and pictures: the class name in snake case."""
        return op_name(type(self))

    def origin(self) -> str:
        """Return where this node was recorded, for messages: the module, and the line if it is known."""
        module = f"in module {self.path}" if self.path else "outside any module"
        line = (
            f"recorded at {shown_line(self.source)}"
            if self.source
            else "run the forward pass within tl.debug() to see its line"
        )
        return f"{module}; {line}"

    def saved_with_history(self) -> tuple[Tensor, ...]:
        """Return `saved` as Tensors with their history, through which second derivatives flow."""
        assert self.edges is not None
        found: list[Any] = []
        for array, role in zip(self.saved, self.saved_roles, strict=True):
            edge = self.edges[role] if role >= 0 else (self, -1 - role) if array.dtype.kind == "f" else None
            if edge is None:
                found.append(array if np.isscalar(array) else wrap(array))
            elif isinstance(edge[0], Value):
                found.append(edge[0])
            else:
                found.append(wrap(as_array(array), edge[0], edge[1]))
        return tuple(found)

    def saved_by_role(self) -> list[tuple[int, Any]]:
        """Return (role, saved array) pairs; an empty list while a checkpoint has dropped the arrays."""
        return list(zip(self.saved_roles, self.saved, strict=True)) if self.saved else []

    def was_overwritten(self) -> bool:
        """Return whether memory that `backward` needs was written to after this node was recorded."""
        waiting = [value for name, value in vars(self).items() if name not in _NO_ARRAYS]
        while waiting:
            item = waiting.pop()
            if isinstance(item, tuple | list):
                waiting.extend(item)
            elif hasattr(item, "base") and overwritten_since(item, self.serial):
                return True
        return False

    def release(self) -> None:
        """Drop everything that only `backward` needed, also what the op itself keeps, such as a condition."""
        path, source = self.path, self.source
        vars(self).clear()  # the defaults of the class remain
        if path or source:
            self.path, self.source = path, source


_NO_ARRAYS = ("edges", "leaf_versions", "input_types", "output_types", "gradient_hooks", "retained", "region", "cuts")

_SERIALS = itertools.count(1)
next_serial = _SERIALS.__next__


def op_name(cls: type[Node]) -> str:
    """Return the class name in snake case: LayerNorm -> layer_norm."""
    return "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__).lstrip("_")
