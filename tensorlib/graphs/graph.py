"""The record as data: what ``tl.graph(y)`` returns, before a backward pass lets go of it.

A `Graph` holds numbers and names only, no Tensor and no array: it may be kept, pickled and drawn after the record
itself is gone. Nothing here recurses, so a chain of a million ops works.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tensorlib.engine.function import Function
from tensorlib.engine.node import op_name
from tensorlib.tensor import Tensor

__all__ = ["Edge", "Graph", "Leaf", "Node", "Source", "Value", "graph"]


class Value(NamedTuple):
    """What flows along an edge: shape and dtype. A Python scalar has dtype ""."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype}".strip()


class Source(NamedTuple):
    """Where an input comes from: output number `output` of node `node`, or leaf `leaf`; a Python scalar has neither."""

    node: int | None
    leaf: int | None
    output: int
    value: Value


@dataclass(slots=True)
class Node:
    """One recorded op.

    Attributes:
        number: its position in ``graph.nodes``; its inputs have lower numbers.
        op: the op's name, as "layer_norm".
        path: the module it was recorded in, as "encoder.layers.0"; "" outside of any.
        source: the line that recorded it, as "file.py:12", inside `record_source`; else None.
        inputs: where each input comes from, in the op's order.
        outputs: shape and dtype of each output.
        saved_bytes: what it keeps in memory for the backward pass, beyond leaves and what earlier nodes keep.
    """

    number: int
    op: str
    path: str
    source: str | None
    inputs: tuple[Source, ...]
    outputs: tuple[Value, ...]
    saved_bytes: int = 0


@dataclass(slots=True)
class Leaf:
    """A Tensor that was given and not computed.

    Attributes:
        number: its position in ``graph.leaves``.
        kind: "parameter" (a module holds it), "input" (requires a gradient) or "constant" (does not). A constant that
            the ops using it did not save cannot be recognised again, and counts as another one at each use.
        name: the parameter's name, as "encoder.layers.0.attention.weight", or what `graph` was told; else "".
        value: shape and dtype.
    """

    number: int
    kind: str
    name: str
    value: Value


class Edge(NamedTuple):
    """One input of one op: `source` (None: a Python scalar) delivers `value` to input `position` of `target`."""

    source: Node | Leaf | None
    output: int
    target: Node
    position: int
    value: Value


@dataclass(repr=False)
class Graph:
    """A computation graph: iterates over its nodes, every node after those that it consumes; len() counts them."""

    nodes: list[Node] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)
    outputs: tuple[Source, ...] = ()

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    @property
    def edges(self) -> Iterator[Edge]:
        """All edges: node by node, each node's inputs in order."""
        for node in self.nodes:
            for position, (number, leaf, output, value) in enumerate(node.inputs):
                source = None if number is None else self.nodes[number]
                yield Edge(source if leaf is None else self.leaves[leaf], output, node, position, value)

    @property
    def parameters(self) -> list[Leaf]:
        """The leaves that are parameters."""
        return [leaf for leaf in self.leaves if leaf.kind == "parameter"]

    @property
    def saved_bytes(self) -> int:
        """The memory that is held until the backward pass, beyond parameters and inputs."""
        return sum(node.saved_bytes for node in self.nodes)

    def op_counts(self) -> Counter[str]:
        """Return how often each op occurs."""
        return Counter(node.op for node in self.nodes)

    def summary(self) -> str:
        """Return a few lines for people: sizes, how often each op occurs, the outputs."""
        ops = ", ".join(f"{op} {n:,}" for op, n in sorted(self.op_counts().items(), key=lambda x: (-x[1], x[0])))
        outputs = ", ".join(str(y.value) for y in self.outputs)
        return f"{self.headline()}\nops: {ops or 'none'}\noutputs: {outputs}"

    def headline(self) -> str:
        """Return one line: how many ops and leaves there are, and what they hold."""
        kinds = Counter(leaf.kind for leaf in self.leaves)
        parts = [plural(len(self.nodes), "op")]
        if kinds["parameter"]:
            size = sum(leaf.value.size for leaf in self.parameters)
            parts.append(f"{plural(size, 'parameter')} in {plural(kinds['parameter'], 'tensor')}")
        parts += [plural(kinds[kind], kind) for kind in ("input", "constant") if kinds[kind]]
        return ", ".join([*parts, f"{bytes_for_people(self.saved_bytes)} saved for backward"])

    def __repr__(self) -> str:
        return f"Graph({self.headline()})"


