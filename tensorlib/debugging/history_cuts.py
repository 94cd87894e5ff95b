"""Cuts of a history, noted within `debug`, so that `explain` can say "cut by detach at train.py:88"."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from tensorlib.debugging.locations import location
from tensorlib.engine.function import Function
from tensorlib.engine.node import Edge
from tensorlib.engine.recording import STATE, calling_line
from tensorlib.engine.value import Value, edge_of
from tensorlib.tensor import Tensor

__all__ = ["Cut", "CutTracker", "cut_of", "cuts_between"]


class Cut:
    """The op or method by which Tensors with a history became a constant.

    Attributes:
        reason: "detach", "no_grad" or "no gradient"; "" if an op joined several constants that were cut off earlier.
        op: the name of the op or method.
        source, path: the line and the module where it was called.
        by_engine: whether it is a side effect: of an op that has no gradient, or of a function of tensorlib.
        origins: the edges that were cut off, and earlier cuts. They live as long as the constant.
    """

    __slots__ = ("by_engine", "op", "origins", "path", "reason", "source")

    def __init__(self, reason: str, op: str, source: str | None, path: str, origins: Sequence[Edge | Cut]) -> None:
        self.reason, self.op, self.source, self.path, self.origins = reason, op, source, path, tuple(origins)
        self.by_engine = reason == "no gradient"  # a comparison that computes a mask is not a mistake

    def __str__(self) -> str:
        where = location(self.source, self.path)
        if self.reason == "no_grad":
            return f"computed inside no_grad at {where}"
        if self.reason == "no gradient":
            return f"{self.op} at {where} has no gradient"
        return f"cut by {self.op} at {where}"


def cut_of(x: Any) -> Cut | None:
    """Return the cut of the history of a Tensor, or None if no cut was noted."""
    return getattr(x, "cut", None)


class CutTracker:
    """Notes cuts on constants, on constants computed from these, and on the nodes that use them."""

    def __init__(self) -> None:
        self.of_array: dict[int, tuple[Any, Cut]] = {}  # by id: weak reference to a mask or indices, and its cut

    def close(self) -> None:
        """Forget all arrays, because their weak references refer to this dictionary, which is a cycle."""
        self.of_array.clear()

    def detached(self, x: Tensor, y: Tensor, how: str) -> None:
        """Note that the method `how` returned `y`, the value of `x` without its history."""
        if x.needs_grad:
            state = STATE.get()
            y.cut = Cut("detach", how, calling_line(), state.path, [edge_of(x)])
            y.cut.by_engine = _caller_of_tensor().startswith("tensorlib.")
        elif (cut := cut_of(x)) is not None:
            y.cut = cut
        else:
            return
        self.remember(y)

    def ran(self, node: Function, inputs: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        """Note what `node` cut off, if it was not recorded; otherwise note the cuts behind its constants."""
        earlier = list({id(cut): cut for cut in self.cuts_behind(node, inputs)}.values())
        if node.edges is not None:
            node.cuts = earlier
            return
        ended = [x for x in inputs if isinstance(x, Tensor) and x.needs_grad]
        if ended:
            reason = "no_grad" if node.differentiable else "no gradient"
            cut = Cut(reason, node.name, node.source, node.path, [*map(edge_of, ended), *earlier])
        elif node.name == "astype" and len(earlier) == 1 and earlier[0].source == node.source:
            # astype to integers detaches first; name the method that the user called
            cut = Cut("no gradient", f"astype({outputs[0].dtype})", node.source, node.path, earlier[0].origins)
        elif len(earlier) == 1:
            cut = earlier[0]
        elif earlier:
            cut = Cut("", node.name, node.source, node.path, earlier)
        else:
            return
        for y in outputs:
            y.cut = cut
            self.remember(y)

    def cuts_behind(self, node: Function, inputs: Sequence[Any]) -> Iterator[Cut]:
        """Yield the cuts behind the constants among the inputs of `node`, and behind arrays among its attributes."""
        for x in inputs:
            if isinstance(x, Tensor) and (cut := cut_of(x)) is not None:
                yield cut
        if self.of_array:
            for value in list(vars(node).values()):
                for array in value if isinstance(value, tuple) else (value,):
                    if (found := self.of_array.get(id(array))) is not None:
                        yield found[1]

    def remember(self, y: Tensor) -> None:
        """Remember the array of `y`, to recognize it if an op gets it as an attribute, such as a mask or ids."""
        if y.dtype.kind not in "biu":
            return
        key, known = id(y.array), self.of_array
        try:
            known[key] = weakref.ref(y.array, lambda _: known.pop(key, None)), y.cut
        except TypeError:  # an array type need not allow weak references
            return


def _caller_of_tensor() -> str:
    """Return the module that called the method of Tensor that led here."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__") in (
        __name__,
        "tensorlib.debugging.debug",
        "tensorlib.tensor",
    ):
        frame = frame.f_back
    return frame.f_globals.get("__name__", "")


# ---- the path to a cut --------------------------------------------------------------------------------------------


def cuts_between(x: Tensor, loss: Tensor, order: Sequence[Function]) -> list[Cut]:
    """Return the cuts between `x` and `loss`, whose recorded nodes are `order`; the nearest to x first.

    A cut that only joins earlier ones does not count: its inputs were constants already.

    The walk leads from the loss through nodes, leaves and cuts, noting the predecessors of each, and then back from x.
    Its time is linear.
    """
    starts = [cut for cut in [cut_of(loss)] if cut is not None]
    for node in order:
        starts += node.cuts
        starts += [cut for e in node.edges or () if e and isinstance(e[0], Value) and (cut := cut_of(e[0]))]
    predecessors: dict[int, list[Any]] = {id(cut): [] for cut in starts}
    stack: list[Any] = list({id(cut): cut for cut in starts}.values())
    while stack:
        above = stack.pop()
        for below in _below(above):
            if id(below) not in predecessors:
                predecessors[id(below)] = []
                stack.append(below)
            predecessors[id(below)].append(above)
    found: list[Cut] = []
    queue: list[Any] = [x if x.node is None else x.node]
    seen: set[int] = set()
    for below in queue:  # grows during the loop
        for above in predecessors.get(id(below), ()):
            if isinstance(above, Cut) and not isinstance(below, Cut):
                found.append(above)
            if id(above) not in seen:
                seen.add(id(above))
                queue.append(above)
    return found


def _below(above: Cut | Function | Value) -> Iterator[Any]:
    """Yield the cuts, nodes and leaves that a cut, a node or a leaf was computed from."""
    if isinstance(above, Cut):
        for origin in above.origins:
            yield origin if isinstance(origin, Cut) else origin[0]
    elif isinstance(above, Function):
        yield from [edge[0] for edge in above.edges or () if edge is not None]
        yield from above.cuts
    elif (cut := cut_of(above)) is not None:
        yield cut
