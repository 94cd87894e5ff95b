"""Graph: a recorded computation as data. `tl.graph`, in building.py, builds it.

A Graph holds numbers and names, but no Tensors or arrays, so it may be kept, pickled and drawn after the backward pass
has released the engine's nodes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tensorlib.messages import plural, shown_bytes

__all__ = ["Edge", "Graph", "Leaf", "Node", "Source", "Value"]


class GraphValue(NamedTuple):
    """Shape and dtype of a value. The dtype of a Python number is "".

    >>> print(tl.graph(tl.ones((2, 3)) * tl.Tensor(2.0, requires_grad=True)).nodes[0].outputs[0])
    (2, 3) float32
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype}".strip()


class ValueRef(NamedTuple):
    """Reference to a value: output `output` of node `node`, or leaf `leaf`. Both are None for a Python number.

    >>> tl.graph(tl.Tensor(2.0, requires_grad=True) * 3).nodes[0].inputs[0].leaf
    0
    """

    node: int | None
    leaf: int | None
    output: int
    value: GraphValue


@dataclass(slots=True)
class GraphNode:
    """One recorded op.

    Attributes:
        number: its index in ``graph.nodes``; its inputs have lower numbers.
        op: the name of the op, as "layer_norm".
        path: the module it was recorded in, as "encoder.layers.0"; "" outside any module.
        source: the line that recorded it, as "file.py:12", within `record_source` or `debug`; otherwise None.
        inputs: a reference to each input, in the order of the op's arguments.
        outputs: shape and dtype of each output.
        saved_bytes: the bytes of memory that it keeps for the backward pass, including masks and indices, but excluding
            leaves and arrays that earlier nodes keep.

    >>> node = tl.graph(tl.exp(tl.Tensor([0.0, 1.0], requires_grad=True))).nodes[0]
    >>> node.op, node.saved_bytes
    ('exp', 8)
    """

    number: int
    op: str
    path: str
    source: str | None
    inputs: tuple[ValueRef, ...]
    outputs: tuple[GraphValue, ...]
    saved_bytes: int = 0


@dataclass(slots=True)
class GraphLeaf:
    """A Tensor that was given, not computed.

    Attributes:
        number: its index in ``graph.leaves``.
        kind: "parameter" (a module holds it), "input" (requires a gradient) or "constant" (does not).
        name: the parameter's name, as "encoder.layers.0.attention.weight", or the name given to `graph`; otherwise "".
        value: shape and dtype.

    >>> x = tl.Tensor(2.0, requires_grad=True)
    >>> tl.graph(x * 3, names={"x": x}).leaves
    [GraphLeaf(number=0, kind='input', name='x', value=GraphValue(shape=(), dtype='float32'))]
    """

    number: int
    kind: str
    name: str
    value: GraphValue


class GraphEdge(NamedTuple):
    """One input of one op: `source` (None: a Python number) delivers `value` to input `position` of `target`.

    >>> x = tl.Tensor(2.0, requires_grad=True)
    >>> [(edge.source and edge.source.kind, edge.target.op) for edge in tl.graph(x * 3).edges]
    [('input', 'multiply'), (None, 'multiply')]
    """

    source: GraphNode | GraphLeaf | None
    output: int
    target: GraphNode
    position: int
    value: GraphValue


@dataclass(repr=False)
class Graph:
    """A computation graph. Iterates over its nodes in the order in which they were recorded; ``len()`` counts them.

    Attributes:
        nodes: the ops, each after its inputs.
        leaves: the parameters, inputs and constants that the ops use.
        outputs: references to the Tensors that `graph` was called with.

    >>> x = tl.Tensor([1.0, 2.0], requires_grad=True)
    >>> tl.graph(tl.softmax(x * 3))
    Graph(2 ops, 1 input, 8 B saved for backward)
    """

    nodes: list[GraphNode] = field(default_factory=list)
    leaves: list[GraphLeaf] = field(default_factory=list)
    outputs: tuple[ValueRef, ...] = ()

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[GraphNode]:
        return iter(self.nodes)

    @property
    def edges(self) -> Iterator[GraphEdge]:
        """All edges, node by node, in the order of each node's inputs."""
        for node in self.nodes:
            for position, (number, leaf, output, value) in enumerate(node.inputs):
                source = None if number is None else self.nodes[number]
                yield GraphEdge(source if leaf is None else self.leaves[leaf], output, node, position, value)

    @property
    def parameters(self) -> list[GraphLeaf]:
        """The leaves that are parameters."""
        return [leaf for leaf in self.leaves if leaf.kind == "parameter"]

    @property
    def saved_bytes(self) -> int:
        """The memory kept until the backward pass, without parameters and inputs."""
        return sum(node.saved_bytes for node in self.nodes)

    def op_counts(self) -> Counter[str]:
        """Return how often each op occurs."""
        return Counter(node.op for node in self.nodes)

    def summary(self) -> str:
        """Return three lines of text: sizes, how often each op occurs, the outputs."""
        ops = ", ".join(f"{op} {n:,}" for op, n in sorted(self.op_counts().items(), key=lambda x: (-x[1], x[0])))
        outputs = ", ".join(str(y.value) for y in self.outputs)
        return f"{self.headline()}\nops: {ops or 'none'}\noutputs: {outputs}"

    def headline(self) -> str:
        """Return one line of text: the numbers of ops and leaves, and their sizes."""
        kinds = Counter(leaf.kind for leaf in self.leaves)
        parts = [plural(len(self.nodes), "op")]
        if kinds["parameter"]:
            size = sum(leaf.value.size for leaf in self.parameters)
            parts.append(f"{plural(size, 'parameter')} in {plural(kinds['parameter'], 'tensor')}")
        parts += [plural(kinds[kind], kind) for kind in ("input", "constant") if kinds[kind]]
        return ", ".join([*parts, f"{shown_bytes(self.saved_bytes)} saved for backward"])

    def __repr__(self) -> str:
        return f"Graph({self.headline()})"


# The public names, such as tl.Node. Inside tensorlib, Node and Value are classes of the engine.
Edge, Leaf, Node, Source, Value = GraphEdge, GraphLeaf, GraphNode, ValueRef, GraphValue
