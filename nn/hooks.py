"""Hooks: functions that a module calls before and after its ``forward``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from nn.module import Module

__all__ = ["Handle", "Hooks", "call_with_hooks"]

Hooks = dict[int, Callable[..., Any]]  # in order of registration


class Handle:
    """What registering a hook returns: ``remove()`` takes the hook out again, and so does the end of a ``with``."""

    def __init__(self, hooks: Hooks, hook: Callable[..., Any]) -> None:
        if not callable(hook):
            raise TypeError(f"register_hook: a hook must be callable, got {type(hook).__name__}")
        self._hooks: Hooks | None = hooks
        self._number = max(hooks, default=0) + 1
        hooks[self._number] = hook

    def remove(self) -> None:
        """Take the hook out. Doing so twice is no mistake."""
        if self._hooks is not None:
            self._hooks.pop(self._number, None)
        self._hooks = None  # its number may be given to another

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def call_with_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what ``forward`` and then the hooks make of `args`. A hook that returns None changes nothing."""
    for hook in list((module._pre_hooks or {}).values()):  # a list, for a hook may remove itself
        replaced = hook(module, args)
        if replaced is not None:
            args = replaced if isinstance(replaced, tuple) else (replaced,)
    output = module.forward(*args, **kwargs)
    for hook in list((module._hooks or {}).values()):
        replaced = hook(module, args, output)
        if replaced is not None:
            output = replaced
    return output
