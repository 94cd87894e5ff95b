"""The path that carries most of a gradient: its steps, listed in at most a dozen lines, and where other paths join."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import TypeAlias

from tensorlib.debugging.gradient_flow import Hop, ObservedPass
from tensorlib.debugging.locations import located_op, location
from tensorlib.debugging.zero_causes import percent
from tensorlib.graphs.folding import levels_of
from tensorlib.messages import plural

__all__ = ["Shares", "Step", "joins", "listing", "shown_shares", "steps_of"]

LINES = 12

Shares: TypeAlias = list[tuple[float, str]]
"""The share of each contribution to a gradient, and where it comes from; the largest first."""


@dataclass(slots=True)
class Step:
    """One op on the path.

    Attributes:
        op: the name of the op, as "layer_norm".
        module: the module it was recorded in; "" outside any module.
        source: the line that recorded it, as "file.py:12", within `debug`; otherwise None.
        before: the norm of the gradient that arrives at its output.
        after: the norm of the gradient that it passes on along the path.
        zeros_before, zeros_after: the fraction of the elements of each that are 0.
    """

    op: str
    module: str
    source: str | None
    before: float
    after: float
    zeros_before: float = 0.0
    zeros_after: float = 0.0


def steps_of(hops: Sequence[Hop]) -> list[Step]:
    """Return the hops as plain data."""
    return [
        Step(
            hop.node.name,
            hop.node.path,
            hop.node.source,
            hop.before.norm,
            hop.after.norm,
            hop.before.share_of_zeros,
            hop.after.share_of_zeros,
        )
        for hop in hops
    ]


# ---- the listing -------------------------------------------------------------------------------------------------


def listing(steps: Sequence[Step]) -> list[str]:
    """Return one line per step, with the norm after it; if there are too many steps, one line per module.

    Steps after the gradient has become zero share one line.
    """
    zero = next((i + 1 for i, step in enumerate(steps) if step.after == 0), len(steps))
    if len(steps) - zero > 1:
        return [*listing(steps[:zero]), _line(0, f"and zero through {len(steps) - zero:,} more ops", "")]
    start = f"{steps[0].before:>10.3g}  the loss"
    if len(steps) < LINES:
        return [start, *[_step_line(step) for step in steps]]
    groups = _groups(steps)
    room = LINES - 1
    if len(groups) <= room:
        return [start, *[_group_line(group) for group in groups]]
    first, last = groups[: room // 2], groups[-(room // 2) :]
    middle = [step for group in groups[room // 2 : -(room // 2)] for step in group]
    return [start, *map(_group_line, first), _group_line(middle, elided=True), *map(_group_line, last)]


def _groups(steps: Sequence[Step]) -> list[list[Step]]:
    """Group consecutive steps by module, at the deepest level of modules for which the lines suffice."""
    deepest = max(len(levels_of(step.module)) for step in steps)
    groups: list[list[Step]] = []
    for depth in range(deepest, 0, -1):
        groups = [list(group) for _, group in groupby(steps, lambda step: levels_of(step.module)[:depth])]  # noqa: B023
        if len(groups) < LINES:
            break
    return groups or [[step] for step in steps]


def _group_line(steps: Sequence[Step], elided: bool = False) -> str:
    if len(steps) == 1:
        return _step_line(steps[0])
    ops = [(op, len(list(group))) for op, group in groupby(step.op for step in steps)]
    names = [f"{op} x{n:,}" if n > 1 else op for op, n in ops]
    if len(names) > 5:
        names = [*names[:2], "...", *names[-2:]]
    module = ".".join(_common_prefix([levels_of(step.module) for step in steps]))
    where = "..." if elided else f"in {module}" if module else ""
    return _line(steps[-1].after, f"{', '.join(names)} ({len(steps):,} ops)", where)


def _step_line(step: Step) -> str:
    return _line(step.after, step.op, location(step.source, step.module))


def _line(norm: float, ops: str, where: str) -> str:
    return f"{norm:>10.3g}  {ops:<16}  {where}".rstrip()


def _common_prefix(paths: Sequence[tuple[str, ...]]) -> list[str]:
    return [level for level, *others in takewhile(lambda at: len(set(at)) == 1, zip(*paths, strict=False))]


# ---- joins -------------------------------------------------------------------------------------------------------


def joins(observed: ObservedPass, hops: Sequence[Hop]) -> list[tuple[str, Shares]]:
    """Return the gradients on the path to which other paths contribute: a phrase for each, and the shares.

    At most three are returned: the last gradient first, then those of which the path carries the smallest shares.
    """
    found = []
    for i, hop in enumerate(hops):
        edge = (hop.node.edges or ())[hop.position]
        parts = observed.contributions[id(edge[0]), edge[1]] if edge is not None else []
        total = sum(part.flow.norm for part in parts)
        if len(parts) < 2 or not 0 < total < math.inf or hop.after.norm / total > 0.95:
            continue
        paths = [part.node.path for part in parts]
        modules_differ = all(paths) and len(set(paths)) == len(paths)
        shares: dict[str, float] = {}
        for part in parts:
            name = part.node.path if modules_differ else located_op(part.node)
            shares[name] = shares.get(name, 0.0) + part.flow.norm / total
        if len(shares) == 1:
            continue
        is_last = i == len(hops) - 1
        what = "its gradient" if is_last else f"the gradient of the output of {located_op(hops[i + 1].node)}"
        ordered: Shares = sorted(((share, name) for name, share in shares.items()), reverse=True)
        found.append((is_last, hop.after.norm / total, what, ordered))
    found.sort(key=lambda join: (not join[0], join[1]))
    return [(what, shares) for _, _, what, shares in found[:3]]


def shown_shares(shares: Shares) -> str:
    """Return "60 % through a, 40 % through b", with at most three names."""
    text = ", ".join(f"{percent(round(share, 3))} through {name}" for share, name in shares[:3])
    rest = sum(share for share, _ in shares[3:])
    return text + (f", {percent(round(rest, 3))} through {plural(len(shares) - 3, 'other')}" if shares[3:] else "")
