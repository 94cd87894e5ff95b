"""depends: which elements of a result can depend on which elements of an input, proved from the recorded graph.

Every group of elements of the input gets a label, a bit in a set of bits. The sets flow forward through the recorded
ops, each by its rule in `dependence_rules.py`, all labels at once: one pass, where gradients need one for each element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from tensorlib.engine.backward import topological_order
from tensorlib.engine.function import Function
from tensorlib.engine.node import Edge
from tensorlib.engine.recording import DEFAULT_STATE, recording, shown_line
from tensorlib.engine.value import Value, as_array, edge_of, wrap
from tensorlib.messages import shown
from tensorlib.tensor import Tensor
from tensorlib.transforms.dependence_rules import FORMULAS, RULES, Known, Labels, Site, anything, over

__all__ = ["Dependence", "DependenceStep", "depends"]

Axes = Sequence[int] | None


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


class Dependence:
    """Which positions of a result can depend on which positions of an input, as returned by `depends`.

    ``np.asarray(dependence)`` is `array`. The object keeps the recorded graph alive.

    Attributes:
        array: booleans (*positions of y, *positions of x): whether y there can depend on x there.
        without_rule: the ops that have no rule, so that all of their outputs were taken to depend on all of their
            inputs, each with its place.
    """

    def __init__(self, array: np.ndarray, spread: _Spread, target: _Target, first_label: int) -> None:
        self.array = array
        self.without_rule = tuple(dict.fromkeys(spread.without_rule))
        self._spread, self._target, self._first = spread, target, first_label

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.array, dtype=dtype) if copy or dtype is not None else self.array

    def __getitem__(self, index: Any) -> Any:
        """Return ``array[index]``."""
        return self.array[index]

    def __repr__(self) -> str:
        unknown = f", without a rule: {', '.join(self.without_rule)}" if self.without_rule else ""
        return f"Dependence({self.array.sum()} of {self.array.size} pairs, shape={self.array.shape}{unknown})"

    def path(self, *position: int) -> list[DependenceStep]:
        """Return the ops by which y depends on x, where ``array[position]`` is True, beginning with x.

        It is a short path, not always the only one. Raises ValueError where y does not depend on x.

        >>> x = tl.Tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> dependence = tl.depends(tl.exp(x)[1:] * 2, on=x)
        >>> [(step.op, step.element) for step in dependence.path(0, 1)]
        [('leaf', (1,)), ('exp', (1,)), ('getitem', (0,)), ('multiply', (0,))]
        """
        if len(position) != self.array.ndim or not self.array[position]:
            raise ValueError(
                f"path: needs a position where the array of shape {self.array.shape} is True, got {position}"
            )
        sizes, split = self.array.shape, len(self._target.axes)
        of, on = position[:split], position[split:]
        label = self._first + (int(np.ravel_multi_index(on, sizes[split:])) if on else 0)
        element = self._target.first_element(of, self._spread.carrying(self._target.edge, label))
        return self._spread.path(self._target.edge, element, label)


@overload
def depends(y: Tensor, on: Tensor, *, axes: Axes = None, axes_of_y: Axes = None) -> Dependence: ...


@overload
def depends(
    y: Tensor, on: Sequence[Tensor], *, axes: Axes = None, axes_of_y: Axes = None
) -> list[Dependence]: ...  # fmt: skip


def depends(y: Tensor, on: Any, *, axes: Axes = None, axes_of_y: Axes = None) -> Any:
    """Return which elements of `y` can depend on which elements of `on`, proved from the recorded graph.

    on: a Tensor that y was computed from, or several of them, for which a list is returned. It may be a leaf or an
        intermediate result: for token ids, the output of their embedding.
    axes: the axes of `on` that tell positions apart; all elements of one position count as one. By default all axes.
    axes_of_y: the same for y.

    >>> x = tl.Tensor(np.ones((3, 2)), requires_grad=True)
    >>> past = np.tri(3, dtype=bool)
    >>> y = tl.softmax(tl.where(past, x @ x.swapaxes(0, 1), -np.inf)) @ x
    >>> tl.depends(y, on=x, axes=[0], axes_of_y=[0]).array.astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1]])

    **What is proved.** Where the result is False, no change of that part of `on` changes that part of y, if what was
    recorded is computed again: with the same ops, shapes, masks, indices and constants, but for any values of `on`, any
    values of all other leaves, such as weights, and any draw of dropout. Where it is True, a rule did not exclude it.
    Two things are assumed: the values that depend on `on` or on other leaves are finite, and none is divided by zero.
    Then 0 times such a value is 0, and -inf plus such a value is -inf. A large negative number in place of -inf proves
    nothing, because its exponential is not 0.

    **What is not seen.** Dependence through what has no gradient: `detach`, arrays, comparisons, and indices such as
    those of `argmax` and `sort`. They count as constants, as they do for gradients.

    Call it before ``y.backward()``. An op without a rule, such as one's own, counts as one whose outputs depend on all
    of its inputs; `Dependence.without_rule` names it. Memory is that of the values, plus one bit for each element of a
    value and each position of `on`.

    Raises ValueError for a Tensor without history, and on a GPU; RuntimeError for a graph that was released.
    """
    sources = [on] if isinstance(on, Tensor) else list(on)
    for name, x in [("y", y), *[("on", x) for x in sources]]:
        _check_recorded(name, x)
    target = _Target(edge_of(y), y.shape, _positions("axes_of_y", axes_of_y, y))
    groups, first = [], 1  # label 0 stands for everything unknown
    for x in sources:
        kept = _positions("axes", axes, x)
        sizes = tuple(x.shape[a] for a in kept)
        groups.append((_group_numbers(x.shape, kept) + first, sizes))
        first += int(np.prod(sizes))
    words = -(-first // 64)
    given: dict[Edge, Known] = {}
    for x, (numbers, _) in zip(sources, groups, strict=True):
        labels = _label_sets(words)[numbers]
        before = given.get(edge_of(x))
        given[edge_of(x)] = Known.of(labels if before is None else labels | before.labels, x.array)
    spread = _Spread(given, words)
    try:
        spread.run(target.edge)
    except RuntimeError as error:
        if "released" not in str(error):
            raise
        raise RuntimeError(
            "depends: the graph of y was released by an earlier backward pass; call depends before backward(), or pass "
            "retain_graph=True to it"
        ) from None
    bits = np.unpackbits(target.sets(spread.known[target.edge].labels).view(np.uint8), axis=-1, bitorder="little")
    found = []
    for numbers, sizes in groups:
        start, count = int(numbers.min(initial=first)), int(np.prod(sizes))
        array = bits[..., start : start + count].astype(bool).reshape((*bits.shape[:-1], *sizes))
        found.append(Dependence(array, spread, target, start))
    return found[0] if isinstance(on, Tensor) else found


def _check_recorded(name: str, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"depends: {name} must be a Tensor, got {shown(x)}")
    if not x.requires_grad:
        raise ValueError(
            f"depends: {name}, a Tensor of shape {x.shape}, must be recorded or have requires_grad=True; got a "
            "constant: nothing about it is in the graph"
        )
    if not isinstance(x.array, np.ndarray):
        raise ValueError(
            f"depends: {name} must be on the backend numpy, got {x.backend.name}; compute it there, with a small model"
        )


def _positions(name: str, axes: Axes, x: Tensor) -> tuple[int, ...]:
    """Return the axes that tell positions apart, in the given order."""
    if axes is None:
        return tuple(range(x.ndim))
    given = [axes] if isinstance(axes, int) else list(axes)
    if any(not isinstance(a, int | np.integer) or not -x.ndim <= a < x.ndim for a in given):
        raise ValueError(f"depends: {name} must be axes of a Tensor of shape {x.shape}, got {shown(axes)}")
    kept = tuple(int(a) % x.ndim for a in given)
    if len(set(kept)) < len(kept):
        raise ValueError(f"depends: {name} must not repeat an axis, got {shown(axes)}")
    return kept


def _group_numbers(shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    """Return for each element the number of its position, counted along the given axes."""
    places, numbers = np.indices(shape, sparse=True), np.zeros((1,) * len(shape), np.int64)
    for a in axes:
        numbers = numbers * shape[a] + places[a]
    return np.broadcast_to(numbers, shape)


def _label_sets(words: int) -> Labels:
    """Return for each label the set that holds it alone, (64 words, words)."""
    return np.packbits(np.eye(64 * words, dtype=bool), axis=1, bitorder="little").view(np.uint64)


class _Target(NamedTuple):
    """The result whose dependence is asked for, and the axes that tell its positions apart."""

    edge: Edge
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def sets(self, labels: Labels) -> Labels:
        """Return the union of the sets of each position, (*positions, words)."""
        others = tuple(a for a in range(len(self.shape)) if a not in self.axes)
        order = [sorted(self.axes).index(a) for a in self.axes]
        return np.ascontiguousarray(over(labels, others).transpose(*order, len(order)))

    def first_element(self, position: tuple[int, ...], carrying: np.ndarray) -> tuple[int, ...]:
        """Return the first element of a position at which `carrying` is True."""
        here = carrying.copy()
        for a, i in zip(self.axes, position, strict=True):
            here &= (np.arange(self.shape[a]) == i).reshape([-1 if b == a else 1 for b in range(len(self.shape))])
        return tuple(int(i) for i in np.argwhere(here)[0])


# ---- the pass ----------------------------------------------------------------------------------------------------


class _Spread:
    """The spreading of labels from given values over all that was computed from them."""

    def __init__(self, given: Mapping[Edge, Known], words: int) -> None:
        self.given, self.known = dict(given), dict(given)
        self.unknown = _label_sets(words)[0]
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
        value = node.input_types[position][0]
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
        inner = _Spread({edge_of(leaf): x for leaf, x in zip(leaves, inputs, strict=True)}, self.unknown.size)
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
                labels = _Spread({}, 1).labels(node, only)[output][element]
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
