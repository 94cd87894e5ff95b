"""Hooks on gradients, and keeping the gradients of Tensors that are no leaves."""

from __future__ import annotations

import weakref
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__ = ["HookHandle"]


class HookHandle:
    """What registering a hook returns: ``remove()`` takes the hook off, and so does leaving a ``with`` block."""

    _numbers = count()  # a hook's number tells it apart from others, and no removal shifts it

    def __init__(self, hooks: dict[int, Any], hook: Any) -> None:
        self._hooks, self._number = hooks, next(HookHandle._numbers)
        while self._number in hooks:  # by one that came with a copy out of another process
            self._number = next(HookHandle._numbers)
        hooks[self._number] = hook

    def remove(self) -> None:
        """Take the hook off; a second time does nothing."""
        self._hooks.pop(self._number, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()


def register_hook(x: Tensor, hook: Any) -> HookHandle:
    """Call ``hook(gradient)`` whenever a backward pass has finished the gradient with respect to `x`.

    The gradient is that of all uses of x together. What the hook returns, unless None, takes its place: further back,
    in ``.grad`` and in what `grad` returns. Hooks are called in the order in which they were registered; in a pass
    with create_graph they get, and may return, a Tensor with history. Remove one by the handle that this returns.
    """
    if not x.requires_grad:
        raise RuntimeError(
            f"register_hook: a Tensor that requires a gradient is required, this one of shape {x.shape} does not; "
            "set requires_grad=True, or register on what it was computed from"
        )
    if not callable(hook):
        raise TypeError(f"register_hook: a function of the gradient is required, got {type(hook).__name__}")
    if x._node is not None:
        if x._node._hooks is None:
            x._node._hooks = {}
        return HookHandle(x._node._hooks.setdefault(x._index, {}), hook)
    hooks = getattr(x, "_hooks", None)
    if hooks is None:
        hooks = x._hooks = {}
    return HookHandle(hooks, hook)


def retain_grad(x: Tensor) -> None:
    """Have ``backward()`` write ``.grad`` of `x`, though x is no leaf. It lasts as long as this Tensor."""
    if not x.requires_grad:
        raise RuntimeError(f"retain_grad: this Tensor of shape {x.shape} does not require a gradient, so it gets none")
    if x._node is not None:
        if x._node._retained is None:
            x._node._retained = {}
        x._node._retained[x._index] = weakref.ref(x)
