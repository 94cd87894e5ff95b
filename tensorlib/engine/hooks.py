"""Hooks on gradients, and keeping the gradients of Tensors that are not leaves."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__ = ["HookHandle"]


class HookHandle:
    """A handle that removes a hook, by ``remove()`` or at the end of a ``with`` block.

    >>> x = tl.Tensor(3.0, requires_grad=True)
    >>> with x.register_hook(lambda dx: 10 * dx):
    ...     (x * x).backward()
    >>> x.grad.item()
    60.0
    """

    _numbers = count()  # a hook's number identifies it, and does not change when others are removed

    def __init__(self, hooks: dict[int, Any], hook: Any) -> None:
        self._hooks, self._number = hooks, next(HookHandle._numbers)
        while self._number in hooks:  # taken by a hook that was copied from another process
            self._number = next(HookHandle._numbers)
        hooks[self._number] = hook

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        self._hooks.pop(self._number, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()


def register_hook(x: Tensor, hook: Callable[[Tensor], Any]) -> HookHandle:
    """Call ``hook(gradient)`` whenever a backward pass has finished the gradient with respect to `x`.

    The gradient is the sum over all uses of x. If the hook returns a value other than None, this value replaces the
    gradient: in the rest of the pass, in ``.grad`` and in the result of `grad`. So does an assignment such as
    ``g *= 2`` to the gradient that the hook got. Hooks are called in the order of their registration. In a pass with
    create_graph they get, and may return, a Tensor with history. The returned handle removes the hook.

    Raises RuntimeError if x does not require a gradient, TypeError if the hook is not callable.

    >>> x = tl.Tensor(3.0, requires_grad=True)
    >>> handle = x.register_hook(lambda dx: dx.clip(-1, 1))
    >>> (x * x).backward()
    >>> x.grad.item()
    1.0
    """
    if not x.requires_grad:
        raise RuntimeError(
            f"register_hook: the Tensor must require a gradient, but this one of shape {x.shape} does not; "
            "set requires_grad=True, or register the hook on a Tensor that it was computed from"
        )
    if not callable(hook):
        raise TypeError(f"register_hook: a function of the gradient is required, got {type(hook).__name__}")
    if x.node is not None:
        if x.node.gradient_hooks is None:
            x.node.gradient_hooks = {}
        return HookHandle(x.node.gradient_hooks.setdefault(x.output_index, {}), hook)
    hooks = getattr(x, "hooks", None)
    if hooks is None:
        hooks = x.hooks = {}
    return HookHandle(hooks, hook)


def retain_grad(x: Tensor) -> None:
    """Make ``backward()`` add to ``x.grad`` although `x` is not a leaf, as long as this Tensor exists.

    >>> x = tl.Tensor(3.0, requires_grad=True)
    >>> y = x * x
    >>> y.retain_grad()
    >>> (2 * y).backward()
    >>> y.grad.item()
    2.0
    """
    if not x.requires_grad:
        raise RuntimeError(f"retain_grad: this Tensor of shape {x.shape} does not require a gradient, so it gets none")
    if x.node is not None:
        if x.node.retained is None:
            x.node.retained = {}
        x.node.retained[x.output_index] = weakref.ref(x)
