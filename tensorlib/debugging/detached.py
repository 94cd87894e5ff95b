"""Where a history ends: noted while `debug` is on, so that `explain` can say "cut by detach at train.py:88"."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from tensorlib.debugging.ranges import place
from tensorlib.engine.function import Function
from tensorlib.engine.recording import calling_line, current_state
from tensorlib.tensor import Tensor

__all__ = ["Cut", "CutTracker", "cut_of"]


class Cut:
    """One place where Tensors with a history became a constant.

    Attributes:
        reason: how: "detach", "no_grad", "argmax", ...; "" where several constants, cut off earlier, were put together.
        source, path: the line and the module.
        by_engine: whether one of the engine's own functions did it on the way to what it is asked for.
        origins: what was cut off, as edges (node or leaf, output), and earlier cuts. They live as long as the constant.
    """

    __slots__ = ("by_engine", "op", "origins", "path", "reason", "source")

    def __init__(self, reason: str, op: str, source: str | None, path: str, origins: Sequence[Any]) -> None:
        self.reason, self.op, self.source, self.path, self.origins = reason, op, source, path, tuple(origins)
        self.by_engine = reason == "no gradient"  # a comparison that makes a mask is no mistake

    def __str__(self) -> str:
        where = place(self.source, self.path)
        if self.reason == "no_grad":
            return f"computed inside no_grad at {where}"
        if self.reason == "no gradient":
            return f"{self.op} at {where} has no gradient"
        return f"cut by {self.op} at {where}"


def cut_of(x: Any) -> Cut | None:
    """Return where the history of this Tensor was cut off, if that was noted."""
    return getattr(x, "cut", None)


class CutTracker:
    """Notes cuts on constants, carries them along, and hangs them on the nodes that use such constants."""

    def __init__(self) -> None:
        self.of_array: dict[int, tuple[Any, Cut]] = {}  # ops take masks and indices as arrays: by id, held weakly

    def close(self) -> None:
        """Forget all arrays: the references know this dictionary, which would be a cycle."""
        self.of_array.clear()

    def detached(self, x: Tensor, y: Tensor, how: str) -> None:
        """Note that `y` is the value of `x` without its history."""
        if x.needs_grad:
            state = current_state()
            y.cut = Cut("detach", how, calling_line(), state.path, [_edge(x)])
            y.cut.by_engine = _caller_of_tensor().startswith("tensorlib.")
        elif (cut := cut_of(x)) is not None:
            y.cut = cut
        else:
            return
        self.remember(y)

    def ran(self, node: Function, inputs: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        """Note what `node` cut off, if it was not recorded; if it was, note the cuts behind its constants."""
        carried = list({id(cut): cut for cut in self.carried(node, inputs)}.values())
        if node.edges is not None:
            node.cuts = carried
            return
        ended = [x for x in inputs if isinstance(x, Tensor) and x.needs_grad]
        if ended:
            reason = "no_grad" if node.differentiable else "no gradient"
            cut = Cut(reason, node.name, node.source, node.path, [*map(_edge, ended), *carried])
        elif node.name == "astype" and len(carried) == 1 and carried[0].source == node.source:
            # astype to integers detaches first; say what the user wrote
            cut = Cut("no gradient", f"astype({outputs[0].dtype})", node.source, node.path, carried[0].origins)
        elif len(carried) == 1:
            cut = carried[0]
        elif carried:
            cut = Cut("", node.name, node.source, node.path, carried)
        else:
            return
        for y in outputs:
            y.cut = cut
            self.remember(y)

    def carried(self, node: Function, inputs: Sequence[Any]) -> Iterator[Cut]:
        """Yield the cuts behind the constants that `node` takes, and behind arrays among its attributes."""
        for x in inputs:
            if isinstance(x, Tensor) and (cut := cut_of(x)) is not None:
                yield cut
        if self.of_array:
            for value in list(vars(node).values()):
                for array in value if isinstance(value, tuple) else (value,):
                    if (found := self.of_array.get(id(array))) is not None:
                        yield found[1]

    def remember(self, y: Tensor) -> None:
        """Know the array of `y` again where an op gets it as an attribute, as a mask or ids."""
        if y.dtype.kind not in "biu":
            return
        key, known = id(y.array), self.of_array
        try:
            known[key] = weakref.ref(y.array, lambda _: known.pop(key, None)), y.cut
        except TypeError:  # no array type need allow weak references
            return


def _caller_of_tensor() -> str:
    """Return the module that called the method of Tensor which led here."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__") in (
        __name__,
        "tensorlib.debugging.debug",
        "tensorlib.tensor",
    ):
        frame = frame.f_back
    return frame.f_globals.get("__name__", "")


def _edge(x: Tensor) -> tuple[Function | Tensor, int]:
    return (x if x.node is None else x.node, x.output_index)


# ---- looking behind cuts ---------------------------------------------------------------------------------------


def cuts_between(x: Tensor, loss: Tensor, order: Sequence[Function]) -> list[Cut]:
    """Return the cuts behind which `x` lies as seen from `loss`, whose recorded nodes are `order`; nearest to x first.

    A cut that only carries on an earlier one is none of them: what it got was a constant already.

    Walks from the loss through nodes, leaves and cuts, noting who led where, and then back from x. Linear.
    """
    starts = [cut for cut in [cut_of(loss)] if cut is not None]
    for node in order:
        starts += node.cuts
        starts += [cut for e in node.edges or () if e and isinstance(e[0], Tensor) and (cut := cut_of(e[0]))]
    led_by: dict[int, list[Any]] = {id(cut): [] for cut in starts}
    stack: list[Any] = list({id(cut): cut for cut in starts}.values())
    while stack:
        thing = stack.pop()
        for below in _below(thing):
            if id(below) not in led_by:
                led_by[id(below)] = []
                stack.append(below)
            led_by[id(below)].append(thing)
    found: list[Cut] = []
    queue: list[Any] = [x if x.node is None else x.node]
    seen: set[int] = set()
    for thing in queue:  # grows while it is walked
        for above in led_by.get(id(thing), ()):
            if isinstance(above, Cut) and not isinstance(thing, Cut):
                found.append(above)
            if id(above) not in seen:
                seen.add(id(above))
                queue.append(above)
    return found


def _below(thing: Any) -> Iterator[Any]:
    """Yield what a cut, a node or a leaf was made from."""
    if isinstance(thing, Cut):
        for origin in thing.origins:
            yield origin if isinstance(origin, Cut) else origin[0]
    elif isinstance(thing, Function):
        yield from [edge[0] for edge in thing.edges or () if edge is not None]
        yield from thing.cuts
    elif (cut := cut_of(thing)) is not None:
        yield cut
