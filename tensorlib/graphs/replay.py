"""Values and gradients of a recorded graph, found again: ops run again on raw arrays, and a backward pass is observed.

A graph keeps no intermediate values. But each node is an instance of its op, with its attributes, and each input
without an edge is recorded itself, so ``forward`` can run again from the leaves on. Dropout draws the same mask again,
because its key and draw are attributes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tensorlib.engine.backward import backward_pass
from tensorlib.engine.function import Function
from tensorlib.engine.node import Node
from tensorlib.engine.recording import Watch, recording
from tensorlib.engine.value import Value, as_array
from tensorlib.graphs.measuring import Measured, measured

__all__ = ["backward_under", "measured_gradients", "measured_values", "replayed"]

Slot = tuple[str, int | None, int]  # as `ValueRef.slot` in graph.py


def replayed(nodes: Sequence[Function]) -> Iterator[tuple[Function, list[Any], tuple[Any, ...]]]:
    """Yield each node, oldest first, with the values of its inputs and outputs, computed again from the leaves.

    Inputs are raw arrays, or Python numbers. A value is dropped after its last use. Nothing is recorded or observed.
    `nodes` hold each node after its inputs. Raises RuntimeError if the forward pass of an op fails this time.

    >>> from tensorlib.graphs.replay import replayed
    >>> a = tl.Tensor(3.0, requires_grad=True)
    >>> b = a * 2
    >>> c = b + 1
    >>> [(node.name, outputs[0].item()) for node, _, outputs in replayed([b.node, c.node])]
    [('multiply', 6.0), ('add', 7.0)]
    """
    uses = Counter(edge for node in nodes for edge in node.edges or () if edge is not None)
    values: dict[tuple[Node, int], Any] = {}
    for node in nodes:
        inputs = [_input(node, position, values) for position in range(len(node.input_types))]
        with np.errstate(all="ignore"), recording(record=False, watch=None, tape=None, precision=node.precision):
            try:
                result = type(node).run(*inputs, **(node.attributes or {}))
            except Exception as error:
                raise RuntimeError(f"graph: {node.name} could not be computed again: {error}") from error
        outputs = tuple([as_array(y) for y in (result if isinstance(result, tuple) else (result,))])
        yield node, inputs, outputs
        for k, y in enumerate(outputs):
            if uses[node, k]:
                values[node, k] = y
        for edge in node.edges or ():
            if edge is not None:
                uses[edge] -= 1
                if not uses[edge]:
                    values.pop(edge, None)  # type: ignore[arg-type]  # a leaf is not among the values


def _input(node: Function, position: int, values: Mapping[Any, Any]) -> Any:
    edge = (node.edges or ())[position]
    if edge is None:
        return node.input_types[position][0]
    return edge[0].array if isinstance(edge[0], Value) else values[edge]


def measured_values(nodes: Sequence[Function], leaf_of: Mapping[int, int]) -> dict[Slot, Measured]:
    """Return what there is to say about the value of each leaf and each output of each node.

    `leaf_of` has the number of each leaf by the id of its Tensor, and of each constant by the id of its array.
    """
    found: dict[Slot, Measured] = {}
    for number, (node, inputs, outputs) in enumerate(replayed(nodes)):
        for x, edge in zip(inputs, node.edges or (), strict=True):
            leaf = leaf_of.get(id(x) if edge is None else id(edge[0]))
            if leaf is not None and ("leaf", leaf, 0) not in found:
                found["leaf", leaf, 0] = measured(x)
        for k, y in enumerate(outputs):
            found["node", number, k] = measured(y)
    return found


def measured_gradients(
    outputs: Sequence[Value], nodes: Sequence[Function], leaf_of: Mapping[int, int]
) -> dict[Slot, Measured]:
    """Return what there is to say about the gradient of each leaf and each output of each node that has one.

    They are gradients of the sum of all `outputs`. ``.grad`` and the graph remain as they are, and no hook is called.
    """
    numbers = {id(node): number for number, node in enumerate(nodes)}
    found: dict[Slot, Measured] = {}

    def at_node(node: Function, dys: Sequence[Any]) -> None:
        for k, dy in enumerate(dys):
            if dy is not None:
                found["node", numbers[id(node)], k] = measured(dy)

    def at_leaf(leaf: Value, dx: Any) -> None:
        found["leaf", leaf_of[id(leaf)], 0] = measured(dx)

    backward_under(outputs, _Visits(at_node, at_leaf))
    return found


def backward_under(outputs: Sequence[Value], watch: Watch) -> None:
    """Run a backward pass from the sum of all outputs, observed by `watch`, which changes nothing."""
    seeds = [y.backend.xp.ones(y.shape, y.dtype) for y in outputs]
    with np.errstate(all="ignore"), recording(record=False, watch=watch, tape=None):
        backward_pass(outputs, seeds, None, retain_graph=True, create_graph=False)


class _Visits(Watch):
    runs_hooks = False

    def __init__(
        self, at_node: Callable[[Function, Sequence[Any]], None], at_leaf: Callable[[Value, Any], None]
    ) -> None:
        self.at_node, self.at_leaf = at_node, at_leaf

    def backward(self, node: Function, dys: Sequence[Any], dxs: Sequence[Any]) -> None:
        self.at_node(node, dys)

    def arrived(self, leaf: Value, dx: Any) -> None:
        self.at_leaf(leaf, dx)