def plural(n: int, noun: str) -> str:
    """Return "1 op", "2,000 ops"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def bytes_for_people(n: float) -> str:
    """Return "0 B", "1.5 kB", "20 MB"."""
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.3g} GB" if n < 1000 else f"{n:,.0f} GB"


# ---- from the engine's nodes to a Graph ----------------------------------------------------------------------


def graph(y: Tensor | Sequence[Tensor], names: Mapping[str, Any] | None = None) -> Graph:
    """Return what was recorded on the way to `y` (one Tensor or several) as a `Graph`.

    Call it before ``y.backward()``, which releases the record, or pass ``retain_graph=True`` to that. `names` gives
    leaves a name that no module has named: ``tl.graph(y, names={"x": x, "w": w})``, or simply ``names=locals()``.
    """
    roots = [y] if isinstance(y, Tensor) else list(y)
    if not roots:
        raise ValueError("graph: needs at least one Tensor, got an empty sequence")
    for root in roots:
        if not isinstance(root, Tensor):
            raise TypeError(f"graph: needs a Tensor or a sequence of Tensors, got {type(root).__name__}")
        if not root.requires_grad:
            raise ValueError(
                f"graph: nothing was recorded for the Tensor of shape {root.shape}: no input of it requires a "
                "gradient, or it was computed inside no_grad() or after detach()"
            )
    return _Recorder(names or {}).run(roots)


def computation_order(roots: Iterable[Function]) -> list[Function]:
    """Return all nodes below `roots`, each after those that it consumed, first inputs first: as one would compute."""
    order: list[Function] = []
    entered: set[Function] = set()
    stack: list[tuple[Function, bool]] = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
            continue
        if node in entered:
            continue
        entered.add(node)
        if node.edges is None:
            raise RuntimeError(
                f"graph: the record behind {node.name} was released by a backward pass; ask for the graph before "
                "that pass, or pass retain_graph=True to it"
            )
        stack.append((node, True))
        for edge in reversed(node.edges):
            if edge is not None and isinstance(edge[0], Function) and edge[0] not in entered:
                stack.append((edge[0], False))
    return order


class _Recorder:
    """Turns engine nodes into a Graph. Recognises Tensors and arrays by id(): the roots keep all of them alive."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.graph = Graph()
        self.numbers: dict[Function, int] = {}
        self.leaf_of: dict[int, int] = {}  # id of a leaf Tensor, or of a constant's array -> number
        self.value_of: dict[tuple[Any, Any], Value] = {}
        tensors = [(name, x) for name, x in names.items() if isinstance(x, Tensor)]
        self.names = {key: name for name, x in reversed(tensors) for key in (id(x), id(x.array))}

    def run(self, roots: Sequence[Tensor]) -> Graph:
        order = computation_order([root.node for root in roots if root.node is not None])
        self.numbers = {node: number for number, node in enumerate(order)}
        name_of = {cls: op_name(cls) for cls in set(map(type, order))}
        for root in roots:
            if root.node is None:
                self.leaf(root)
        for number, node in enumerate(order):
            inputs = tuple([self.source(node, position) for position in range(len(node.input_types))])
            outputs = tuple([self.value(*output) for output in node.output_types])
            self.graph.nodes.append(Node(number, name_of[type(node)], node.path, node.source, inputs, outputs))
        self.graph.outputs = tuple([self.output(root) for root in roots])
        self.count_saved(order)
        return self.graph

    def value(self, shape: tuple[int, ...], dtype: Any) -> Value:
        """Equal values share one object: a long chain has few distinct ones."""
        key = (shape, dtype)
        if key not in self.value_of:
            self.value_of[key] = Value(tuple(shape), "" if dtype is None else str(dtype))
        return self.value_of[key]

    def output(self, root: Tensor) -> Source:
        value = self.value(root.shape, root.dtype)
        if root.node is None:
            return Source(None, self.leaf(root), 0, value)
        return Source(self.numbers[root.node], None, root.output_index, value)

    def source(self, node: Function, position: int) -> Source:
        edge = (node.edges or ())[position]
        value = self.value(*node.input_types[position])
        if edge is None:
            return Source(None, self.constant(node, position, value), 0, value)
        if isinstance(edge[0], Tensor):
            return Source(None, self.leaf(edge[0]), 0, value)
        return Source(self.numbers[edge[0]], None, edge[1], value)

    def leaf(self, x: Tensor) -> int:
        if id(x) not in self.leaf_of:
            held = bool(x.name) or type(x) is not Tensor  # only modules name Tensors
            name = x.name or self.names.get(id(x), "")
            self.leaf_of[id(x)] = self.new_leaf("parameter" if held else "input", name, self.value(x.shape, x.dtype))
        return self.leaf_of[id(x)]

    def constant(self, node: Function, position: int, value: Value) -> int | None:
        if not value.dtype:
            return None
        array = dict(node.saved_by_role()).get(position)
        if array is None:
            return self.new_leaf("constant", "", value)
        if id(array) not in self.leaf_of:
            self.leaf_of[id(array)] = self.new_leaf("constant", self.names.get(id(array), ""), value)
        return self.leaf_of[id(array)]

    def new_leaf(self, kind: str, name: str, value: Value) -> int:
        self.graph.leaves.append(Leaf(len(self.graph.leaves), kind, name, value))
        return len(self.graph.leaves) - 1

    def count_saved(self, order: Sequence[Function]) -> None:
        """Count every piece of memory once, at the first node that keeps it, and that of leaves not at all."""
        seen: set[int] = set()
        for node in order:
            seen.update(id(_owner(e[0].array)) for e in node.edges or () if e and isinstance(e[0], Tensor))
        for node, out in zip(order, self.graph.nodes, strict=True):
            held = [] if node.region is None else node.region.held()
            for array in _arrays_in([node.saved, node.statistics, held]):
                memory = _owner(array)
                if id(memory) not in seen:
                    seen.add(id(memory))
                    out.saved_bytes += memory.nbytes


def _owner(array: Any) -> Any:
    """Return the array whose memory a view looks at."""
    while hasattr(base := getattr(array, "base", None), "nbytes"):
        array = base
    return array


def _arrays_in(things: list[Any]) -> Iterator[Any]:
    while things:
        thing = things.pop()
        if isinstance(thing, list | tuple):
            things.extend(thing)
        elif hasattr(thing, "nbytes"):
            yield thing
