"""What of a graph is visible at some depth: boxes, the frames around them, the arrows between them.

A module path is a list of levels, a number belonging to the container before it: "decoder.layers.0.norm" has the three
levels decoder, layers.0, norm. At depth N, the first N levels are frames, and what lies deeper is folded into one box.

A module that is called at several places (a dropout used three times) becomes several frames or boxes, one for each
set of its ops that are connected among themselves. One box for all would draw arrows that run in circles. And a
module that would be a frame around one op and nothing else is one box that says both.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass, field

from tensorlib.graphs.graph import Graph, Leaf, Node, Source, Value

__all__ = ["Arrow", "Box", "Frame", "View", "fold", "levels_of"]

Call = tuple[int, int]  # a call of a module: its level, and the number of one of its nodes


@dataclass(slots=True)
class Frame:
    """A module that is shown open: a frame around boxes and other frames."""

    path: str
    title: str
    parent: Frame | None
    frames: list[Frame] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)


@dataclass(slots=True)
class Box:
    """An op, a leaf, or a folded module with all that is in it."""

    key: str
    kind: str  # op, module (folded), or the kind of the leaf
    frame: Frame
    path: str  # of the folded module; of the module that an op was recorded in; else of the frame
    node: Node | None = None  # of a folded module: the only op in it, if it is the only one
    leaf: Leaf | None = None
    ops: int = 0
    parameters: int = 0  # how many numbers are in the parameters that only the folded module uses
    outputs: list[Value] = field(default_factory=list)
    is_output: bool = False


@dataclass(slots=True)
class Arrow:
    """All that flows from one box to another: how many edges, and which values."""

    tail: Box
    head: Box
    edges: int = 0
    values: set[Source] = field(default_factory=set)


@dataclass(slots=True)
class View:
    """A graph, seen at some depth."""

    root: Frame
    boxes: list[Box]
    arrows: list[Arrow]


@functools.lru_cache(maxsize=4096)
def levels_of(path: str) -> tuple[str, ...]:
    """Return the levels of a module path: "encoder.layers.0.norm" -> ("encoder", "layers.0", "norm")."""
    levels: list[str] = []
    for part in path.split(".") if path else []:
        if part.isdigit() and levels and not levels[-1].rpartition(".")[2].isdigit():
            levels[-1] += f".{part}"
        else:
            levels.append(part)
    return tuple(levels)


def _calls(graph: Graph, depth: int | None) -> list[tuple[Call, ...]]:
    """Return for each node the module calls that it lies in, outermost first, down to `depth` + 1 levels."""
    levels = [levels_of(node.path) for node in graph.nodes]
    deepest = max(map(len, levels), default=0)
    if depth is not None:
        deepest = min(deepest, depth + 1)
    calls: list[tuple[Call, ...]] = [()] * len(levels)
    for level in range(1, deepest + 1):
        first = list(range(len(levels)))  # union-find: leads towards the first node of the same call
        for node in graph.nodes:
            mine = levels[node.number]
            if len(mine) < level:
                continue
            for source in node.inputs:
                other = () if source.node is None else levels[source.node]
                if source.node is not None and len(other) >= level and mine[:level] == other[:level]:
                    a, b = _find(first, source.node), _find(first, node.number)
                    first[max(a, b)] = min(a, b)
        for number, mine in enumerate(levels):
            if len(mine) >= level:
                calls[number] += ((level, _find(first, number)),)
    return calls


def _find(first: list[int], number: int) -> int:
    while first[number] != number:
        first[number] = first[first[number]]
        number = first[number]
    return number


def fold(graph: Graph, depth: int | None = None) -> View:
    """Return what is visible at `depth`; None folds nothing."""
    return _Folding(graph, depth).run()


class _Folding:
    def __init__(self, graph: Graph, depth: int | None) -> None:
        self.graph = graph
        self.calls = _calls(graph, depth)
        self.depth = max(map(len, self.calls), default=0) if depth is None else depth
        self.root = Frame("", "", None)
        self.frames: dict[Call, Frame] = {}
        self.boxes: dict[Hashable, Box] = {}
        self.arrows: dict[tuple[str, str], Arrow] = {}
        self.delivered: set[tuple[str, Source]] = set()

    def run(self) -> View:
        homes = self.homes_of_leaves()
        node_boxes = [self.box_of_node(node) for node in self.graph.nodes]
        leaf_boxes = [self.box_of_leaf(leaf, homes[leaf.number]) for leaf in self.graph.leaves]

        def box_of(source: Source) -> Box | None:
            if source.node is not None:
                return node_boxes[source.node]
            return None if source.leaf is None else leaf_boxes[source.leaf]

        for node in self.graph.nodes:
            for source in node.inputs:
                tail, head = box_of(source), node_boxes[node.number]
                if tail is not None and tail is not head:
                    self.connect(tail, head, source)
        for source in self.graph.outputs:
            if (box := box_of(source)) is not None:
                box.is_output = True
                self.deliver(box, source)
        self.remove_thin_frames()
        return View(self.root, list(self.boxes.values()), list(self.arrows.values()))

    def frame(self, calls: tuple[Call, ...], path: str) -> Frame:
        """Return the frame of the innermost of `calls`, making it and those around it where they are missing."""
        frame, levels = self.root, levels_of(path)
        for level, call in enumerate(calls, start=1):
            if call not in self.frames:
                inner = Frame(".".join(levels[:level]), levels[level - 1], frame)
                frame.frames.append(inner)
                self.frames[call] = inner
            frame = self.frames[call]
        return frame

    def add(self, identity: Hashable, box: Box) -> Box:
        self.boxes[identity] = box
        box.frame.boxes.append(box)
        return box

    def box_of_node(self, node: Node) -> Box:
        calls = self.calls[node.number]
        frame = self.frame(calls[: self.depth], node.path)
        if len(calls) <= self.depth:
            return self.add(
                node.number, Box(f"n{node.number}", "op", frame, node.path, node, outputs=list(node.outputs))
            )
        call = calls[self.depth]
        if call not in self.boxes:
            path = ".".join(levels_of(node.path)[: self.depth + 1])
            self.add(call, Box(f"m{call[1]}", "module", frame, path))
        box = self.boxes[call]
        box.ops += 1
        box.node = node if box.ops == 1 else None
        return box

    def box_of_leaf(self, leaf: Leaf, home: tuple[tuple[Call, ...], str]) -> Box:
        calls, path = home
        if len(calls) > self.depth:
            box = self.boxes[calls[self.depth]]
            box.parameters += leaf.value.size if leaf.kind == "parameter" else 0
            return box
        frame = self.frame(calls, path)
        return self.add(
            ("leaf", leaf.number), Box(f"l{leaf.number}", leaf.kind, frame, frame.path, leaf=leaf, outputs=[leaf.value])
        )

    def homes_of_leaves(self) -> list[tuple[tuple[Call, ...], str]]:
        """Return for each leaf the calls it is drawn in, and a path below the innermost.

        A parameter belongs to the innermost module around all that use it, so that a shared one stands outside of
        its users. What is fed in (inputs, named constants) stands outside of everything, other constants one level
        outside of their users.
        """
        homes: list[tuple[tuple[Call, ...], str] | None] = [None] * len(self.graph.leaves)
        for node in self.graph.nodes:
            for source in node.inputs:
                if source.leaf is not None:
                    calls, path = homes[source.leaf] or (self.calls[node.number], node.path)
                    homes[source.leaf] = (_common(calls, self.calls[node.number]), path)
        result: list[tuple[tuple[Call, ...], str]] = []
        for leaf, home in zip(self.graph.leaves, homes, strict=True):
            calls, path = home or ((), "")
            if leaf.kind != "parameter":
                calls = () if leaf.kind == "input" or leaf.name else calls[:-1]
            result.append((calls, path))
        return result

    def connect(self, tail: Box, head: Box, source: Source) -> None:
        arrow = self.arrows.setdefault((tail.key, head.key), Arrow(tail, head))
        arrow.edges += 1
        arrow.values.add(source)
        self.deliver(tail, source)

    def deliver(self, box: Box, source: Source) -> None:
        """Note that a value leaves its box: which outputs a folded module has is seen from outside."""
        if box.kind == "module" and (box.key, source) not in self.delivered:
            self.delivered.add((box.key, source))
            box.outputs.append(source.value)

    def remove_thin_frames(self) -> None:
        for frame in self.frames.values():
            if frame.parent and not frame.frames and len(frame.boxes) == 1 and frame.boxes[0].kind == "op":
                (box,) = frame.boxes
                box.kind, box.path, box.ops, box.frame = "module", frame.path, 1, frame.parent
                frame.parent.boxes.append(box)
                frame.parent.frames.remove(frame)


def _common(a: tuple[Call, ...], b: tuple[Call, ...]) -> tuple[Call, ...]:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return a[:n]
