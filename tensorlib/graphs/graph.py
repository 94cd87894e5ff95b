"""Graph: a recorded computation as data. `tl.graph`, in building.py, builds it.

A Graph holds numbers and names, but no Tensors or arrays, so it may be kept, pickled and drawn after the backward pass
has released the engine's nodes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from tensorlib.graphs.measuring import Measured
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

    `number` is the Python number itself, such as the 3 of ``x ** 3``; otherwise None.

    >>> first, second = tl.graph(tl.Tensor(2.0, requires_grad=True) * 3).nodes[0].inputs
    >>> first.leaf, second.leaf, second.number
    (0, None, 3)
    """

    node: int | None
    leaf: int | None
    output: int
    value: GraphValue
    number: float | None = None

    @property
    def slot(self) -> Slot:
        """The key of this value in ``graph.values`` and ``graph.gradients``."""
        return ("leaf", self.leaf, 0) if self.node is None else ("node", self.node, self.output)


Slot = tuple[str, int | None, int]
"""A value of a graph: ("node", number of the node, number of its output), or ("leaf", number of the leaf, 0)."""


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
        attributes: the options of the op, such as its axis or shape, as short texts.
        flops: the floating-point operations of its forward pass, as `tensorlib/graphs/flops.py` counts them.
        names: for each output, the name that ``names`` gave to the Tensor, or ""; empty if no output has one.
        times: how many equal ops it stands for, after steps of a loop or layers were folded into one.

    >>> x = tl.Tensor([[0.0, 1.0]], requires_grad=True)
    >>> exp, total = tl.graph(tl.exp(x).sum(axis=1))
    >>> exp.op, exp.saved_bytes, exp.flops, total.attributes["axis"]
    ('exp', 8, 2, '1')
    """

    number: int
    op: str
    path: str
    source: str | None
    inputs: tuple[ValueRef, ...]
    outputs: tuple[GraphValue, ...]
    saved_bytes: int = 0
    attributes: dict[str, str] = field(default_factory=dict)
    flops: int = 0
    names: tuple[str, ...] = ()
    times: int = 1


@dataclass(slots=True)
class GraphLeaf:
    """A Tensor that was given, not computed.

    Attributes:
        number: its index in ``graph.leaves``.
        kind: "parameter" (a module holds it), "input" (requires a gradient) or "constant" (does not).
        name: the parameter's name, as "encoder.layers.0.attention.weight", or the name given to `graph`; otherwise "".
        value: shape and dtype.
        scalar: the number in a constant without axes; otherwise None.
        times: how many leaves it stands for, one for each of several equal layers.

    >>> x = tl.Tensor(2.0, requires_grad=True)
    >>> leaf, three = tl.graph(x * tl.Tensor(3.0), names={"x": x}).leaves
    >>> (leaf.kind, leaf.name), (three.kind, three.scalar)
    (('input', 'x'), ('constant', 3.0))
    """

    number: int
    kind: str
    name: str
    value: GraphValue
    scalar: float | None = None
    times: int = 1


class GraphEdge(NamedTuple):
    """One input of one op: `source` (None: a Python number) delivers `value` to input `position` of `target`.

    `number` is that Python number.

    >>> x = tl.Tensor(2.0, requires_grad=True)
    >>> [(edge.source and edge.source.kind, edge.target.op) for edge in tl.graph(x * 3).edges]
    [('input', 'multiply'), (None, 'multiply')]
    >>> [edge.name for edge in tl.graph(x * 3, names={"x": x}).edges]
    ['x', '3']
    """

    source: GraphNode | GraphLeaf | None
    output: int
    target: GraphNode
    position: int
    value: GraphValue
    number: float | None = None

    @property
    def name(self) -> str:
        """The name of the Tensor that flows here, or the number; "" if it has none."""
        if self.source is None:
            return "" if self.number is None else repr(self.number)
        if isinstance(self.source, GraphLeaf):
            return self.source.name or ("" if self.source.scalar is None else repr(self.source.scalar))
        return self.source.names[self.output] if self.source.names else ""


@dataclass(repr=False)
class Graph:
    """A computation graph. Iterates over its nodes in the order in which they were recorded; ``len()`` counts them.

    Attributes:
        nodes: the ops, each after its inputs.
        leaves: the parameters, inputs and constants that the ops use.
        outputs: references to the Tensors that `graph` was called with.
        values, gradients: what was measured of each value and of its gradient, if `graph` was asked for it, by
            `ValueRef.slot`. The gradient is that of the sum of all outputs.
        passes: whether the first level of all paths is a pass, "forward" or "backward".

    >>> x = tl.Tensor([1.0, 2.0], requires_grad=True)
    >>> tl.graph(tl.softmax(x * 3))
    Graph(2 ops, 1 input, 8 B saved for backward)
    """

    nodes: list[GraphNode] = field(default_factory=list)
    leaves: list[GraphLeaf] = field(default_factory=list)
    outputs: tuple[ValueRef, ...] = ()
    values: dict[Slot, Measured] = field(default_factory=dict)
    gradients: dict[Slot, Measured] = field(default_factory=dict)
    passes: bool = False

    show: ClassVar[Callable[[Graph], str]]
    """Returns the picture in a notebook as HTML; set by notebook.py, which draws and so imports this file."""

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[GraphNode]:
        return iter(self.nodes)

    @property
    def edges(self) -> Iterator[GraphEdge]:
        """All edges, node by node, in the order of each node's inputs."""
        for node in self.nodes:
            for position, (above, leaf, output, value, number) in enumerate(node.inputs):
                source = None if above is None else self.nodes[above]
                yield GraphEdge(source if leaf is None else self.leaves[leaf], output, node, position, value, number)

    @property
    def parameters(self) -> list[GraphLeaf]:
        """The leaves that are parameters."""
        return [leaf for leaf in self.leaves if leaf.kind == "parameter"]

    @property
    def saved_bytes(self) -> int:
        """The memory kept until the backward pass, without parameters and inputs."""
        return sum(node.saved_bytes for node in self.nodes)

    @property
    def flops(self) -> int:
        """The floating-point operations of the forward pass."""
        return sum(node.flops for node in self.nodes)

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

    def _repr_html_(self) -> str:
        return type(self).show(self)


# The public names, such as tl.Node. Inside tensorlib, Node and Value are classes of the engine.
Edge, Leaf, Node, Source, Value = GraphEdge, GraphLeaf, GraphNode, ValueRef, GraphValue
