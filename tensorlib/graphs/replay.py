"""What a recorded graph computed: its values, run again from what the nodes kept, and its gradients as they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.sharing import read_only
from tensorlib.engine.backward import backward_pass
from tensorlib.engine.function import Function
from tensorlib.engine.recording import Watch, recording
from tensorlib.engine.value import Value
from tensorlib.tensor import Tensor

__all__ = ["Delivery", "GradientStep", "Slot", "observe_gradients", "recorded_values"]

Slot: TypeAlias = tuple[int, int]
"""A value by number: the id of its node or leaf, and the number of the output."""


def recorded_values(nodes: Sequence[Function], operation: str) -> dict[Slot, Array]:
    """Return each output of `nodes`, which must be sorted oldest first and hold all nodes below them.

    An output that a node saved for the backward pass is taken from there; others are computed again, in the precision
    of the first time. Nothing is recorded and no node is changed.

    Raises RuntimeError, which names `operation`, for an op that cannot run again with the same shapes.
    """
    values = _saved_values(nodes)
    for node in nodes:
        slots = [(id(node), k) for k in range(len(node.output_types))]
        if not all(slot in values for slot in slots):
            for slot, array in zip(slots, _outputs_again(node, values, operation), strict=True):
                values.setdefault(slot, array)
    return values


def inputs_of(node: Function, values: dict[Slot, Array]) -> list[Any]:
    """Return the arguments of the node's `forward`: arrays, and Python numbers where it got numbers."""
    inputs: list[Any] = []
    for edge, (given, _) in zip(node.edges or (), node.input_types, strict=True):
        if edge is None:
            inputs.append(given)
        else:
            inputs.append(edge[0].array if isinstance(edge[0], Value) else values[id(edge[0]), edge[1]])
    return inputs


def _saved_values(nodes: Sequence[Function]) -> dict[Slot, Array]:
    """Return the outputs that some node holds, as its own output or as its input."""
    values: dict[Slot, Array] = {}
    for node in nodes:
        for role, array in node.saved_by_role():
            edge = (node, -1 - role) if role < 0 else (node.edges or ())[role]
            if edge is not None and isinstance(edge[0], Function):
                values[id(edge[0]), edge[1]] = array
    return values


def _outputs_again(node: Function, values: dict[Slot, Array], operation: str) -> tuple[Array, ...]:
    arrays = [read_only(x) for x in inputs_of(node, values)]
    try:
        with np.errstate(all="ignore"), recording(record=False, watch=None, tape=None, precision=node.precision):
            outputs = type(node).run(*arrays, **(node.attributes or {}))
    except Exception as error:
        raise RuntimeError(f"{operation}: the op {node.name} could not be run again: {error}") from error
    outputs = tuple(outputs) if isinstance(outputs, tuple) else (outputs,)
    for y, (shape, _) in zip(outputs, node.output_types, strict=False):
        if np.shape(y) != tuple(shape):
            raise RuntimeError(
                f"{operation}: the op {node.name}, run again, must give shape {tuple(shape)}, got {np.shape(y)}; "
                "its forward must depend on its arguments alone"
            )
    return outputs


# ---- gradients ---------------------------------------------------------------------------------------------------


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
    watch = _Gradients(keep)
    seeds = [y.backend.xp.ones(y.shape, y.dtype) for y in outputs]
    slots = [(id(y), 0) if y.node is None else (id(y.node), y.output_index) for y in outputs]
    begun = [watch.deliver(slot, seed) for slot, seed in zip(slots, seeds, strict=True)]
    with np.errstate(all="ignore"), _checkpoints_kept(nodes), recording(record=False, watch=watch, tape=None):
        backward_pass(outputs, seeds, None, retain_graph=True, create_graph=False)
    return begun, watch.steps, watch.of_leaf


@contextmanager
def _checkpoints_kept(nodes: Sequence[Function]) -> Iterator[None]:
    """Afterwards, drop the arrays again that a checkpoint computed for the backward pass."""
    before = [(node, node.saved, node.statistics, node.region) for node in nodes if node.region is not None]
    try:
        yield
    finally:
        for node, saved, statistics, region in before:
            node.saved, node.statistics, node.region = saved, statistics, region
