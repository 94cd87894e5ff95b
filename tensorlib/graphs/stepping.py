"""`tl.step_through`: forward and backward pass as a film over the graph, in one HTML file that works offline."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tensorlib.arrays.sharing import value_of
from tensorlib.engine.function import Function
from tensorlib.engine.recording import shown_line
from tensorlib.engine.value import Value
from tensorlib.exchange.safetensors import write_atomically
from tensorlib.graphs.array_summaries import ArrayTable
from tensorlib.graphs.building import graph, names_of, recorded_nodes
from tensorlib.graphs.folding import levels_of
from tensorlib.graphs.graph import Graph, GraphLeaf, GraphNode
from tensorlib.graphs.observing import Delivery, observe_gradients
from tensorlib.graphs.op_texts import op_text, printable
from tensorlib.graphs.replay import recorded_values, require_same
from tensorlib.messages import shown
from tensorlib.tensor import Tensor

__all__ = ["step_through"]

MOST_NODES = 3000  # more make a page of tens of megabytes, which opens slowly
SCRIPTS = ("stepper_layout.js", "stepper_values.js", "stepper.js", "stepper_panel.js", "stepper_controls.js")
PAGE = 70  # boxes; the page opens modules as deep as this allows


def step_through(
    y: Tensor | Sequence[Tensor],
    path: str | os.PathLike[str],
    *,
    names: Mapping[str, Any] | None = None,
    depth: int | None = None,
) -> Path:
    """Write a page that steps through the computation of `y`, forward and backward, and return its path.

    The page is one HTML file, which a browser shows without a network. Each step shows an op, its formula and its
    gradient rule as they stand in the source, the values, the gradients that arrive and those that it passes on, and
    how several contributions to one gradient add up. Press ? on the page for its keys; ``steps.html#step=12`` opens it
    at a step.

    Call it before ``y.backward()``, which releases the graph, or pass ``retain_graph=True`` to it. Values that the
    graph does not hold are computed again, then one backward pass runs; ``.grad`` and the graph stay as they are, and
    hooks are not called. The backward pass starts with ones, so if y is not a scalar, gradients are those of its sum.

    Args:
        y: one Tensor or several.
        path: the file to write, with the suffix .html.
        names: names for leaves that no module has named, and for results: ``names={"x": x}``, or ``names=locals()``.
        depth: the number of levels of modules that are open at first; the others open with a click. None opens as
            many as fit on a screen.

    Raises ValueError for another suffix, a wrong depth, a Tensor without history or a graph of more than 3,000 ops,
    FileNotFoundError if the folder does not exist, RuntimeError if the graph was released.

    >>> import tempfile
    >>> a = tl.Tensor(1.0, requires_grad=True)
    >>> b = a + a
    >>> c = b + b
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tl.step_through(c, f"{folder}/steps.html", names=locals()).name
    'steps.html'
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"step_through: the suffix of {target} must be .html; got {target.suffix or 'none'}")
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
        raise ValueError(f"step_through: depth must be a whole number from 0, or None; got {shown(depth)}")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"step_through: {target}: there is no folder {target.parent}")
    write_atomically(target, page_of(film_of(y, names, depth)))
    return target


def film_of(y: Tensor | Sequence[Tensor], names: Mapping[str, Any] | None = None, depth: int | None = None) -> Any:
    """Return the data of the page as JSON: ops, arrays, frames, leaves, nodes, and the steps of the backward pass."""
    outputs = _checked_outputs(y)
    nodes = recorded_nodes(outputs, "step_through")[::-1]
    if len(nodes) > MOST_NODES:
        raise ValueError(
            f"step_through: {len(nodes):,} ops are more than the {MOST_NODES:,} that a page can show; "
            "record fewer, such as fewer steps of a loop or layers, or use draw, which folds what repeats"
        )
    return _Film(outputs, nodes, graph(outputs, names=names), names_of(names, "step_through")).film(depth)


def _checked_outputs(y: Any) -> list[Tensor]:
    outputs = [y] if isinstance(y, Tensor) or not isinstance(y, Iterable) else list(y)
    if not outputs:
        raise ValueError("step_through: needs at least one Tensor, got an empty sequence")
    for output in outputs:
        if not isinstance(output, Tensor):
            raise TypeError(f"step_through: needs a Tensor or a sequence of Tensors, got {shown(output)}")
        if not output.requires_grad:
            raise ValueError(
                f"step_through: nothing was recorded for the Tensor of shape {output.shape}: none of its inputs "
                "requires a gradient, or it was computed inside no_grad() or after detach()"
            )
    return outputs


