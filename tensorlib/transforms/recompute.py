"""checkpoint: forget what a stretch of the computation saved, and compute it again when backward needs it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from tensorlib.arrays.random import DrawTape
from tensorlib.engine.errors import replaced_since
from tensorlib.engine.function import Function
from tensorlib.engine.node import op_name
from tensorlib.engine.recording import current_state, recording
from tensorlib.messages import shown
from tensorlib.tensor import Tensor

__all__ = ["checkpoint"]


def checkpoint(f: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """Return ``f(*inputs, **options)``, keeping its inputs for the backward pass but nothing computed inside.

    The backward pass runs `f` once more, with the same dropout masks, when it comes to the first op inside: memory for
    the arrays inside is traded for the time of one more forward pass (Chen et al. 2016, "Training deep nets with
    sublinear memory cost"). Every gradient stays bit for bit what it was, of any order, with respect to `inputs` and
    to whatever else `f` uses, such as the parameters of modules.

    `f` must do the same the second time: the same ops on the same values. A generator of tensorlib is no obstacle,
    for its draws are repeated; any other state that f changes is. A Tensor that f read and whose value was replaced
    since, as by an optimizer, is an error, and so are other ops or other shapes than before.
    """
    if not callable(f):
        raise TypeError(
            f"checkpoint: a function and then its inputs are required, as checkpoint(f, x); got {shown(f)} first"
        )
    state = current_state()
    if not state.record:
        return f(*inputs, **options)
    tape, draws = _Tape(), DrawTape()
    with draws.recording(), recording(tape=tape):
        outputs = f(*inputs, **options)
    region = _Region(f, inputs, options, draws, tape)
    for node in tape.nodes:
        node.saved, node.statistics, node.region = (), None, region
    if state.tape is not None:  # a checkpoint within a checkpoint
        state.tape.extend(tape)
    return outputs


class _Tape:
    """Lists the nodes recorded in a stretch, and the leaves that it reads, constants too: these weakly."""

    def __init__(self) -> None:
        self.nodes: list[Function] = []
        self.leaves: dict[int, weakref.ref[Tensor]] = {}

    def ran(self, node: Function, inputs: Sequence[Any]) -> None:
        """List an op that has run in this thread; it may be recorded or not."""
        if node.edges is not None:
            self.nodes.append(node)
        for x in inputs:
            if isinstance(x, Tensor) and x.node is None:
                self.leaves[id(x)] = weakref.ref(x)

    def extend(self, inner: _Tape) -> None:
        """Take over what ran in a stretch within this one."""
        self.nodes += inner.nodes
        self.leaves |= inner.leaves


class _Region:
    """What it takes to run a stretch again. Knows its nodes weakly: they hold the region, and cycles hold memory."""

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Any],
        options: dict[str, Any],
        draws: DrawTape,
        tape: _Tape,
    ) -> None:
        self.function, self.inputs, self.options, self.draws = function, inputs, options, draws
        self.nodes = [weakref.ref(node) for node in tape.nodes]
        self.ops = _what_ran(tape)
        # As it stands after the stretch: what this itself has replaced, such as a running mean, is its own affair.
        self.versions = [(leaf, x.version) for leaf in tape.leaves.values() if (x := leaf()) is not None]

    def held(self) -> list[Any]:
        """Return the arrays of the inputs, which are kept in order to run again."""
        return [x.data for x in (*self.inputs, *self.options.values()) if isinstance(x, Tensor)]

    def restore(self) -> None:
        """Run the function again, and hand what each op saves to the node that forgot it."""
        for reference, version in self.versions:
            if (leaf := reference()) is not None and leaf.version != version:
                raise replaced_since("a checkpoint", leaf, version)
        tape = _Tape()
        with self.draws.repeating(), recording(record=True, tape=tape, watch=None):
            self.function(*self.inputs, **self.options)
        if (again := _what_ran(tape)) != self.ops:
            raise RuntimeError(
                f"checkpoint: the function must run the same ops again; it ran {_difference(self.ops, again)}; "
                "does it depend on state that has changed since the forward pass?"
            )
        originals = {id(new): old() for new, old in zip(tape.nodes, self.nodes, strict=True)}
        for new in tape.nodes:
            old = originals[id(new)]
            if old is not None and old.region is self:
                old.saved, old.statistics, old.region = new.saved, new.statistics, new.region
        for inner in {id(new.region): new.region for new in tape.nodes if new.region is not None}.values():
            inner.nodes = [_same(ref, originals) for ref in inner.nodes]


def _same(reference: Any, originals: dict[int, Any]) -> Any:
    """Return a reference to the original of the node that `reference` refers to."""
    original = originals.get(id(reference()))
    return weakref.ref(original) if original is not None else lambda: None


def _what_ran(tape: _Tape) -> list[tuple[Any, ...]]:
    """Return each op with the shapes and dtypes of its outputs."""
    return [(type(node), *node.output_types) for node in tape.nodes]


def _difference(before: Sequence[tuple[Any, ...]], again: Sequence[tuple[Any, ...]]) -> str:
    for i, (old, new) in enumerate(zip(before, again, strict=False)):
        if old != new:
            of_old, of_new = (" and ".join(f"{shape} {dtype}" for shape, dtype in op[1:]) for op in (old, new))
            named = new[0] is old[0]
            return (
                f"{op_name(new[0])}{f' to {of_new}' if named else ''} where it ran "
                f"{op_name(old[0])}{f' to {of_old}' if named else ''} before (op {i} of {len(before)})"
            )
    return f"{len(again)} ops where it ran {len(before)} before"
