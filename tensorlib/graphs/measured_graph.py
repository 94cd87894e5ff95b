"""What a picture says about the values and gradients of a recorded graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tensorlib.engine.function import Function
from tensorlib.engine.recording import Watch
from tensorlib.engine.value import Value
from tensorlib.graphs.measuring import Measured, measured
from tensorlib.graphs.observing import backward_under
from tensorlib.graphs.replay import replayed, require_same
from tensorlib.tensor import Tensor

__all__ = ["measured_gradients", "measured_values"]

Place = tuple[str, int | None, int]  # as `ValueRef.slot` in graph.py


def measured_values(
    outputs: Sequence[Tensor], nodes: Sequence[Function], leaf_of: Mapping[int, int]
) -> dict[Place, Measured]:
    """Return what there is to say about the value of each leaf and each output of each node.

    `leaf_of` has the number of each leaf by the id of its Tensor, and of each constant by the id of its array.
    """
    found: dict[Place, Measured] = {}
    for number, (node, inputs, results) in enumerate(replayed(nodes)):
        for x, edge in zip(inputs, node.edges or (), strict=True):
            leaf = leaf_of.get(id(x) if edge is None else id(edge[0]))
            if leaf is not None and ("leaf", leaf, 0) not in found:
                found["leaf", leaf, 0] = measured(x)
        for k, y in enumerate(results):
            require_same(outputs, (id(node), k), y, "graph")
            found["node", number, k] = measured(y)
    return found


def measured_gradients(
    outputs: Sequence[Tensor], nodes: Sequence[Function], leaf_of: Mapping[int, int]
) -> dict[Place, Measured]:
    """Return what there is to say about the gradient of each leaf and each output of each node that has one.

    They are gradients of the sum of all `outputs`. ``.grad`` and the graph remain as they are, and no hook is called.
    """
    numbers = {id(node): number for number, node in enumerate(nodes)}
    found: dict[Place, Measured] = {}

    def at_node(node: Function, dys: Sequence[Any]) -> None:
        for k, dy in enumerate(dys):
            if dy is not None:
                found["node", numbers[id(node)], k] = measured(dy)

    def at_leaf(leaf: Value, dx: Any) -> None:
        found["leaf", leaf_of[id(leaf)], 0] = measured(dx)

    backward_under(outputs, nodes, _Visits(at_node, at_leaf))
    return found


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