class _Film:
    """Builds the page's data. The engine's nodes and those of the Graph have the same order."""

    def __init__(
        self, outputs: Sequence[Tensor], nodes: Sequence[Function], drawn: Graph, names: Mapping[str, Any]
    ) -> None:
        self.outputs, self.nodes, self.drawn = outputs, nodes, drawn
        self.table = ArrayTable()
        self.values = recorded_values(nodes, "step_through")
        for slot, array in self.values.items():
            require_same(outputs, slot, array, "step_through")
        self.number = {id(node): n for n, node in enumerate(nodes)}
        self.leaves: dict[int, Any] = {}  # by number: the leaf, or the array of a constant
        for node, copy in zip(nodes, drawn.nodes, strict=True):
            for edge, (given, _), ref in zip(node.edges or (), node.input_types, copy.inputs, strict=True):
                if ref.leaf is not None:
                    whose = f"step_through: {node.name}"
                    self.leaves[ref.leaf] = value_of(given, node.serial, whose) if edge is None else edge[0]
        for x, ref in zip(outputs, drawn.outputs, strict=True):
            if ref.leaf is not None:
                self.leaves[ref.leaf] = x
        named = [(name, x) for name, x in names.items() if isinstance(x, Tensor) and x.node is not None]
        self.names = {(id(x.node), x.output_index): name for name, x in reversed(named)}

    def film(self, depth: int | None) -> dict[str, Any]:
        begun, steps, of_leaf = observe_gradients(self.outputs, self.nodes, self.table.add)
        classes = list(dict.fromkeys(map(type, self.nodes)))
        frames, home = _frames(self.drawn)
        return {
            "headline": self.drawn.headline(),
            "notes": self.notes(),
            "depth": _depth_that_fits(self.drawn, frames, home) if depth is None else depth,
            "ops": [op_text(cls) for cls in classes],
            "frames": frames,
            "leaves": [
                self.leaf(leaf, of_leaf, at)
                for leaf, at in zip(self.drawn.leaves, _homes(self.drawn, frames, home), strict=True)
            ],
            "nodes": [
                {"op": classes.index(type(node)), "frame": home[n], **self.node(node, copy)}
                for n, (node, copy) in enumerate(zip(self.nodes, self.drawn.nodes, strict=True))
            ],
            "outputs": [_source(ref.node, ref.leaf, ref.output) for ref in self.drawn.outputs],
            "begun": [_delivery(one) for one in begun],
            "backward": [
                {
                    "node": self.number[id(step.node)],
                    "dys": step.dys,
                    "dxs": [_delivery(one) for one in step.deliveries],
                }
                for step in steps
            ],
            "arrays": self.table.summaries,  # last, when all have been added
        }

    def notes(self) -> list[str]:
        notes = []
        if any(y.size != 1 for y in self.outputs):
            notes.append("The result is not a scalar: the backward pass starts with ones, as for its sum.")
        leaves = [leaf for leaf in self.leaves.values() if isinstance(leaf, Value)]
        if any(node.gradient_hooks for node in self.nodes) or any(getattr(leaf, "hooks", None) for leaf in leaves):
            notes.append("Hooks, which may change gradients, are not called here.")
        return notes

    def leaf(self, leaf: GraphLeaf, of_leaf: Mapping[int, int], frame: int | None) -> dict[str, Any]:
        given = self.leaves[leaf.number]
        array = given.array if isinstance(given, Value) else given
        return {
            "kind": leaf.kind,
            "name": printable(leaf.name),
            "frame": frame,
            "value": self.table.add(array),
            "gradient": of_leaf.get(id(given)),
        }

    def node(self, node: Function, copy: GraphNode) -> dict[str, Any]:
        slots = [(id(node), k) for k in range(len(node.output_types))]
        return {
            "path": printable(copy.path),
            "source": _line(copy.source) if copy.source else "",
            "names": [printable(self.names.get(slot, "")) for slot in slots],
            "attributes": self.attributes(node.attributes or {}),
            "inputs": [self.input(node, copy, i) for i in range(len(copy.inputs))],
            "outputs": [self.table.add(self.values[slot]) for slot in slots],
        }

    def input(self, node: Function, copy: GraphNode, i: int) -> dict[str, Any]:
        ref, (given, _) = copy.inputs[i], node.input_types[i]
        if ref.node is None and ref.leaf is None:
            return {"number": shown(given)}
        return _source(ref.node, ref.leaf, ref.output)

    def attributes(self, given: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return names and texts of attributes, such as an axis; a mask in them as an array; named tuples opened."""
        found: list[dict[str, Any]] = []
        for name, value in given.items():
            if hasattr(value, "_asdict"):
                found += [{**one, "name": f"{name}.{one['name']}"} for one in self.attributes(value._asdict())]
            elif hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, type):
                found.append({"name": printable(name), "array": self.table.add(value)})
            else:
                found.append({"name": printable(name), "text": printable(shown(value))})
        return found


def _line(source: str) -> str:
    """Return a line's place without the folders outside the current directory, since pages are passed on."""
    line = shown_line(source)
    return printable(os.path.basename(line) if os.path.isabs(line) else line)


def _source(node: int | None, leaf: int | None, output: int) -> dict[str, Any]:
    return {"leaf": leaf} if node is None else {"node": node, "output": output}


def _delivery(given: Delivery | None) -> dict[str, Any] | None:
    return None if given is None else given._asdict()


# ---- modules as frames -------------------------------------------------------------------------------------------


def _frames(drawn: Graph) -> tuple[list[dict[str, Any]], list[int | None]]:
    """Return the frames of modules, outermost first, and the innermost frame of each node, None outside of all.

    A frame holds consecutive nodes, so a module that is called again later has a second frame, and no two frames
    depend on each other in a circle. Inside a frame of one op there is nothing to see: it is marked as "single".
    """
    frames: list[dict[str, Any]] = []
    home: list[int | None] = []
    open_frames: list[int] = []
    for node in drawn.nodes:
        levels = levels_of(node.path)
        shared = 0
        while shared < min(len(levels), len(open_frames)) and frames[open_frames[shared]]["title"] == levels[shared]:
            shared += 1
        del open_frames[shared:]
        for level in range(shared, len(levels)):
            parent = open_frames[-1] if open_frames else None
            path = ".".join(levels[: level + 1])
            frames.append({"title": levels[level], "path": path, "parent": parent, "level": level, "ops": 0})
            open_frames.append(len(frames) - 1)
        for number in open_frames:
            frames[number]["ops"] += 1
        home.append(open_frames[-1] if open_frames else None)
    for frame in frames:
        frame["title"], frame["path"] = printable(frame["title"], 120), printable(frame["path"])
    return frames, home


def _homes(drawn: Graph, frames: Sequence[Mapping[str, Any]], home: Sequence[int | None]) -> list[int | None]:
    """Return the frame in which each leaf is drawn: the innermost around all its users; inputs are outside of all."""
    around: list[list[int] | None] = [None] * len(drawn.leaves)
    for node, at in zip(drawn.nodes, home, strict=True):
        for ref in node.inputs:
            if ref.leaf is not None:
                known, here = around[ref.leaf], _ancestors(frames, at)
                around[ref.leaf] = here if known is None else [a for a, b in zip(known, here, strict=False) if a == b]
    outside = [leaf.kind == "input" or (leaf.kind == "constant" and bool(leaf.name)) for leaf in drawn.leaves]
    return [None if free or not at else at[-1] for free, at in zip(outside, around, strict=True)]


def _ancestors(frames: Sequence[Mapping[str, Any]], at: int | None) -> list[int]:
    """Return a frame and those around it, outermost first."""
    found: list[int] = []
    while at is not None:
        found.append(at)
        at = frames[at]["parent"]
    return found[::-1]


def _depth_that_fits(drawn: Graph, frames: Sequence[Mapping[str, Any]], home: Sequence[int | None]) -> int:
    """Return the greatest depth at which ops and folded modules are at most `PAGE` boxes, at least 0."""
    deepest = max((frame["level"] + 1 for frame in frames), default=0)
    for depth in range(deepest, 0, -1):
        closed = [frame for frame in frames if frame["level"] == depth]
        visible = [
            node for node, at in zip(drawn.nodes, home, strict=True) if at is None or frames[at]["level"] < depth
        ]
        if len(closed) + len(visible) <= PAGE:
            return depth
    return 0


# ---- the page ----------------------------------------------------------------------------------------------------


def page_of(film: Any) -> bytes:
    """Return the whole page, with its data, style and scripts inside.

    The data is ASCII with every "<" escaped, so that no text can close the element that contains it. The page's scripts
    insert text only as text, never as HTML, and its policy allows these scripts alone, by their hashes, and no request.
    """
    data = json.dumps(film, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    style, script = _resource("stepper.css"), "".join([_resource(name) for name in SCRIPTS])
    page = _resource("stepper.html")
    for mark, text in (("STYLE_HASH", _hash(style)), ("SCRIPT_HASH", _hash(script)), ("STYLE", style)):
        page = page.replace(f"@{mark}@", text)
    before, between, after = page.replace("@SCRIPT@", "@DATA@").split("@DATA@")  # so that no data is searched for marks
    return "".join([before, data, between, script, after]).encode()


def _resource(name: str) -> str:
    return (files("tensorlib.graphs") / "pages" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
