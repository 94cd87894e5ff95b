"""Observing the gradients of a recorded graph, in a backward pass that changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.engine.backward import backward_pass
from tensorlib.engine.function import Function
from tensorlib.engine.recording import Watch, recording
from tensorlib.engine.value import Value
from tensorlib.graphs.replay import Slot
from tensorlib.tensor import Tensor

__all__ = ["Delivery", "GradientStep", "backward_under", "observe_gradients"]


class Delivery(NamedTuple):
    """One contribution to a gradient: `dx`, and `total`, the sum of it and all contributions before it.

    Both are what `observe_gradients` was told to keep of the arrays.
    """

    dx: Any
    total: Any


class GradientStep(NamedTuple):
    """One node's part of a backward pass: the gradients of its outputs, and what it delivers to each input."""

    node: Function
    dys: list[Any]
    deliveries: list[Delivery | None]


class _Gradients(Watch):
    """Keeps the gradients of a backward pass in the order in which the engine computes them. Calls no hooks."""

    runs_hooks = False

    def __init__(self, keep: Callable[[Any], Any]) -> None:
        self.keep = keep  # the arrays may be added to in place later, so something must be kept of them at once
        self.steps: list[GradientStep] = []
        self.of_leaf: dict[int, Any] = {}
        self.sums: dict[Slot, Array] = {}

    def backward(self, node: Function, dys: Sequence[Any], dxs: Sequence[Any]) -> None:
        for k in range(len(dys)):
            self.sums.pop((id(node), k), None)
        deliveries: list[Delivery | None] = []
        for edge, dx in zip(node.edges or (), dxs, strict=True):
            known = edge is not None and dx is not None
            deliveries.append(self.deliver((id(edge[0]), edge[1]), dx) if known and edge else None)
        self.steps.append(GradientStep(node, [self.keep(dy) for dy in dys], deliveries))

    def deliver(self, slot: Slot, dx: Array) -> Delivery:
        self.sums[slot] = self.sums[slot] + dx if slot in self.sums else dx
        return Delivery(self.keep(dx), self.keep(self.sums[slot]))

    def arrived(self, leaf: Value, dx: Any) -> None:
        self.of_leaf[id(leaf)] = self.keep(dx)


def observe_gradients(
    outputs: Sequence[Tensor], nodes: Sequence[Function], keep: Callable[[Any], Any]
) -> tuple[list[Delivery], list[GradientStep], dict[int, Any]]:
    """Run a backward pass from `outputs` that changes neither ``.grad`` nor the graph, and calls no hooks.

    It starts with ones: for an output that is not a scalar, this gives the gradients of its sum. `nodes` are those that
    computed `outputs`. ``keep(array)`` returns what to remember of an array: not the array itself, to which the pass
    may write later.

    Returns what the pass starts with, a delivery for each output; the steps, in the engine's order; and what is kept of
    each leaf's gradient, by id of the leaf.
    """
    watch, slots = _Gradients(keep), [(id(y), 0) if y.node is None else (id(y.node), y.output_index) for y in outputs]
    begun = [watch.deliver(slot, seed) for slot, seed in zip(slots, _seeds(outputs), strict=True)]
    backward_under(outputs, nodes, watch)
    return begun, watch.steps, watch.of_leaf


def backward_under(outputs: Sequence[Tensor], nodes: Sequence[Function], watch: Watch) -> None:
    """Run a backward pass from the sum of all outputs, observed by `watch`; it changes neither ``.grad`` nor the graph.

    `nodes` are those that computed `outputs`.
    """
    with np.errstate(all="ignore"), _checkpoints_kept(nodes), recording(record=False, watch=watch, tape=None):
        backward_pass(outputs, _seeds(outputs), None, retain_graph=True, create_graph=False)


def _seeds(outputs: Sequence[Tensor]) -> list[Array]:
    return [y.backend.xp.ones(y.shape, y.dtype) for y in outputs]


@contextmanager
def _checkpoints_kept(nodes: Sequence[Function]) -> Iterator[None]:
    """Afterwards, drop the arrays again that a checkpoint computed for the backward pass."""
    before = [(node, node.saved, node.statistics, node.region) for node in nodes if node.region is not None]
    try:
        yield
    finally:
        for node, saved, statistics, region in before:
            node.saved, node.statistics, node.region = saved, statistics, region
