"""The gradients of a running backward pass: their sums, their hooks, and the results for the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensorlib.arrays.backend import backend_of
from tensorlib.engine.function import Function
from tensorlib.engine.node import Edge
from tensorlib.engine.recording import Watch, recording
from tensorlib.engine.value import Value, as_array, as_value, edge_of, wrap
from tensorlib.messages import shown

__all__ = ["Gradients"]


class Gradients:
    """One sum of gradients per (node, output) and per leaf, and the finished gradients that are requested.

    `wanted` is the set of requested edges; None requests all leaves, and all Tensors that called ``retain_grad``.

    Attributes:
        sums: the sum of the contributions so far, by edge.
        owned: edges whose sum this pass allocated and may therefore add to in place.
        fresh: edges to leaves whose only contribution shares its memory with no other array.
        found: the finished gradients that were requested, by edge.
        reached: the leaves and gradient-retaining Tensors that this pass reached, by id.
    """

    def __init__(self, create_graph: bool, wanted: set[Edge] | None, runs_hooks: bool) -> None:
        self.create_graph, self.wanted, self.runs_hooks = create_graph, wanted, runs_hooks
        self.sums: dict[Edge, Any] = {}
        self.owned: set[Edge] = set()
        self.fresh: set[Edge] = set()
        self.found: dict[Edge, Any] = {}
        self.reached: dict[int, Value] = {}

    def start(self, outputs: Sequence[Value], seeds: Sequence[Any]) -> None:
        """Add `seeds`, the gradients of `outputs` that the caller gave."""
        for y, seed in zip(outputs, seeds, strict=True):
            self.add(edge_of(y), seed)
            if y.node is None:
                self.reached[id(y)] = y

    def add(self, edge: Edge, dx: Any) -> None:
        """Add a contribution. The second allocates; later ones are added in place, except under create_graph."""
        if edge not in self.sums:
            self.sums[edge] = dx
        elif edge in self.owned:
            self.sums[edge] += dx
        else:
            self.sums[edge] = self.sums[edge] + dx
            self.fresh.discard(edge)
            if not self.create_graph:
                self.owned.add(edge)

    def reach(self, leaf: Value, fresh: bool) -> None:
        """Record that a leaf is about to get a contribution, and whether that is `fresh` (see `Function`)."""
        self.reached[id(leaf)] = leaf
        if fresh and not self.create_graph and (leaf, 0) not in self.sums:
            self.fresh.add((leaf, 0))

    def finish(self, node: Function) -> None:
        """Call the hooks on the complete gradients of a node's outputs, and keep those that are requested."""
        if node.gradient_hooks and self.runs_hooks:
            for k, hooks in list(node.gradient_hooks.items()):
                self.call_hooks((node, k), hooks)
        if self.wanted is not None:
            for edge in self.wanted.intersection([(node, k) for k in range(len(node.output_types))]):
                self.keep(edge)
        elif node.retained:
            for k, reference in list(node.retained.items()):
                if (y := reference()) is not None and (node, k) in self.sums:
                    self.keep((node, k))
                    self.reached[id(y)] = y

    def finish_leaves(self, watch: Watch | None) -> None:
        """Call the hooks on the gradients of leaves, and keep those that are requested, after all nodes have run."""
        for leaf in [x for x in self.reached.values() if x.node is None]:
            edge = edge_of(leaf)
            if self.wanted is None or edge in self.wanted:
                if self.runs_hooks and (hooks := getattr(leaf, "hooks", None)):
                    self.call_hooks(edge, hooks)
                if watch is not None:
                    watch.arrived(leaf, self.sums[edge])
                self.keep(edge)

    def keep(self, edge: Edge) -> None:
        """Store a gradient, if it exists, for the caller; copy it if it may share memory with another array."""
        if edge in self.sums:
            unshared = edge in self.owned or edge in self.fresh
            self.found[edge] = as_array(self.sums[edge] if unshared else self.sums[edge].copy())

    def call_hooks(self, edge: Edge, hooks: Mapping[int, Any]) -> None:
        """Pass a finished gradient to each hook in the order of registration; a hook may return or set another."""
        if edge not in self.sums:
            return
        for hook in list(hooks.values()):
            dx = self.sums[edge]
            owned = dx if edge in self.owned else dx.copy()  # the hook may write to it, as by dx.data *= 2
            given: Any = owned if isinstance(dx, Value) else wrap(as_array(owned))
            with recording(record=self.create_graph, changeable=given):
                changed = hook(given)
            self.sums[edge] = _replacement(hook, given if changed is None else changed, dx, self.create_graph)
            self.owned.discard(edge)  # the hook may have kept the gradient that it got or returned
            self.fresh.discard(edge)

    def pop(self, node: Function) -> list[Any] | None:
        """Remove and return the finished gradients of a node's outputs; None if no output has one.

        If only some outputs have a gradient, the gradients of the others are zeros.
        """
        if len(node.output_types) == 1:
            edge: Edge = (node, 0)
            if (dy := self.sums.pop(edge, None)) is None:
                return None
            if self.owned:
                self.owned.discard(edge)
            return [dy]
        return self._pop_several(node)

    def _pop_several(self, node: Function) -> list[Any] | None:
        dys = []
        for k in range(len(node.output_types)):
            dys.append(self.sums.pop((node, k), None))
            self.owned.discard((node, k))
        used = [dy for dy in dys if dy is not None]
        if not used:
            return None
        if len(used) < len(dys):
            zeros = backend_of(used[0].array if isinstance(used[0], Value) else used[0]).xp.zeros
            for k, (shape, dtype) in enumerate(node.output_types):
                if dys[k] is None:
                    dys[k] = wrap(zeros(shape, dtype)) if self.create_graph else zeros(shape, dtype)
        return dys


def _replacement(hook: Any, changed: Any, dx: Any, create_graph: bool) -> Any:
    """Return the gradient that a hook returned in place of `dx`, after checking its shape and backend."""
    like = dx if isinstance(dx, Value) else wrap(dx)
    name = getattr(hook, "__name__", type(hook).__name__)
    wanted = f"register_hook: {name} must return None or a gradient of shape {like.shape} on {like.backend.name}, got"
    try:
        changed = as_value(changed, like)
    except (TypeError, ValueError):
        raise TypeError(f"{wanted} {shown(changed)}") from None
    if changed.shape != like.shape or changed.backend is not like.backend:
        raise ValueError(f"{wanted} {changed.shape} on {changed.backend.name}")
    changed = changed if changed.dtype == like.dtype else changed.astype(like.dtype)
    return changed if create_graph else changed.array
