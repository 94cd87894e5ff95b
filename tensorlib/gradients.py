"""Gradients on their way through a backward pass: their sums, the hooks on them, and what is handed to the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tensorlib.backend import backend_of
from tensorlib.function import Function, as_array, as_tensor
from tensorlib.recording import Watch

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__ = ["Gradients", "slot_of"]


def slot_of(x: Tensor) -> tuple[int, int]:
    """Return the key under which the gradient of `x` is summed: its node and output number, or the leaf itself."""
    return (id(x), 0) if x._node is None else (id(x._node), x._index)


class Gradients:
    """The gradients on their way, one sum per (node, output) and per leaf; and copies of those that are asked for.

    `wanted` names the slots that are asked for; None stands for leaves, and for Tensors that called ``retain_grad``.
    """

    def __init__(self, create_graph: bool, wanted: set[tuple[int, int]] | None, runs_hooks: bool) -> None:
        self.create_graph, self.wanted, self.runs_hooks = create_graph, wanted, runs_hooks
        self.sums: dict[tuple[int, int], Any] = {}
        self.owned: set[tuple[int, int]] = set()  # sums that this pass allocated and may add to in place
        self.fresh: set[tuple[int, int]] = set()  # leaves whose one contribution shares its memory with nothing
        self.found: dict[tuple[int, int], Any] = {}
        self.reached: dict[int, Tensor] = {}  # leaves and Tensors that retain their gradient, by id

    def start(self, outputs: Sequence[Tensor], seeds: Sequence[Any]) -> None:
        """Put down the gradients that the caller gave."""
        for y, seed in zip(outputs, seeds, strict=True):
            self.add(slot_of(y), seed)
            if y._node is None:
                self.reached[id(y)] = y

    def add(self, key: tuple[int, int], dx: Any) -> None:
        """Add a contribution. The first is kept as it came, the second allocates, later ones add in place."""
        if key not in self.sums:
            self.sums[key] = dx
        elif key in self.owned:
            self.sums[key] += dx
        else:
            self.sums[key] = as_array(self.sums[key] + dx)
            self.fresh.discard(key)
            if not self.create_graph:
                self.owned.add(key)

    def reach(self, leaf: Tensor, fresh: bool) -> None:
        """Note that a leaf is about to get a contribution, and whether that is `fresh`."""
        self.reached[id(leaf)] = leaf
        if fresh and not self.create_graph and (id(leaf), 0) not in self.sums:
            self.fresh.add((id(leaf), 0))

    def finish(self, node: Function) -> None:
        """Call the hooks on the gradients of a node's outputs, all complete now, and keep those that are asked for."""
        if node._hooks and self.runs_hooks:
            for k, hooks in list(node._hooks.items()):
                self.call_hooks((id(node), k), hooks)
        if self.wanted is not None:
            for key in self.wanted.intersection([(id(node), k) for k in range(len(node._outputs))]):
                self.keep(key)
        elif node._retained:
            for k, reference in list(node._retained.items()):
                if (y := reference()) is not None and (id(node), k) in self.sums:
                    self.keep((id(node), k))
                    self.reached[id(y)] = y

    def finish_leaves(self, watch: Watch | None) -> None:
        """Do the same for the leaves, when all nodes are done."""
        for leaf in [x for x in self.reached.values() if x._node is None]:
            slot = slot_of(leaf)
            if self.wanted is None or slot in self.wanted:
                if self.runs_hooks and (hooks := getattr(leaf, "_hooks", None)):
                    self.call_hooks(slot, hooks)
                if watch is not None:
                    watch.arrived(leaf, self.sums[slot])
                self.keep(slot)

    def keep(self, key: tuple[int, int]) -> None:
        """Set a gradient aside, if there is one, to leave the engine: nothing else may share its memory."""
        if key in self.sums:
            unshared = key in self.owned or key in self.fresh
            self.found[key] = self.sums[key] if unshared else self.sums[key].copy()

    def call_hooks(self, key: tuple[int, int], hooks: Mapping[int, Any]) -> None:
        """Give a finished gradient to each hook in the order of registration; it may return another in its place."""
        if key not in self.sums:
            return
        for hook in list(hooks.values()):
            dx = self.sums[key]
            given = dx if isinstance(dx, _tensor.Tensor) else _tensor.wrap(dx)
            changed = hook(given)
            if changed is not None:
                self.sums[key] = _replacement(hook, changed, given, self.create_graph)
            self.owned.discard(key)  # the hook may have kept what it was given, or what it returned
            self.fresh.discard(key)

    def pop(self, node: Function) -> list[Any] | None:
        """Take the finished gradients of a node's outputs, zeros where an output was not used; None if none was."""
        if len(node._outputs) == 1:
            key = (id(node), 0)
            if (dy := self.sums.pop(key, None)) is None:
                return None
            if self.owned:
                self.owned.discard(key)
            return [dy]
        dys, used = [], 0
        for k in range(len(node._outputs)):
            key = (id(node), k)
            dys.append(self.sums.pop(key, None))
            self.owned.discard(key)
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
