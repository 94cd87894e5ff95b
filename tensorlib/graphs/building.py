"""`tl.graph`, which builds a `Graph` from the engine's nodes. Nothing recurses, so a chain of a million ops works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensorlib.engine.backward import topological_order
from tensorlib.engine.function import Function
from tensorlib.engine.node import Node, op_name
from tensorlib.engine.value import Value
from tensorlib.graphs.graph import Graph, GraphLeaf, GraphNode, GraphValue, ValueRef
from tensorlib.graphs.held_arrays import held_arrays
from tensorlib.tensor import Tensor

__all__ = ["graph"]


def graph(y: Tensor | Sequence[Tensor], names: Mapping[str, Any] | None = None) -> Graph:
    """Return the graph of the computation of `y` (one Tensor or several) as data.

    Call it before ``y.backward()``, which releases the graph, or pass ``retain_graph=True`` to it. `names` names
    leaves that no module has named: ``names={"x": x, "w": w}``, or simply ``names=locals()``.

    Raises ValueError for a Tensor without history, RuntimeError for a graph that was released.

    >>> x = tl.Tensor([[1.0, 2.0]], requires_grad=True)
    >>> w = tl.Tensor([[1.0], [1.0]], requires_grad=True)
    >>> graph = tl.graph(tl.tanh(x @ w), names={"x": x, "w": w})
    >>> [node.op for node in graph], [leaf.name for leaf in graph.leaves]
    (['matmul', 'tanh'], ['x', 'w'])
    """
    outputs = [y] if isinstance(y, Tensor) else list(y)
    if not outputs:
        raise ValueError("graph: needs at least one Tensor, got an empty sequence")
    for output in outputs:
        if not isinstance(output, Tensor):
            raise TypeError(f"graph: needs a Tensor or a sequence of Tensors, got {type(output).__name__}")
        if not output.requires_grad:
            raise ValueError(
                f"graph: nothing was recorded for the Tensor of shape {output.shape}: none of its inputs requires a "
                "gradient, or it was computed inside no_grad() or after detach()"
            )
    return _GraphBuilder(names or {}).build(outputs)


def recorded_nodes(outputs: Sequence[Tensor], operation: str) -> list[Function]:
    """Return the nodes that computed `outputs`, newest first; if released, raise an error that names `operation`."""
    roots = [y.node for y in outputs if y.node is not None]
    try:
        return topological_order(roots)
    except RuntimeError:
        names = " and ".join(dict.fromkeys(root.name for root in roots))
        raise RuntimeError(
            f"{operation}: the graph behind {names} was released by an earlier backward pass; "
            f"call {operation} before backward(), or pass retain_graph=True to it"
        ) from None


class _GraphBuilder:
    """Builds a Graph. Identifies Tensors and arrays by id(), which is safe: the outputs keep all of them alive."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.graph = Graph()
        self.numbers: dict[Node, int] = {}
        self.leaf_of: dict[int, int] = {}  # id of a leaf Tensor, or of a constant's array -> number
        self.value_of: dict[tuple[Any, Any], GraphValue] = {}
        tensors = [(name, x) for name, x in names.items() if isinstance(x, Tensor)]
        self.names = {key: name for name, x in reversed(tensors) for key in (id(x), id(x.array))}

    def build(self, outputs: Sequence[Tensor]) -> Graph:
        nodes = recorded_nodes(outputs, "graph")[::-1]
        self.numbers = {node: number for number, node in enumerate(nodes)}
        name_of = {cls: op_name(cls) for cls in set(map(type, nodes))}
        for output in outputs:
            if output.node is None:
                self.leaf(output)
        for number, node in enumerate(nodes):
            inputs = tuple([self.input(node, position) for position in range(len(node.input_types))])
            values = tuple([self.value(*output) for output in node.output_types])
            self.graph.nodes.append(GraphNode(number, name_of[type(node)], node.path, node.source, inputs, values))
        self.graph.outputs = tuple([self.output(output) for output in outputs])
        self.count_saved(nodes)
        return self.graph

    def value(self, shape: tuple[int, ...], dtype: Any) -> GraphValue:
        """Return one shared object for equal values, because a long chain has few distinct ones."""
        key = (shape, dtype)
        if key not in self.value_of:
            self.value_of[key] = GraphValue(tuple(shape), "" if dtype is None else str(dtype))
        return self.value_of[key]

    def output(self, y: Tensor) -> ValueRef:
        value = self.value(y.shape, y.dtype)
        if y.node is None:
            return ValueRef(None, self.leaf(y), 0, value)
        return ValueRef(self.numbers[y.node], None, y.output_index, value)

    def input(self, node: Function, position: int) -> ValueRef:
        edge, (given, dtype) = (node.edges or ())[position], node.input_types[position]
        if edge is None:
            value = self.value(getattr(given, "shape", ()), dtype)
            return ValueRef(None, self.constant(given, value) if value.dtype else None, 0, value)
        value = self.value(given, dtype)
        below, output = edge
        if isinstance(below, Value):
            return ValueRef(None, self.leaf(below), 0, value)
        return ValueRef(self.numbers[below], None, output, value)

    def leaf(self, x: Value) -> int:
        if id(x) not in self.leaf_of:
            is_parameter = bool(x.name) or type(x) is not Tensor  # only modules name Tensors
            name = x.name or self.names.get(id(x), "")
            kind = "parameter" if is_parameter else "input"
            self.leaf_of[id(x)] = self.new_leaf(kind, name, self.value(x.shape, x.dtype))
        return self.leaf_of[id(x)]

    def constant(self, array: Any, value: GraphValue) -> int:
        if id(array) not in self.leaf_of:
            self.leaf_of[id(array)] = self.new_leaf("constant", self.names.get(id(array), ""), value)
        return self.leaf_of[id(array)]

    def new_leaf(self, kind: str, name: str, value: GraphValue) -> int:
        self.graph.leaves.append(GraphLeaf(len(self.graph.leaves), kind, name, value))
        return len(self.graph.leaves) - 1

    def count_saved(self, nodes: Sequence[Function]) -> None:
        """Count each piece of memory once, at the first node that holds it, and the memory of leaves not at all."""
        seen: set[int] = set()
        for node in nodes:
            leaves = [edge[0] for edge in node.edges or () if edge is not None]
            seen.update([id(_owner(leaf.array)) for leaf in leaves if isinstance(leaf, Value)])
        for node, counted in zip(nodes, self.graph.nodes, strict=True):
            for array in held_arrays(node):
                memory = _owner(array)
                if id(memory) not in seen:
                    seen.add(id(memory))
                    counted.saved_bytes += memory.nbytes


def _owner(array: Any) -> Any:
    """Return the array that owns the memory of a view."""
    while hasattr(base := getattr(array, "base", None), "nbytes"):
        array = base
    return array
