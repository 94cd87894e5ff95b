"""checkpoint: forget what a stretch of the computation saved, and compute it again when backward needs it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from tensorlib.function import Function
from tensorlib.random import DrawTape
from tensorlib.recording import current_state, recording

__all__ = ["checkpoint"]


def checkpoint(f: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """Return ``f(*inputs, **options)``, keeping its inputs for the backward pass but nothing computed inside.

    The backward pass runs `f` once more, with the same dropout masks, when it comes to the first op inside: memory for
    the arrays inside is traded for the time of one more forward pass (Chen et al. 2016, "Training deep nets with
    sublinear memory cost"). Every gradient stays bit for bit what it was, of any order, with respect to `inputs` and
    to whatever else `f` uses, such as the parameters of modules.

    `f` must do the same the second time: the same ops on the same values. A generator of tensorlib is no obstacle,
    for its draws are repeated; any other state that f changes is.
    """
    state = current_state()
    if not state.record:
        return f(*inputs, **options)
    tape: list[Function] = []
    draws = DrawTape()
    with draws.noting(), recording(tape=tape):
        outputs = f(*inputs, **options)
    region = _Region(f, inputs, options, draws, tape)
    for node in tape:
        node.saved, node.statistics, node._region = (), None, region
    if state.tape is not None:  # a checkpoint within a checkpoint
        state.tape.extend(tape)
    return outputs


class _Region:
    """What it takes to run a stretch again. Knows its nodes weakly: they hold the region, and cycles hold memory."""

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Any],
        options: dict[str, Any],
        draws: DrawTape,
        nodes: Sequence[Function],
    ) -> None:
        self.function, self.inputs, self.options, self.draws = function, inputs, options, draws
        self.nodes = [weakref.ref(node) for node in nodes]
        self.ops = [node.name for node in nodes]

    def restore(self) -> None:
        """Run the function again, and hand what each op saves to the node that forgot it."""
        tape: list[Function] = []
        with self.draws.repeating(), recording(record=True, tape=tape, watch=None):
            self.function(*self.inputs, **self.options)
        again = [node.name for node in tape]
        if again != self.ops:
            raise RuntimeError(
                f"checkpoint: the function must run the same ops again; it ran {_difference(self.ops, again)}; "
                "does it depend on state that has changed since the forward pass?"
            )
        originals = {id(new): old() for new, old in zip(tape, self.nodes, strict=True)}
        for new in tape:
            old = originals[id(new)]
            if old is not None and old._region is self:
                old.saved, old.statistics, old._region = new.saved, new.statistics, new._region
        for inner in {id(new._region): new._region for new in tape if new._region is not None}.values():
            inner.nodes = [_same(ref, originals) for ref in inner.nodes]


def _same(reference: Any, originals: dict[int, Any]) -> Any:
    """Return a reference to the original of the node that `reference` refers to."""
    original = originals.get(id(reference()))
    return weakref.ref(original) if original is not None else lambda: None


def _difference(before: Sequence[str], again: Sequence[str]) -> str:
    for i, (old, new) in enumerate(zip(before, again, strict=False)):
        if old != new:
            return f"{new} where it ran {old} before (op {i} of {len(before)})"
    return f"{len(again)} ops where it ran {len(before)} before"
