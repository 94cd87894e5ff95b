"""The parts, in the order of their turns, with the seconds that each may take.

Without options the limits add up to less than 7 minutes, together with the time between the end of the tests and READY.
The parts that compare with peers start at the beginning and warm them up while the tests run, because torch.compile
takes about a minute; nothing is timed before all are ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PARTS", "READY", "TOTAL", "Part", "chosen"]

TOTAL = 412  # seconds for everything, without --all
READY = 150  # seconds from the start after which a side that is not ready is given up


@dataclass(frozen=True)
class Part:
    """A part of the run: a function in a process of its own.

    Attributes:
        name: for the command line and the table.
        target: "module:function", called with a `part.Turn`.
        limit: the seconds it may take from its turn on.
        whole: the same with --all.
        early: it starts with the run, and prepares while the first part runs.
        needs: parts that run along, because the figures are compared with theirs.
        extra: it runs only with --all, or if --only names it.
    """

    name: str
    target: str
    limit: float
    whole: float
    early: bool = False
    needs: tuple[str, ...] = ()
    extra: bool = False


PARTS = (
    Part("tests", "gpu.tests:run", 105, 900),
    Part("step", "gpu.step:run", 60, 1500, early=True, needs=("ceilings",)),
    Part("ceilings", "gpu.ceilings:run", 15, 30),
    Part("kernels", "gpu.kernels:run", 40, 120, needs=("ceilings",)),
    Part("decode", "gpu.decode:run", 45, 240, early=True),
    Part("equal", "gpu.equal:run", 35, 120),
    Part("long", "gpu.long:run", 25, 90),
    Part("memory", "gpu.memory:run", 35, 240),
    Part("multi30k", "gpu.multi30k:run", 900, 900, extra=True),
)


def chosen(only: Sequence[str], every: bool, parts: Sequence[Part] = PARTS) -> list[Part]:
    """Return the parts to run: those named and what they need, or all but the extra ones; `every` adds these."""
    if not only:
        return [part for part in parts if every or not part.extra]
    wanted = {*only, *(name for part in parts if part.name in only for name in part.needs)}
    return [part for part in parts if part.name in wanted]
