"""Folding: the boxes, frames and arrows that are visible when a graph is opened to some depth.

A module path is a list of levels. A number belongs to the container before it: "decoder.layers.0.norm" has the three
levels decoder, layers.0, norm. At depth N, the first N levels are frames, and each deeper module is folded into a box.

A module that is called several times (a dropout used three times) becomes several frames or boxes, one for each
connected set of its ops: with a single box, arrows would form cycles. A module that would be a frame around a single
op becomes one box that shows both.

What repeats is folded once a view would have more than `PAGE` boxes: of at least five equal consecutive steps, or of as
many equal leaves of the same ops, the first and the last are drawn, and one box for all between them.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from tensorlib.graphs.graph import Graph, GraphLeaf, GraphNode, GraphValue, ValueRef
from tensorlib.graphs.repeats import FEWEST, Repeat, find_repeats, without_digits

__all__ = ["PAGE", "Arrow", "Box", "Frame", "View", "calls_of", "fold", "levels_of"]

PAGE = 60  # boxes; larger views fold what repeats

ModuleCall = tuple[int, int]  # a call of a module: its level, and the lowest number of its nodes
Call = ModuleCall | Repeat  # what may be around a node; a repeat is always the innermost


@dataclass(slots=True)
class Frame:
    """An open module: a frame around boxes and other frames."""

    path: str
    title: str
    parent: Frame | None
    frames: list[Frame] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)


@dataclass(slots=True)
class Box:
    """An op, a leaf, or a folded module or repeat with everything in it."""

    key: str
    kind: str  # op, module (folded), repeat, or the kind of the leaf
    frame: Frame
    path: str  # of the folded module, of the module where an op was recorded, or of a leaf's frame
    node: GraphNode | None = None  # for a folded module: its op, if it has only one
    leaf: GraphLeaf | None = None
    ops: int = 0
    parameters: int = 0  # the number of elements in parameters that only this folded module or repeat uses
    repeat: Repeat | None = None
    hidden: Counter[str] = field(default_factory=Counter)  # the leaves inside, by their kinds
    leaves: list[int] = field(default_factory=list)  # the numbers of the parameters inside
    outputs: list[GraphValue] = field(default_factory=list)
    refs: list[ValueRef] = field(default_factory=list)  # to the outputs of a folded module or repeat
    saved_bytes: int = 0
    flops: int = 0
    is_output: bool = False


@dataclass(slots=True)
class Arrow:
    """Everything that flows from one box to another: the number of edges, and the values."""

    tail: Box
    head: Box
    edges: int = 0
    values: set[ValueRef] = field(default_factory=set)


@dataclass(slots=True)
class View:
    """A graph opened to some depth."""

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


def calls_of(graph: Graph, depth: int | None) -> list[tuple[Call, ...]]:
    """Return for each node the module calls around it, outermost first, down to `depth` + 1 levels.

    Two nodes belong to the same call of a module if a path of its own nodes connects them.
    """
    levels = [levels_of(node.path) for node in graph.nodes]
    deepest = max(map(len, levels), default=0)
    if depth is not None:
        deepest = min(deepest, depth + 1)
    calls: list[tuple[Call, ...]] = [()] * len(levels)
    for level in range(1, deepest + 1):
        parents = list(range(len(levels)))  # union-find; the root of a call is its first node
        for node in graph.nodes:
            own = levels[node.number]
            if len(own) < level:
                continue
            for ref in node.inputs:
                other = () if ref.node is None else levels[ref.node]
                if ref.node is not None and len(other) >= level and own[:level] == other[:level]:
                    a, b = _find_root(parents, ref.node), _find_root(parents, node.number)
                    parents[max(a, b)] = min(a, b)
        if graph.passes and level == 1:  # a pass is one frame, whatever is in it
            first: dict[tuple[str, ...], int] = {}
            parents = [first.setdefault(own[:1], number) for number, own in enumerate(levels)]
        for number, own in enumerate(levels):
            if len(own) >= level:
                calls[number] += ((level, _find_root(parents, number)),)
    return calls


def _find_root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number


def fold(graph: Graph, depth: int | None = None, *, repeats: bool = True) -> View:
    """Return the view of `graph` opened to `depth`, without what repeats if it is large; None folds nothing.

    Without `repeats`, repeats stay visible in a large view, too.
    """
    calls = calls_of(graph, depth)
    if depth is None:
        return _Folding(graph, calls, max(map(len, calls), default=0)).run()
    view = _Folding(graph, calls, depth).run()
    for same_shapes in (True, False):
        if repeats and len(view.boxes) > PAGE:
            found = find_repeats(graph, calls, depth, same_shapes=same_shapes)
            view = _Folding(graph, _inside_repeats(calls, depth, found), depth, leaves_repeat=True).run()
    return view


def _inside_repeats(calls: Sequence[tuple[Call, ...]], depth: int, repeats: list[Repeat]) -> list[tuple[Call, ...]]:
    """Return the calls with those of repeats added: a repeat is inside the innermost module around all of it."""
    result = list(calls)
    for repeat in repeats:
        around = functools.reduce(_common_prefix, [calls[node.number][:depth] for node in repeat.nodes])
        for node in repeat.nodes:
            result[node.number] = (*around, repeat)
    return result


class _Folding:
    def __init__(
        self, graph: Graph, calls: Sequence[tuple[Call, ...]], depth: int, *, leaves_repeat: bool = False
    ) -> None:
        self.graph, self.calls, self.depth = graph, calls, depth
        self.leaves_repeat = leaves_repeat
        self.root = Frame("", "", None)
        self.frames: dict[Call, Frame] = {}
        self.boxes: dict[Hashable, Box] = {}
        self.arrows: dict[tuple[str, str], Arrow] = {}
        self.delivered: set[tuple[str, ValueRef]] = set()

    def run(self) -> View:
        homes = self.homes_of_leaves()
        node_boxes = [self.box_of_node(node) for node in self.graph.nodes]
        if self.leaves_repeat:
            self.fold_leaves(homes, node_boxes)
        leaf_boxes = [self.box_of_leaf(leaf, homes[leaf.number]) for leaf in self.graph.leaves]

        def box_of(ref: ValueRef) -> Box | None:
            if ref.node is not None:
                return node_boxes[ref.node]
            return None if ref.leaf is None else leaf_boxes[ref.leaf]

        for node in self.graph.nodes:
            for ref in node.inputs:
                tail, head = box_of(ref), node_boxes[node.number]
                if tail is not None and tail is not head:
                    self.connect(tail, head, ref)
        for ref in self.graph.outputs:
            if (box := box_of(ref)) is not None:
                box.is_output = True
                self.add_output(box, ref)
        self.replace_single_op_frames()
        return View(self.root, list(self.boxes.values()), list(self.arrows.values()))

    def frame(self, calls: tuple[Call, ...], path: str) -> Frame:
        """Return the frame of the innermost of `calls`; create missing frames, including those around it."""
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

    def folded(self, calls: tuple[Call, ...]) -> Call | None:
        """Return which of the calls around a node or leaf is one box: a repeat, or the module below all open ones."""
        if calls and isinstance(calls[-1], Repeat):
            return calls[-1]
        return calls[self.depth] if len(calls) > self.depth else None

    def box_of_node(self, node: GraphNode) -> Box:
        calls = self.calls[node.number]
        call = self.folded(calls)
        if call is None:
            frame = self.frame(calls, node.path)
            box = Box(f"n{node.number}", "op", frame, node.path, node, outputs=list(node.outputs))
            box.saved_bytes, box.flops = node.saved_bytes, node.flops
            return self.add(node.number, box)
        if call not in self.boxes:
            frame = self.frame(calls[: calls.index(call)], node.path)
            if isinstance(call, Repeat):
                self.add(call, Box(call.key, "repeat", frame, frame.path, repeat=call))
            else:
                path = ".".join(levels_of(node.path)[: self.depth + 1])
                self.add(call, Box(f"m{call[1]}", "module", frame, path))
        box = self.boxes[call]
        box.ops += node.times
        box.saved_bytes += node.saved_bytes
        box.flops += node.flops
        box.node = node if box.ops == 1 else None
        return box

    def box_of_leaf(self, leaf: GraphLeaf, home: tuple[tuple[Call, ...], str]) -> Box:
        calls, path = home
        call = self.folded(calls)
        if call is not None:
            box = self.boxes[call]
            box.parameters += leaf.value.size * leaf.times if leaf.kind == "parameter" else 0
            box.hidden[leaf.kind] += 1
            box.leaves += [leaf.number] if leaf.kind == "parameter" else []
            return box
        frame = self.frame(calls, path)
        return self.add(
            ("leaf", leaf.number), Box(f"l{leaf.number}", leaf.kind, frame, frame.path, leaf=leaf, outputs=[leaf.value])
        )

    def fold_leaves(self, homes: list[tuple[tuple[Call, ...], str]], node_boxes: list[Box]) -> None:
        """Move equal leaves into a repeat, all but the first and the last that the same boxes use."""
        users: list[dict[str, None]] = [{} for _ in homes]
        for node in self.graph.nodes:
            for ref in node.inputs:
                if ref.leaf is not None:
                    users[ref.leaf][node_boxes[node.number].key] = None
        alike: dict[Hashable, list[int]] = {}
        for leaf, (calls, _), boxes in zip(self.graph.leaves, homes, users, strict=True):
            if self.folded(calls) is None:
                key = (calls, tuple(boxes), leaf.kind, without_digits(leaf.name), leaf.value)
                alike.setdefault(key, []).append(leaf.number)
        for numbers in alike.values():
            if len(numbers) >= FEWEST:
                repeat = Repeat(f"s{numbers[1]}", len(numbers) - 2)
                calls, path = homes[numbers[0]]
                frame = self.frame(calls, path)
                self.add(repeat, Box(repeat.key, "repeat", frame, frame.path, repeat=repeat))
                for number in numbers[1:-1]:
                    homes[number] = ((*calls, repeat), path)

    def homes_of_leaves(self) -> list[tuple[tuple[Call, ...], str]]:
        """Return for each leaf the calls in which it is drawn, and the path of a module inside them.

        A parameter is drawn in the innermost module around all its users, so a shared one is outside each user.
        Inputs and named constants are drawn outside all modules, other constants one level outside their users, but
        those of an op's formula inside it, and what only one repeat uses inside it.
        """
        homes: list[tuple[tuple[Call, ...], str] | None] = [None] * len(self.graph.leaves)
        for node in self.graph.nodes:
            for ref in node.inputs:
                if ref.leaf is not None:
                    calls, path = homes[ref.leaf] or (self.calls[node.number], node.path)
                    homes[ref.leaf] = (_common_prefix(calls, self.calls[node.number]), path)
        result: list[tuple[tuple[Call, ...], str]] = []
        for leaf, home in zip(self.graph.leaves, homes, strict=True):
            calls, path = home or ((), "")
            if leaf.kind != "parameter" and not (calls and isinstance(calls[-1], Repeat)):
                frame = levels_of(path)[: len(calls)][-1:]
                outside = calls if frame and frame[0].endswith("()") else calls[:-1]
                calls = () if leaf.kind == "input" or leaf.name else outside
            result.append((calls, path))
        return result

    def connect(self, tail: Box, head: Box, ref: ValueRef) -> None:
        arrow = self.arrows.setdefault((tail.key, head.key), Arrow(tail, head))
        arrow.edges += 1
        arrow.values.add(ref)
        self.add_output(tail, ref)

    def add_output(self, box: Box, ref: ValueRef) -> None:
        """Add a value that leaves its box: the outputs of a folded module or repeat are the values used outside it."""
        if box.kind in ("module", "repeat") and (box.key, ref) not in self.delivered:
            self.delivered.add((box.key, ref))
            box.outputs.append(ref.value)
            box.refs.append(ref)

    def replace_single_op_frames(self) -> None:
        for frame in self.frames.values():
            if frame.parent is self.root and self.graph.passes:
                continue
            if frame.parent and not frame.frames and len(frame.boxes) == 1 and frame.boxes[0].kind == "op":
                (box,) = frame.boxes
                box.kind, box.path, box.ops, box.frame = "module", frame.path, 1, frame.parent
                frame.parent.boxes.append(box)
                frame.parent.frames.remove(frame)


def _common_prefix(a: tuple[Call, ...], b: tuple[Call, ...]) -> tuple[Call, ...]:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return a[:n]
