"""Repeats: equal consecutive steps of a recorded graph, as a loop or a stack of layers records them.

An item is a visible op or a folded module, in the order of recording. A step is `period` consecutive items. Two steps
are equal if their items have the same ops, modules and shapes, in the same order, and if each input comes from the same
item of the own step, from the item one step before the other's, or from outside the run.
"""

from __future__ import annotations

import functools
import operator
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tensorlib.graphs.graph import Graph, GraphNode, GraphValue

__all__ = ["FEWEST", "Repeat", "find_repeats", "without_digits"]

FEWEST = 5  # equal steps that are folded: the first and the last stay visible, as long as there are three between them

_LAGS = 16  # how many later items of its kind an item is compared with: more than a loop's body has
_PERIODS = 256  # the most frequent distances that are tried as periods; each costs one pass over the items


@dataclass(frozen=True, slots=True)
class Repeat:
    """The steps between the first and the last of a run, or the leaves between the first and the last of equal ones."""

    key: str  # of its box
    steps: int = field(compare=False)
    nodes: tuple[GraphNode, ...] = field(default=(), compare=False, repr=False)

    @property
    def ops(self) -> list[str]:
        """The ops of one step."""
        return [node.op for node in self.nodes[: len(self.nodes) // self.steps]]


class _Item(NamedTuple):
    nodes: list[GraphNode]
    sources: list[int | None]  # for each input from outside the item: the item that computes it, None for a leaf


class Run(NamedTuple):
    """Equal consecutive steps: the items from `start` to `stop`, `period` of them a step."""

    start: int
    stop: int
    period: int

    @property
    def steps(self) -> int:
        """The number of steps."""
        return (self.stop - self.start) // self.period

    @property
    def folded(self) -> range:
        """The items that folding the run hides: those of all steps but the first and the last."""
        return range(self.start + self.period, self.start + (self.steps - 1) * self.period)


def find_repeats(
    graph: Graph, calls: Sequence[tuple[Hashable, ...]], depth: int, *, same_shapes: bool = True
) -> list[Repeat]:
    """Return the runs of at least `FEWEST` equal steps, largest first; none overlaps another.

    `calls` are the module calls around each node, of which the first `depth` are open. Without `same_shapes`, the sizes
    of axes may differ between steps, as in a loop that lengthens a sequence.
    """
    items = _items(graph, calls, depth)
    found = []
    for run in _runs_of(items, calls, same_shapes, FEWEST):
        nodes = tuple([node for item in run.folded for node in items[item].nodes])
        found.append(Repeat(f"r{nodes[0].number}", run.steps - 2, nodes))
    return found


def find_runs(
    graph: Graph, calls: Sequence[tuple[Hashable, ...]], depth: int, *, same_shapes: bool, fewest: int
) -> list[Run]:
    """Return the runs of at least `fewest` equal steps, as `find_repeats` does; of open modules, items are nodes."""
    return _runs_of(_items(graph, calls, depth), calls, same_shapes, fewest)


def _runs_of(
    items: Sequence[_Item], calls: Sequence[tuple[Hashable, ...]], same_shapes: bool, fewest: int
) -> list[Run]:
    number_of: dict[Hashable, int] = {}
    kinds = np.array([number_of.setdefault(_kind(item, same_shapes), len(number_of)) for item in items], dtype=np.int64)
    periods = _periods(kinds.tolist(), fewest)
    runs = [run for period in periods for run in _runs(items, kinds, period, fewest)]
    around = [calls[item.nodes[0].number] for item in items]
    return _chosen(runs, [0, *map(_shared, around, around[1:])], fewest)


def _items(graph: Graph, calls: Sequence[tuple[Hashable, ...]], depth: int) -> list[_Item]:
    items: list[_Item] = []
    number_of: dict[Hashable, int] = {}
    item_of: list[int] = []
    for node in graph.nodes:
        key = calls[node.number][depth] if len(calls[node.number]) > depth else node.number
        if key not in number_of:
            number_of[key] = len(items)
            items.append(_Item([], []))
        item_of.append(number_of[key])
        item = items[number_of[key]]
        item.nodes.append(node)
        sources = [None if ref.node is None else item_of[ref.node] for ref in node.inputs]
        item.sources.extend([source for source in sources if source != number_of[key]])
    return items


def _kind(item: _Item, same_shapes: bool) -> Hashable:
    """Return what equal steps have in common at this item."""

    def shown(value: GraphValue) -> Hashable:
        return value if same_shapes else (len(value.shape), value.dtype)

    return tuple(
        [
            (node.op, without_digits(node.path), *map(shown, node.outputs), *[shown(ref.value) for ref in node.inputs])
            for node in item.nodes
        ]
    )


@functools.lru_cache(maxsize=4096)
def without_digits(name: str) -> str:
    """Return a name in which numbers do not count: "layers.0.norm" and "layers.11.norm" are the same layer."""
    return re.sub(r"\d+", "#", name)


def _shared(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Return how many module calls two neighbors have in common."""
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


# ---- runs ------------------------------------------------------------------------------------------------------------


def _periods(kinds: Sequence[int], fewest: int) -> list[int]:
    """Return the distances between items of one kind that occur often enough to be a run's period."""
    places: dict[int, list[int]] = {}
    for place, kind in enumerate(kinds):
        places.setdefault(kind, []).append(place)
    votes: Counter[int] = Counter()
    for of_kind in places.values():
        for lag in range(1, _LAGS + 1):
            votes.update(map(operator.sub, of_kind[lag:], of_kind))
    return [period for period, n in votes.most_common(_PERIODS) if n >= fewest - 1]


def _runs(items: Sequence[_Item], kinds: np.ndarray, period: int, fewest: int) -> Iterator[Run]:
    """Yield the longest runs of at least `fewest` steps of this period."""
    same = np.concatenate([[False], kinds[:-period] == kinds[period:], [False]])
    starts, stops = np.flatnonzero(np.diff(same.astype(np.int8))).reshape(-1, 2).T.tolist()
    for start, stop in zip(starts, stops, strict=True):
        if stop - start < (fewest - 1) * period:
            continue
        for n in range(start, stop):
            if not _continues(items[n].sources, items[n + period].sources, start, period, n < start + period):
                yield Run(start, n + period, period)
                start = n + 1
        yield Run(start, stop + period, period)


def _continues(now: list[int | None], then: list[int | None], start: int, period: int, is_first: bool) -> bool:
    """Return whether the item one step later takes its inputs from where a loop would."""
    if len(now) != len(then):
        return False
    for a, b in zip(now, then, strict=True):
        if a is not None and b is not None and b - a == period:
            continue
        a_is_outside, b_is_outside = a is None or a < start, b is None or b < start
        if not (a_is_outside and (b_is_outside or is_first)):  # the first step takes its state from outside
            return False
    return True


def _chosen(runs: list[Run], shared: Sequence[int], fewest: int) -> list[Run]:
    """Choose the run that hides most items, then the best ones in what remains visible."""
    chosen: list[Run] = []
    pending = [(0, len(shared), runs)]
    while pending:
        low, high, runs = pending.pop()
        runs = [Run(max(run.start, low), min(run.stop, high), run.period) for run in runs]
        runs = [run for run in runs if run.steps >= fewest]
        if runs:
            best = max(runs, key=lambda run: (len(_hidden(run, fewest)), -run.period))
            best = _aligned(best, shared, fewest)
            chosen.append(best)
            hidden = _hidden(best, fewest)
            pending += [(low, hidden.start, runs), (hidden.stop, high, runs)]
    return chosen


def _hidden(run: Run, fewest: int) -> range:
    """Return the items that are not searched again: of `FEWEST` steps or more, the first and the last stay visible."""
    return run.folded if fewest == FEWEST else range(run.start, run.start + run.steps * run.period)


def _aligned(run: Run, shared: Sequence[int], fewest: int) -> Run:
    """Let the steps begin where the fewest modules are cut apart, if enough steps remain."""
    latest = run.stop - fewest * run.period
    start = min(range(run.start, min(run.start + run.period - 1, latest) + 1), key=lambda n: (shared[n], n))
    return Run(start, run.stop, run.period)
