"""Gradients on their way through a backward pass: their sums, the hooks on them, and what is handed to the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import backend_of
from tensorlib.engine.function import Function, as_array, as_tensor
from tensorlib.engine.recording import Watch, recording

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__ = ["Gradients", "edge_of"]


Edge = tuple[Any, int]  # a node and the number of one of its outputs, or a leaf and 0: where a gradient flows to


def edge_of(x: Tensor) -> Edge:
    """Return the edge that leads to `x`: the key of its gradient in dicts, which know nodes and leaves by identity."""
    return (x, 0) if x._node is None else (x._node, x._index)


class Gradients:
    """The gradients on their way, one sum per (node, output) and per leaf; and copies of those that are asked for.

    `wanted` names the edges that are asked for; None stands for leaves, and for Tensors that called ``retain_grad``.
    """

    def __init__(self, create_graph: bool, wanted: set[Edge] | None, runs_hooks: bool) -> None:
        self.create_graph, self.wanted, self.runs_hooks = create_graph, wanted, runs_hooks
        self.sums: dict[Edge, Any] = {}
        self.owned: set[Edge] = set()  # sums that this pass allocated and may add to in place
        self.fresh: set[Edge] = set()  # leaves whose one contribution shares its memory with nothing
        self.found: dict[Edge, Any] = {}
        self.reached: dict[int, Tensor] = {}  # leaves and Tensors that retain their gradient, by id

    def start(self, outputs: Sequence[Tensor], seeds: Sequence[Any]) -> None:
        """Put down the gradients that the caller gave."""
        for y, seed in zip(outputs, seeds, strict=True):
            self.add(edge_of(y), seed)
            if y._node is None:
                self.reached[id(y)] = y

    def add(self, edge: Edge, dx: Any) -> None:
        """Add a contribution. The first is kept as it came, the second allocates, later ones add in place."""
        if edge not in self.sums:
            self.sums[edge] = dx
        elif edge in self.owned:
            self.sums[edge] += dx
        else:
            self.sums[edge] = self.sums[edge] + dx
            self.fresh.discard(edge)
            if not self.create_graph:
                self.owned.add(edge)

    def reach(self, leaf: Tensor, fresh: bool) -> None:
        """Note that a leaf is about to get a contribution, and whether that is `fresh`."""
        self.reached[id(leaf)] = leaf
        if fresh and not self.create_graph and (leaf, 0) not in self.sums:
            self.fresh.add((leaf, 0))

    def finish(self, node: Function) -> None:
        """Call the hooks on the gradients of a node's outputs, all complete now, and keep those that are asked for."""
        if node._hooks and self.runs_hooks:
            for k, hooks in list(node._hooks.items()):
                self.call_hooks((node, k), hooks)
        if self.wanted is not None:
            for edge in self.wanted.intersection([(node, k) for k in range(len(node._outputs))]):
                self.keep(edge)
        elif node._retained:
            for k, reference in list(node._retained.items()):
                if (y := reference()) is not None and (node, k) in self.sums:
                    self.keep((node, k))
                    self.reached[id(y)] = y

    def finish_leaves(self, watch: Watch | None) -> None:
        """Do the same for the leaves, when all nodes are done."""
        for leaf in [x for x in self.reached.values() if x._node is None]:
            edge = edge_of(leaf)
            if self.wanted is None or edge in self.wanted:
                if self.runs_hooks and (hooks := getattr(leaf, "_hooks", None)):
                    self.call_hooks(edge, hooks)
                if watch is not None:
                    watch.arrived(leaf, self.sums[edge])
                self.keep(edge)

    def keep(self, edge: Edge) -> None:
        """Set a gradient aside, if there is one, to leave the engine: nothing else may share its memory."""
        if edge in self.sums:
            unshared = edge in self.owned or edge in self.fresh
            self.found[edge] = as_array(self.sums[edge] if unshared else self.sums[edge].copy())

    def call_hooks(self, edge: Edge, hooks: Mapping[int, Any]) -> None:
        """Give a finished gradient to each hook in the order of registration; it may return another in its place."""
        if edge not in self.sums:
            return
        for hook in list(hooks.values()):
            dx = self.sums[edge]
            given = dx if isinstance(dx, _tensor.Tensor) else _tensor.wrap(as_array(dx))
            with recording(record=self.create_graph):
                changed = hook(given)
            if changed is not None:
                self.sums[edge] = _replacement(hook, changed, given, self.create_graph)
            self.owned.discard(edge)  # the hook may have kept what it was given, or what it returned
            self.fresh.discard(edge)

    def pop(self, node: Function) -> list[Any] | None:
        """Take the finished gradients of a node's outputs, zeros where an output was not used; None if none was."""
        if len(node._outputs) == 1:
            edge = (node, 0)
            if (dy := self.sums.pop(edge, None)) is None:
                return None
            if self.owned:
                self.owned.discard(edge)
            return [dy]
        dys, used = [], 0
        for k in range(len(node._outputs)):
            edge = (node, k)
            dys.append(self.sums.pop(edge, None))
            self.owned.discard(edge)
            used += dys[k] is not None
        if 0 < used < len(dys):
            some = next(dy for dy in dys if dy is not None)
            make = backend_of(some._array if isinstance(some, _tensor.Tensor) else some).xp.zeros
            for k, (shape, dtype) in enumerate(node._outputs):
                if dys[k] is None:
                    dys[k] = _tensor.wrap(make(shape, dtype)) if self.create_graph else make(shape, dtype)
        return dys if used else None


def _replacement(hook: Any, changed: Any, dx: Tensor, create_graph: bool) -> Any:
    """Return what a hook wants in place of dx, checked."""
    changed = as_tensor(changed, like=dx)
    if changed.shape != dx.shape or changed.backend is not dx.backend:
        name = getattr(hook, "__name__", type(hook).__name__)
        raise ValueError(
            f"register_hook: {name} must return None or a gradient of shape {dx.shape} on {dx.backend.name}, "
            f"got {changed.shape} on {changed.backend.name}"
        )
    changed = changed if changed.dtype == dx.dtype else changed.astype(dx.dtype)
    return changed if create_graph else changed._array


# Tensor stands on this module, so its own may be imported only when everything above exists.
import tensorlib.tensor as _tensor  # noqa: E402
