"""`tl.graph`, which builds a `Graph` from the engine's nodes. Nothing recurses, so a chain of a million ops works."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tensorlib.engine.backward import topological_order
from tensorlib.engine.function import Function
from tensorlib.engine.node import Node, op_name
from tensorlib.engine.value import Value
from tensorlib.graphs.attribute_text import attribute_text
from tensorlib.graphs.calling import call_of
from tensorlib.graphs.composites import without_own_names
from tensorlib.graphs.flops import flops_of
from tensorlib.graphs.graph import Graph, GraphLeaf, GraphNode, GraphValue, ValueRef
from tensorlib.graphs.held_arrays import held_arrays
from tensorlib.graphs.measured_graph import measured_gradients, measured_values
from tensorlib.graphs.opening import opened
from tensorlib.graphs.replay import Slot, require_same
from tensorlib.messages import kind_of
from tensorlib.tensor import Tensor

__all__ = ["graph"]


def graph(
    y: Tensor | Sequence[Tensor] | Callable[..., Any],
    *inputs: Any,
    names: Mapping[str, Any] | None = None,
    formulas: bool = False,
    values: bool = False,
    gradients: bool = False,
) -> Graph:
    """Return the graph of the computation of `y` (one Tensor or several) as data.

    Call it before ``y.backward()``, which releases the graph, or pass ``retain_graph=True`` to it.

    Args:
        y: one Tensor, several Tensors, or a module or function.
        *inputs: what to call the module or function with. Each array or Tensor of floating numbers that has no history
            is recorded as an input that requires a gradient.
        names: names for Tensors that no module has named: ``names={"x": x, "w": w}``, or simply ``names=locals()``.
        formulas: open fused ops: in the place of a sub-layer, attention or softmax are the ops of its formula, as a
            part named "softmax()". A module or function is also called within `record_formulas`, which makes the ops of
            a function such as `mean` a part of their own.
        values: also measure each value, by computing it again; see ``Graph.values``.
        gradients: also measure each gradient of the sum of the outputs, by a backward pass that changes nothing.

    Raises ValueError for a Tensor without history, TypeError for inputs beside a Tensor, RuntimeError for a graph that
    was released, or that holds too little to run its ops again, for formulas or values.

    >>> x = tl.Tensor([[1.0, 2.0]], requires_grad=True)
    >>> w = tl.Tensor([[1.0], [1.0]], requires_grad=True)
    >>> graph = tl.graph(tl.tanh(x @ w), names={"x": x, "w": w})
    >>> [node.op for node in graph], [leaf.name for leaf in graph.leaves]
    (['matmul', 'tanh'], ['x', 'w'])
    >>> [node.op for node in tl.graph(lambda x: tl.exp(-x), np.ones(3))]
    ['negative', 'exp']
    >>> [node.op for node in tl.graph(tl.gelu(x), formulas=True)]
    ['multiply', 'erf', 'multiply', 'add', 'multiply']
    """
    measured = {"formulas": formulas, "values": values, "gradients": gradients}
    if callable(y):
        called, given = call_of(y, inputs, formulas)
        built = recorded_graph(called, given | names_of(names), **measured)
        without_own_names(built)
        return built
    if inputs:
        raise TypeError(
            f"graph: inputs can only be passed with a module or function to call, got {kind_of(y)}; "
            "pass names by name: names={...}"
        )
    if not isinstance(y, Tensor | list | tuple):
        raise TypeError(f"graph: needs a Tensor, several Tensors, a module or a function, got {kind_of(y)}")
    outputs = [y] if isinstance(y, Tensor) else list(y)
    return recorded_graph(outputs, names_of(names), **measured)


def names_of(names: Mapping[str, Any] | None, operation: str = "graph") -> dict[str, Any]:
    """Return the argument `names` as a dict, after a check of its type."""
    if names is not None and not isinstance(names, Mapping):
        raise TypeError(f"{operation}: names must be a dict, such as locals() or {{'x': x}}, got {kind_of(names)}")
    return dict(names or {})


def recorded_graph(
    outputs: Sequence[Any],
    names: Mapping[str, Any],
    *,
    formulas: bool = False,
    values: bool = False,
    gradients: bool = False,
) -> Graph:
    """Return the graph of Tensors, after checking them."""
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
    nodes = recorded_nodes(outputs, "graph")[::-1]
    if formulas:
        _, tensors = opened(nodes, "graph")
        if values or gradients:  # which are measured with the data that leaves have now
            for y in outputs:
                if y.node is not None:
                    require_same([y], (id(y.node), y.output_index), _now(y, tensors).array, "graph")
        outputs = [_now(y, tensors) for y in outputs]
        names = {name: _now(x, tensors) for name, x in names.items()}
        nodes = recorded_nodes(outputs, "graph")[::-1]  # not those of results that nothing uses
    builder = _GraphBuilder(names)
    built = builder.build(nodes, outputs)
    if values:
        built.values = measured_values(outputs, nodes, builder.leaf_of)
    if gradients:
        built.gradients = measured_gradients(outputs, nodes, builder.leaf_of)
    return built


def _now(x: Any, tensors: Mapping[Slot, Tensor]) -> Any:
    """Return what a Tensor has become in the opened graph; anything else stays as it is."""
    return tensors.get((id(x.node), x.output_index), x) if isinstance(x, Tensor) else x


def graph_of_nodes(nodes: Sequence[Function]) -> Graph:
    """Return the graph of nodes, oldest first, all of whose inputs are among them; its outputs are what none uses."""
    built = _GraphBuilder({}).build(nodes, [])
    used = {ref.node for node in built for ref in node.inputs}
    last = [node for node in built if node.number not in used]
    built.outputs = tuple([ValueRef(n.number, None, k, value) for n in last for k, value in enumerate(n.outputs)])
    return built


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
        self.flops_of: dict[tuple[Any, ...], int] = {}  # a long chain has few distinct ops
        self.value_of: dict[tuple[Any, Any], GraphValue] = {}
        tensors = [(name, x) for name, x in names.items() if isinstance(x, Tensor)]
        self.names = {key: name for name, x in reversed(tensors) for key in (id(x), id(x.array))}
        self.output_names: dict[Node, dict[int, str]] = {}
        for name, x in reversed(tensors):
            if x.node is not None:
                self.output_names.setdefault(x.node, {})[x.output_index] = name

    def build(self, nodes: Sequence[Function], outputs: Sequence[Tensor]) -> Graph:
        self.numbers = {node: number for number, node in enumerate(nodes)}
        name_of = {cls: op_name(cls) for cls in set(map(type, nodes))}
        for output in outputs:
            if output.node is None:
                self.leaf(output)
        for number, node in enumerate(nodes):
            self.graph.nodes.append(self.node(number, name_of[type(node)], node))
        self.graph.outputs = tuple([self.output(output) for output in outputs])
        self.count_saved(nodes)
        return self.graph

    def node(self, number: int, op: str, node: Function) -> GraphNode:
        inputs = tuple([self.input(node, position) for position in range(len(node.input_types))])
        values = tuple([self.value(*output) for output in node.output_types])
        attributes = node.attributes or {}
        built = GraphNode(number, op, node.path, node.source, inputs, values)
        if attributes:
            built.attributes = {name: attribute_text(value) for name, value in attributes.items()}
        given = (op, *[ref[3] for ref in inputs], *values, attributes.get("heads", 1))
        if given not in self.flops_of:
            shapes = [ref.value.shape for ref in inputs]
            self.flops_of[given] = flops_of(op, shapes, [value.shape for value in values], given[-1])
        built.flops = self.flops_of[given]
        if node in self.output_names:
            built.names = tuple([self.output_names[node].get(k, "") for k in range(len(values))])
        return built

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
            if value.dtype:
                array = given.array(node.serial)
                return ValueRef(None, self.constant(given if array is None else array, value), 0, value)
            return ValueRef(None, None, 0, value, given if isinstance(given, int | float) else None)
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
            number = self.new_leaf("constant", self.names.get(id(array), ""), value)
            if not value.shape:
                self.graph.leaves[number].scalar = array.item()
            self.leaf_of[id(array)] = number
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
