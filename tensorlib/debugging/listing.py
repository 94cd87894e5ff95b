"""A path through the graph in at most a dozen lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

from tensorlib.debugging.ranges import place
from tensorlib.graphs.folding import levels_of

__all__ = ["Step", "listing"]

LINES = 12


@dataclass(slots=True)
class Step:
    """One op on the path.

    Attributes:
        op: the op's name, as "layer_norm".
        module: the module it was recorded in; "" outside of any.
        source: the line that recorded it, as "file.py:12", within `debug`; else None.
        before: the norm of the gradient that arrives at its output.
        after: the norm of what it passes on along the path.
        zeros_before, zeros_after: which part of the elements is 0.
    """

    op: str
    module: str
    source: str | None
    before: float
    after: float
    zeros_before: float = 0.0
    zeros_after: float = 0.0


def listing(steps: Sequence[Step]) -> list[str]:
    """Return the steps as lines, each with the norm after it; stretches within one module as one line if need be.

    Where the gradient has become zero there is nothing more to see: what lies behind is one line.
    """
    zero = next((i + 1 for i, step in enumerate(steps) if step.after == 0), len(steps))
    if len(steps) - zero > 1:
        return [*listing(steps[:zero]), _line(0, f"and so through {len(steps) - zero:,} more ops", "")]
    start = f"{steps[0].before:>10.3g}  the loss"
    if len(steps) < LINES:
        return [start, *[_line(step.after, step.op, place(step.source, step.module)) for step in steps]]
    groups = _groups(steps)
    room = LINES - 1
    if len(groups) <= room:
        return [start, *[_folded(group) for group in groups]]
    first, last = groups[: room // 2], groups[-(room // 2) :]
    middle = [step for group in groups[room // 2 : -(room // 2)] for step in group]
    return [start, *map(_folded, first), _folded(middle, elided=True), *map(_folded, last)]


def _groups(steps: Sequence[Step]) -> list[list[Step]]:
    """Return stretches that lie within one module, seen as deep as there is room for."""
    deepest = max(len(levels_of(step.module)) for step in steps)
    groups: list[list[Step]] = []
    for depth in range(deepest, 0, -1):
        groups = [list(group) for _, group in groupby(steps, lambda step: levels_of(step.module)[:depth])]  # noqa: B023
        if len(groups) < LINES:
            break
    return groups or [[step] for step in steps]


def _folded(steps: Sequence[Step], elided: bool = False) -> str:
    if len(steps) == 1:
        return _line(steps[0].after, steps[0].op, place(steps[0].source, steps[0].module))
    ops = [(op, len(list(group))) for op, group in groupby(step.op for step in steps)]
    named = [f"{op} x{n:,}" if n > 1 else op for op, n in ops]
    if len(named) > 5:
        named = [*named[:2], "...", *named[-2:]]
    shared = ".".join(_common([levels_of(step.module) for step in steps]))
    where = "..." if elided else f"in {shared}" if shared else ""
    return _line(steps[-1].after, f"{', '.join(named)} ({len(steps):,} ops)", where)


def _common(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the levels that all paths begin with."""
    return [level for level, *others in takewhile(lambda at: len(set(at)) == 1, zip(*paths, strict=False))]


def _line(norm: float, what: str, where: str) -> str:
    return f"{norm:>10.3g}  {what:<16}  {where}".rstrip()
