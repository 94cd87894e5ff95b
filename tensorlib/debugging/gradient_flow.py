"""A backward pass that is watched: how much gradient flows along each edge, and along which way most of it comes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorlib.arrays.backend import namespace_of
from tensorlib.debugging.debug import backward_report
from tensorlib.debugging.ranges import number
from tensorlib.debugging.zero_causes import why_zero
from tensorlib.engine.backward import backward_pass
from tensorlib.engine.function import Function
from tensorlib.engine.recording import Watch, recording
from tensorlib.engine.value import edge_of
from tensorlib.tensor import Tensor

__all__ = ["Contribution", "Flow", "Flows", "Hop", "flow_of", "measure", "slot_of"]

Slot = tuple[int, int]  # an edge that can be compared: the id of a node or leaf, and the number of the output


def slot_of(x: Tensor) -> Slot:
    """Return the slot that the gradient of `x` flows to."""
    return (id(x), 0) if x.node is None else (id(x.node), x.output_index)


class Flow(NamedTuple):
    """What is in one gradient: its Euclidean norm, how many elements it has, how many of them are 0, NaN, infinite."""

    norm: float
    size: int
    zeros: int = 0
    nans: int = 0
    infs: int = 0

    @property
    def is_zero(self) -> bool:
        """Whether every element is 0."""
        return self.zeros == self.size

    @property
    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        return not self.nans and not self.infs

    @property
    def share_of_zeros(self) -> float:
        """Which part of the elements is 0."""
        return self.zeros / max(self.size, 1)


def flow_of(dx: Any) -> Flow:
    """Measure a gradient. Where its squares overflow or underflow, they are taken of it divided by its largest."""
    xp = namespace_of(dx)
    dx = dx.astype("float32") if dx.dtype == "float16" else dx
    squares = number((dx * dx).sum())
    if 1e-20 < squares < 1e30:
        return Flow(math.sqrt(squares), dx.size, dx.size - number(xp.count_nonzero(dx)))
    top = float(number(xp.abs(dx).max())) if dx.size else 0.0
    if top == 0:
        return Flow(0.0, dx.size, dx.size)
    zeros = dx.size - number(xp.count_nonzero(dx))
    if not math.isfinite(top):
        nans, infs = number(xp.isnan(dx).sum()), number(xp.isinf(dx).sum())
        return Flow(math.nan if nans else math.inf, dx.size, zeros, nans, infs)
    scaled = dx / top
    return Flow(top * math.sqrt(number((scaled * scaled).sum())), dx.size, zeros)


class Contribution(NamedTuple):
    """What one node gives to the gradient of its input number `position`."""

    node: Function
    position: int
    flow: Flow


class Hop(NamedTuple):
    """One node on a way: the gradient that arrives at its output, what it passes on, and to which input."""

    node: Function
    position: int
    before: Flow
    after: Flow


class Flows(Watch):
    """Collects, while a backward pass runs, what flows where. Calls no hooks: they are for real passes."""

    runs_hooks = False

    def __init__(self) -> None:
        self.into: dict[Slot, list[Contribution]] = {}  # what is summed to the gradient of this output or leaf
        self.total: dict[Slot, Flow] = {}
        self.remarks: dict[tuple[int, int], str] = {}  # by node and input: why a gradient ends or is spoiled here

    def backward(self, node: Function, dys: Sequence[Any], dxs: Sequence[Any]) -> None:
        """Measure what arrived at `node` and what it passes on; where a gradient ends or is spoiled, ask why."""
        for k, dy in enumerate(dys):
            given = self.into.get((id(node), k), [])
            self.total[id(node), k] = given[0].flow if len(given) == 1 else flow_of(dy)
        arriving = self.arriving(node)
        alive, finite = not all(f.is_zero for f in arriving), all(f.is_finite for f in arriving)
        for i, (edge, dx) in enumerate(zip(node.edges or (), dxs, strict=True)):
            if edge is None or dx is None:
                continue
            flow = flow_of(dx)
            self.into.setdefault((id(edge[0]), edge[1]), []).append(Contribution(node, i, flow))
            if flow.is_zero and alive:
                self.remarks[id(node), i] = why_zero(node, i, dys)
            elif finite and not flow.is_finite:
                self.remarks[id(node), i] = backward_report(node, dys, i, dx)

    def arriving(self, node: Function) -> list[Flow]:
        """Return what arrives at each output of `node`."""
        return [self.total[id(node), k] for k in range(len(node.output_types)) if (id(node), k) in self.total]

    def way(self, slot: Slot) -> list[Hop]:
        """Return the way on which most of the gradient of `slot` comes, from the loss on.

        Walked backwards: of all contributions to a gradient, the largest.
        """
        hops = []
        while self.into.get(slot):
            best = max(self.into[slot], key=lambda c: math.inf if math.isnan(c.flow.norm) else c.flow.norm)
            slots = [(id(best.node), k) for k in range(len(best.node.output_types))]
            slot = max(slots, key=lambda s: _order(self.total[s]))
            hops.append(Hop(best.node, best.position, self.total[slot], best.flow))
        return hops[::-1]

    def sources(self, slot: Slot, bad: Callable[[Flow], bool], every: bool) -> Iterator[Contribution | Slot]:
        """Yield where what is `bad` about the gradient of `slot` comes from.

        A contribution that is bad though what arrives at its node is not (not `every` output's, for zeros; no output's
        for NaN), or a slot that is bad though no contribution to it is: they cancel each other out, or overflow.
        """
        stack, seen = [slot], {slot}
        while stack:
            slot = stack.pop()
            guilty = [c for c in self.into.get(slot, []) if bad(c.flow)]
            if not guilty or (every and len(guilty) < len(self.into[slot])):
                yield slot
                continue
            for c in guilty:
                arriving = self.arriving(c.node)
                if not (all if every else any)(bad(f) for f in arriving):
                    yield c
                    continue
                for k in range(len(c.node.output_types)):
                    after = (id(c.node), k)
                    if after not in seen and after in self.into and bad(self.total[after]):
                        seen.add(after)
                        stack.append(after)


def _order(flow: Flow) -> float:
    return math.inf if math.isnan(flow.norm) else flow.norm


def measure(loss: Tensor, target: Tensor) -> tuple[Flows, Flow | None]:
    """Run the backward pass from `loss` to `target`, changing nothing; return what flows, and what arrives, if any."""
    flows = Flows()
    seed = loss.backend.xp.ones(loss.shape, loss.dtype)
    with np.errstate(all="ignore"), recording(record=False, watch=flows, tape=None):
        found, _ = backward_pass([loss], [seed], [target], retain_graph=True, create_graph=False)
        dx = found.get(edge_of(target))
        if dx is None:
            return flows, None
        flows.total[slot_of(target)] = flow = flow_of(dx)
        return flows, flow
