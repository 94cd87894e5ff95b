"""An observed backward pass: how much gradient flows along each edge, and the path that carries most of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.backend import namespace_of
from tensorlib.debugging.debug import backward_report
from tensorlib.debugging.ranges import python_number
from tensorlib.debugging.zero_causes import why_zero
from tensorlib.engine.backward import backward_pass
from tensorlib.engine.function import Function
from tensorlib.engine.recording import Watch, recording
from tensorlib.engine.value import edge_of
from tensorlib.tensor import Tensor

__all__ = ["Contribution", "Flow", "Hop", "ObservedPass", "flow_of", "observe_backward", "slot_of"]

Slot: TypeAlias = tuple[int, int]
"""An edge by number: the id of a node or leaf, and the number of the output."""


def slot_of(x: Tensor) -> Slot:
    """Return the slot that the gradient of `x` flows to."""
    return (id(x), 0) if x.node is None else (id(x.node), x.output_index)


class Flow(NamedTuple):
    """The size of one gradient: its Euclidean norm, and the numbers of its elements, zeros, NaN and Inf."""

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
        """The fraction of elements that are 0."""
        return self.zeros / max(self.size, 1)


def flow_of(dx: Array) -> Flow:
    """Return the flow of a gradient. If squares overflow or underflow, its largest element is divided out first."""
    xp = namespace_of(dx)
    dx = dx.astype("float32") if dx.dtype == "float16" else dx
    squares = python_number((dx * dx).sum())
    if 1e-20 < squares < 1e30:
        return Flow(math.sqrt(squares), dx.size, dx.size - python_number(xp.count_nonzero(dx)))
    top = float(python_number(xp.abs(dx).max())) if dx.size else 0.0
    if top == 0:
        return Flow(0.0, dx.size, dx.size)
    zeros = dx.size - python_number(xp.count_nonzero(dx))
    if not math.isfinite(top):
        nans, infs = python_number(xp.isnan(dx).sum()), python_number(xp.isinf(dx).sum())
        return Flow(math.nan if nans else math.inf, dx.size, zeros, nans, infs)
    scaled = dx / top
    return Flow(top * math.sqrt(python_number((scaled * scaled).sum())), dx.size, zeros)


class Contribution(NamedTuple):
    """The part of a gradient that one node adds, as the gradient of its input number `position`."""

    node: Function
    position: int
    flow: Flow


class Hop(NamedTuple):
    """One node on a path: the gradient that arrives at its output, and the one that it passes to input `position`."""

    node: Function
    position: int
    before: Flow
    after: Flow


class ObservedPass(Watch):
    """Measures all gradients of a backward pass. Hooks are not called: they may have effects outside the pass.

    Attributes:
        contributions: by slot, the contributions whose sum is the gradient of this output or leaf.
        total: by slot, the flow of this sum.
        remarks: by node and input, why the gradient that the node passes to the input became zero or not finite.
    """

    runs_hooks = False

    def __init__(self) -> None:
        self.contributions: dict[Slot, list[Contribution]] = {}
        self.total: dict[Slot, Flow] = {}
        self.remarks: dict[tuple[int, int], str] = {}

    def backward(self, node: Function, dys: Sequence[Any], dxs: Sequence[Any]) -> None:
        """Measure the gradients before and after `node`, and note a remark for each that becomes zero or not finite."""
        for k, dy in enumerate(dys):
            parts = self.contributions.get((id(node), k), [])
            self.total[id(node), k] = parts[0].flow if len(parts) == 1 else flow_of(dy)
        incoming = self.incoming(node)
        alive, finite = not all(f.is_zero for f in incoming), all(f.is_finite for f in incoming)
        for i, (edge, dx) in enumerate(zip(node.edges or (), dxs, strict=True)):
            if edge is None or dx is None:
                continue
            flow = flow_of(dx)
            self.contributions.setdefault((id(edge[0]), edge[1]), []).append(Contribution(node, i, flow))
            if flow.is_zero and alive:
                self.remarks[id(node), i] = why_zero(node, i, dys)
            elif finite and not flow.is_finite:
                self.remarks[id(node), i] = backward_report(node, dys, i, dx)

    def incoming(self, node: Function) -> list[Flow]:
        """Return the gradient of each output of `node` that has one."""
        return [self.total[id(node), k] for k in range(len(node.output_types)) if (id(node), k) in self.total]

    def largest_path(self, slot: Slot) -> list[Hop]:
        """Return the path from the loss that carries most of the gradient of `slot`.

        It is found backwards from `slot`, by following the largest contribution to each gradient.
        """
        hops = []
        while self.contributions.get(slot):
            best = max(self.contributions[slot], key=lambda part: _size(part.flow))
            slots = [(id(best.node), k) for k in range(len(best.node.output_types))]
            slot = max(slots, key=lambda s: _size(self.total[s]))
            hops.append(Hop(best.node, best.position, self.total[slot], best.flow))
        return hops[::-1]

    def causes(self, slot: Slot, bad: Callable[[Flow], bool], every: bool) -> Iterator[Contribution | Slot]:
        """Yield the causes of a `bad` gradient of `slot`: one that is zero if `every` is True, otherwise not finite.

        A cause is a contribution that is bad although no gradient of its node's outputs is (for zeros: not all are), or
        a slot that is bad although no contribution to it is (for zeros: not all are): they cancel or overflow.
        """
        stack, seen = [slot], {slot}
        while stack:
            slot = stack.pop()
            bad_parts = [part for part in self.contributions.get(slot, []) if bad(part.flow)]
            if not bad_parts or (every and len(bad_parts) < len(self.contributions[slot])):
                yield slot
                continue
            for part in bad_parts:
                if not (all if every else any)(bad(f) for f in self.incoming(part.node)):
                    yield part
                    continue
                for k in range(len(part.node.output_types)):
                    output = (id(part.node), k)
                    if output not in seen and output in self.contributions and bad(self.total[output]):
                        seen.add(output)
                        stack.append(output)


def _size(flow: Flow) -> float:
    return math.inf if math.isnan(flow.norm) else flow.norm


def observe_backward(loss: Tensor, target: Tensor) -> tuple[ObservedPass, Flow | None]:
    """Return an observed backward pass, which changes nothing, and the flow at `target`, None without a gradient."""
    observed = ObservedPass()
    seed = loss.backend.xp.ones(loss.shape, loss.dtype)
    with np.errstate(all="ignore"), recording(record=False, watch=observed, tape=None):
        found, _ = backward_pass([loss], [seed], [target], retain_graph=True, create_graph=False)
        dx = found.get(edge_of(target))
        if dx is None:
            return observed, None
        observed.total[slot_of(target)] = flow = flow_of(dx)
        return observed, flow
