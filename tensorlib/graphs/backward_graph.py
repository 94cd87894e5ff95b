"""The backward pass of a recorded graph as a graph: a box for each gradient rule, a sum where contributions meet."""

from __future__ import annotations

from dataclasses import replace

from tensorlib.graphs.folding import levels_of
from tensorlib.graphs.graph import Graph, GraphLeaf, GraphNode, GraphValue, Slot, ValueRef
from tensorlib.graphs.rolling import common_levels

__all__ = ["PASSES", "is_backward", "with_passes"]

PASSES = ("forward", "backward", "both")


def with_passes(graph: Graph, passes: str) -> Graph:
    """Return the graph with the passes that are asked for, "forward", "backward" or "both"; each is a part of its own.

    Each op that has a gradient becomes an op such as "tanh backward": its inputs are the gradients of the op's
    outputs, its outputs those of the op's inputs. Gradients of a value that is used several times are added. The
    gradients of all results of the graph are 1.

    >>> from tensorlib.graphs.backward_graph import with_passes
    >>> x = tl.Tensor(2.0, requires_grad=True)
    >>> graph = tl.graph(tl.tanh(x) * x, names={"x": x})
    >>> [node.op for node in with_passes(graph, "both")]
    ['tanh', 'multiply', 'multiply backward', 'tanh backward', 'add']
    """
    if passes == "forward":
        return graph
    building = _Backward(graph, keeps_forward=passes == "both")
    building.run()
    return building.result


def is_backward(path: str) -> bool:
    """Return whether the path of a box is in the backward pass."""
    return path == "backward" or path.startswith("backward.")


class _Backward:
    def __init__(self, graph: Graph, keeps_forward: bool) -> None:
        self.graph = graph
        nodes = [replace(node, path=_inside("forward", node.path)) for node in graph] if keeps_forward else []
        leaves = list(graph.leaves) if keeps_forward else []
        outputs = graph.outputs if keeps_forward else ()
        kept = (dict(graph.values), dict(graph.gradients)) if keeps_forward else ({}, {})
        self.result = Graph(nodes, leaves, outputs, *kept, passes=True)
        self.arriving: dict[Slot, list[ValueRef]] = {}  # the contributions to the gradient of each value

    def run(self) -> None:
        for ref in self.graph.outputs:
            self.arriving.setdefault(ref.slot, []).append(self.one(ref.value))
        for node in reversed(self.graph.nodes):
            self.pass_back(node)
        for leaf in self.graph.leaves:
            slot: Slot = ("leaf", leaf.number, 0)
            if slot in self.arriving:
                self.finish(slot, _gradient_name(leaf))

    def one(self, value: GraphValue) -> ValueRef:
        """Return a constant of ones, the gradient of a result."""
        number = len(self.result.leaves)
        self.result.leaves.append(GraphLeaf(number, "constant", "", value, None if value.shape else 1.0))
        return ValueRef(None, number, 0, value)

    def pass_back(self, node: GraphNode) -> None:
        """Add the gradient of an op, if any gradient arrives at its outputs."""
        slots: list[Slot] = [("node", node.number, k) for k in range(len(node.outputs))]
        inputs = tuple([self.total(slot, node.path) for slot in slots if slot in self.arriving])
        wanted = [ref for ref in node.inputs if self.has_gradient(ref)]
        if inputs and wanted:
            values = tuple([ref.value for ref in wanted])
            number = self.add(GraphNode(0, f"{node.op} backward", node.path, node.source, inputs, values))
            for k, ref in enumerate(wanted):
                self.arriving.setdefault(ref.slot, []).append(ValueRef(number, None, k, ref.value))

    def has_gradient(self, ref: ValueRef) -> bool:
        return ref.node is not None or (ref.leaf is not None and self.graph.leaves[ref.leaf].kind != "constant")

    def total(self, slot: Slot, path: str) -> ValueRef:
        """Return the gradient of a value: its only contribution, or a new node that adds them all."""
        parts = self.arriving[slot]
        if len(parts) > 1:
            number = self.add(GraphNode(0, "add", path, None, tuple(parts), (parts[0].value,)))
            parts[:] = [ValueRef(number, None, 0, parts[0].value)]
        if slot in self.graph.gradients and parts[0].node is not None:
            self.result.gradients[parts[0].slot] = self.graph.gradients[slot]
        return parts[0]

    def finish(self, slot: Slot, name: str) -> None:
        """Name the gradient of a leaf, and count it among the results."""
        users = [self.result.nodes[ref.node] for ref in self.arriving[slot] if ref.node is not None]
        around = common_levels([levels_of(node.path) for node in users]) if users else ()
        ref = self.total(slot, ".".join(around[1:]))  # in the innermost module around all contributions
        if ref.node is not None:
            node = self.result.nodes[ref.node]
            names = node.names or ("",) * len(node.outputs)
            node.names = (*names[: ref.output], name, *names[ref.output + 1 :])
            self.result.outputs = (*self.result.outputs, ref)
        elif ref.leaf is not None:  # the leaf is itself a result
            self.result.leaves[ref.leaf].name = name

    def add(self, node: GraphNode) -> int:
        node.number, node.path = len(self.result.nodes), _inside("backward", node.path)
        self.result.nodes.append(node)
        return node.number


def _inside(part: str, path: str) -> str:
    return f"{part}.{path}" if path else part


def _gradient_name(leaf: GraphLeaf) -> str:
    return f"d{leaf.name.rpartition('.')[2]}" if leaf.name else ""
