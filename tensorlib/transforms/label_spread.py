"""The pass of `depends`: labels spread from given values over the recorded ops, and the path of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorlib.arrays.sharing import value_of
from tensorlib.engine.backward import topological_order
from tensorlib.engine.function import Function
from tensorlib.engine.node import Edge
from tensorlib.engine.recording import DEFAULT_STATE, recording, shown_line
from tensorlib.engine.value import Value, as_array, edge_of, wrap
from tensorlib.transforms.dependence_rules import FORMULAS, RULES, Site, anything
from tensorlib.transforms.label_sets import Known, Labels, single_labels

__all__ = ["DependenceStep", "Spread"]


class DependenceStep(NamedTuple):
    """A step of a path along which an element depends on another: an op and an element of its output."""

    op: str
    """The name of the op; "leaf" for a Tensor that no op computed."""
    module: str
    """The module that the op was called in, or the name of the leaf."""
    source: str | None
    """The line that called it, as "file.py:12", if it was recorded within `record_source` or `debug`."""
    shape: tuple[int, ...]
    """The shape of the output."""
    element: tuple[int, ...]
    """The position of the element in the output."""
    serial: int
    """The number of the op in the order of recording; 0 for a leaf."""

    def __str__(self) -> str:
        place = f" in {self.module}" if self.module else ""
        line = f" at {shown_line(self.source)}" if self.source else ""
        return f"{self.op}{place}{line}: element {self.element} of {self.shape}"


class Spread:
    """The spreading of labels from given values over all that was computed from them."""

    def __init__(self, given: Mapping[Edge, Known], words: int) -> None:
        self.given, self.known = dict(given), dict(given)
        self.unknown = single_labels(words)[0]
        self.without_rule: list[str] = []

    def run(self, target: Edge) -> None:
        """Find what is known of the value `target` and of all that it was computed from, and not from `given`."""
        if isinstance(target[0], Value):
            self.at(target)
            return
        for node in reversed(topological_order([target[0]])):
            inputs = [self.input(node, i) for i in range(len(node.input_types))]
            for k, output in enumerate(self.outputs(node, inputs)):
                self.known.setdefault((node, k), output)

    def at(self, edge: Edge) -> Known:
        """Return what is known of a value; a leaf that is not given is unknown."""
        if edge not in self.known:
            assert isinstance(edge[0], Value)
            array = edge[0].array
            labels = np.broadcast_to(self.unknown, (*array.shape, self.unknown.size))
            self.known[edge] = Known.of(labels, array)
        return self.known[edge]

    def input(self, node: Function, position: int) -> Known:
        """Return what is known of an input."""
        assert node.edges is not None
        edge = node.edges[position]
        if edge is not None:
            return self.at(edge)
        value = value_of(node.input_types[position][0], node.serial, f"depends: {node.name}")
        return Known.of(np.zeros((*np.shape(value), self.unknown.size), np.uint64), value)

    def outputs(self, node: Function, inputs: Sequence[Known]) -> list[Known]:
        """Return what is known of the outputs of a node."""
        if type(node) in FORMULAS:
            return [self.of_formula(node, inputs)]
        found = self.labels(node, inputs)
        if type(node) not in RULES:
            # It is not run again, because it may be anything. Nothing that it computes is fixed, so ones do as values.
            self.without_rule.append(f"{node.name} {node.origin()}")
            return [
                Known.of(labels | self.unknown, np.ones(shape, dtype))
                for labels, (shape, dtype) in zip(found, node.output_types, strict=True)
            ]
        with np.errstate(all="ignore"):
            values: Any = type(node).run(*[x.value for x in inputs], **(node.attributes or {}))
        values = values if isinstance(values, tuple) else (values,)
        return [Known.of(labels, as_array(value)) for labels, value in zip(found, values, strict=True)]

    def labels(self, node: Function, inputs: Sequence[Known]) -> list[Labels]:
        """Return the labels of a node's outputs."""
        if type(node) in FORMULAS:
            return [self.of_formula(node, inputs).labels]
        return RULES.get(type(node), anything)(Site(node, inputs, self.unknown))

    def of_formula(self, node: Function, inputs: Sequence[Known]) -> Known:
        """Return what is known of an op that is composed of others, by recording these on their own."""
        leaves = [wrap(np.asarray(x.value)) for x in inputs]
        for leaf in leaves:
            leaf.needs_grad = True
        with recording(**DEFAULT_STATE._asdict()), np.errstate(all="ignore"):
            y = FORMULAS[type(node)](*leaves, **(node.attributes or {}))
        inner = Spread({edge_of(leaf): x for leaf, x in zip(leaves, inputs, strict=True)}, self.unknown.size)
        inner.run(edge_of(y))
        return inner.known[edge_of(y)]

    # ---- the path of one label ----

    def carrying(self, edge: Edge, label: int) -> np.ndarray:
        """Return which elements of a value carry a label."""
        word, bit = divmod(label, 64)
        return (self.known[edge].labels[..., word] >> np.uint64(bit)) & np.uint64(1) == 1

    def path(self, edge: Edge, element: tuple[int, ...], label: int) -> list[DependenceStep]:
        """Return a short path by which the label came to an element."""
        distances = self.distances(label)
        found = [_step(edge, self.known[edge], element)]
        while edge not in self.given:
            edge, element = self.step_back(edge, element, label, distances)
            found.append(_step(edge, self.known[edge], element))
        return found[::-1]

    def distances(self, label: int) -> dict[Edge, int]:
        """Return for each value that carries the label how many ops away from the given values it is at least."""
        found = {edge: 0 for edge in self.given if self.carrying(edge, label).any()}
        for edge in self.known:  # in the order of recording
            if edge not in found and isinstance(edge[0], Function) and self.carrying(edge, label).any():
                below = [found[e] for e in edge[0].edges or () if e is not None and e in found]
                found[edge] = 1 + min(below)
        return found

    def step_back(
        self, edge: Edge, element: tuple[int, ...], label: int, distances: Mapping[Edge, int]
    ) -> tuple[Edge, tuple[int, ...]]:
        """Return an input of the op that computed an element, and an element of it by which the label came."""
        node, output = edge
        assert isinstance(node, Function) and node.edges is not None
        inputs = [self.input(node, i) for i in range(len(node.edges))]
        candidates = [(distances[e], i) for i, e in enumerate(node.edges) if e is not None and e in distances]
        for _, i in sorted(candidates):
            below = node.edges[i]
            assert below is not None
            carrying = np.flatnonzero(self.carrying(below, label))

            def leads_here(elements: np.ndarray, i: int = i) -> bool:
                only = [_marked(x, elements if k == i else elements[:0]) for k, x in enumerate(inputs)]
                labels = Spread({}, 1).labels(node, only)[output][element]
                return bool(labels[0] & np.uint64(2))

            if leads_here(carrying):
                while carrying.size > 1:  # of two halves, one leads here
                    half = carrying[: carrying.size // 2]
                    carrying = half if leads_here(half) else carrying[carrying.size // 2 :]
                return below, tuple(int(n) for n in np.unravel_index(carrying[0], inputs[i].fixed.shape))
        raise AssertionError(f"{node.name}: its rule gives a label to an output that no input alone brings there")


def _marked(x: Known, elements: np.ndarray) -> Known:
    """Return a value whose given elements have label 1, and all that are not fixed label 0."""
    labels = np.where(x.fixed, np.uint64(0), np.uint64(1)).reshape(-1)
    labels[elements] |= np.uint64(2)
    return Known(labels.reshape(*x.fixed.shape, 1), x.value, x.fixed)


def _step(edge: Edge, known: Known, element: tuple[int, ...]) -> DependenceStep:
    node, shape = edge[0], known.fixed.shape
    if isinstance(node, Value):
        return DependenceStep("leaf", node.name, None, shape, element, 0)
    return DependenceStep(node.name, node.path, node.source, shape, element, node.serial)
