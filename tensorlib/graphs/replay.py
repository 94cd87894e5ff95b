"""The values of a recorded graph: its ops run again on raw arrays.

A graph keeps no intermediate values. But each node is an instance of its op, with its attributes, and each input
without an edge is recorded itself, so ``forward`` can run again from the leaves on. Dropout draws the same mask again,
because its key and draw are attributes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.backend import namespace_of
from tensorlib.arrays.sharing import read_only, value_of
from tensorlib.engine.function import Function
from tensorlib.engine.recording import recording
from tensorlib.engine.value import Value, as_array

__all__ = ["Slot", "inputs_of", "recorded_values", "replayed", "require_same"]

Slot: TypeAlias = tuple[int, int]
"""A value by number: the id of its node or leaf, and the number of the output."""


def recorded_values(nodes: Sequence[Function], operation: str) -> dict[Slot, Array]:
    """Return each output of `nodes`, which must be sorted oldest first and hold all nodes below them.

    An output that a node saved for the backward pass is taken from there; others are computed again, in the precision
    of the first time. Nothing is recorded and no node is changed.

    Raises RuntimeError, which names `operation`, for an op that cannot run again with the same shapes.
    """
    values = _saved_values(nodes)
    for node in nodes:
        slots = [(id(node), k) for k in range(len(node.output_types))]
        if not all(slot in values for slot in slots):
            for slot, array in zip(
                slots, _outputs_again(node, inputs_of(node, values, operation), operation), strict=True
            ):
                values.setdefault(slot, array)
    return values


def inputs_of(node: Function, values: dict[Slot, Array], operation: str) -> list[Any]:
    """Return the arguments of the node's `forward`: arrays, and Python numbers where it got numbers."""
    inputs: list[Any] = []
    for edge, (given, _) in zip(node.edges or (), node.input_types, strict=True):
        if edge is None:
            inputs.append(value_of(given, node.serial, f"{operation}: {node.name}"))
        else:
            inputs.append(edge[0].array if isinstance(edge[0], Value) else values[id(edge[0]), edge[1]])
    return inputs


def _saved_values(nodes: Sequence[Function]) -> dict[Slot, Array]:
    """Return the outputs that some node holds, as its own output or as its input."""
    values: dict[Slot, Array] = {}
    for node in nodes:
        for role, array in node.saved_by_role():
            edge = (node, -1 - role) if role < 0 else (node.edges or ())[role]
            if edge is not None and isinstance(edge[0], Function):
                values[id(edge[0]), edge[1]] = array
    return values


def _outputs_again(node: Function, inputs: Sequence[Any], operation: str) -> tuple[Array, ...]:
    arrays = [read_only(x) for x in inputs]
    try:
        with np.errstate(all="ignore"), recording(record=False, watch=None, tape=None, precision=node.precision):
            outputs = type(node).run(*arrays, **(node.attributes or {}))
    except Exception as error:
        raise RuntimeError(f"{operation}: the op {node.name} could not be run again: {error}") from error
    outputs = tuple([as_array(y) for y in (outputs if isinstance(outputs, tuple) else (outputs,))])
    for y, (shape, _) in zip(outputs, node.output_types, strict=False):
        if np.shape(y) != tuple(shape):
            raise RuntimeError(
                f"{operation}: the op {node.name}, run again, must give shape {tuple(shape)}, got {np.shape(y)}; "
                "its forward must depend on its arguments alone"
            )
    return outputs


def replayed(nodes: Sequence[Function], operation: str = "graph") -> Iterator[tuple[Function, list[Any], Any]]:
    """Yield each node, oldest first, with the values of its inputs and outputs, computed again from the leaves.

    Unlike `recorded_values`, it holds a value only until its last use. Raises RuntimeError as that does.

    >>> from tensorlib.graphs.replay import replayed
    >>> a = tl.Tensor(3.0, requires_grad=True)
    >>> b = a * 2
    >>> c = b + 1
    >>> [(node.name, outputs[0].item()) for node, _, outputs in replayed([b.node, c.node])]
    [('multiply', 6.0), ('add', 7.0)]
    """
    uses = Counter((id(edge[0]), edge[1]) for node in nodes for edge in node.edges or () if edge is not None)
    values: dict[Slot, Array] = {}
    for node in nodes:
        inputs = inputs_of(node, values, operation)
        outputs = _outputs_again(node, inputs, operation)
        yield node, inputs, outputs
        for k, y in enumerate(outputs):
            if uses[id(node), k]:
                values[id(node), k] = y
        for edge in node.edges or ():
            if edge is not None:
                slot = id(edge[0]), edge[1]
                uses[slot] -= 1
                if not uses[slot]:
                    values.pop(slot, None)  # a leaf is not among them


def require_same(outputs: Sequence[Value], slot: Slot, array: Any, operation: str) -> None:
    """Raise RuntimeError if `array`, computed again for a slot, is not the value of the output that it belongs to.

    A leaf may have got new data since, as in an optimizer's step. Only the ops that need its value for their gradients
    have noted its version.
    """
    for y in outputs:
        if y.node is not None and (id(y.node), y.output_index) == slot and not _equal(array, y.array):
            raise RuntimeError(
                f"{operation}: the ops give another value than when they were recorded, as if the data of a Tensor "
                f"had been replaced since; call {operation} before an update"
            )


def _equal(x: Array, y: Array) -> bool:
    """Return whether two arrays are equal but for rounding, which may depend on how operands lie in memory."""
    xp = namespace_of(y)
    if y.dtype.kind != "f" or not y.size:
        return bool(xp.array_equal(x, y))
    finite = xp.isfinite(y)
    if not bool(xp.array_equal(xp.where(finite, 0, x), xp.where(finite, 0, y), equal_nan=True)):
        return False
    allowed = 1e-2 if y.dtype == "float16" else 1e-5
    difference = xp.abs(xp.where(finite, x, 0) - xp.where(finite, y, 0))
    return bool(difference.max() <= allowed * xp.abs(xp.where(finite, y, 0)).max() + 1e-30)
