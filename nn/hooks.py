"""Hooks: functions that a module calls before and after its ``forward``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import tensorlib as tl
from tensorlib.messages import kind_of

if TYPE_CHECKING:
    from nn.module import Module

__all__ = ["ForwardHook", "ForwardPreHook", "Hooks", "call_with_hooks"]

ForwardPreHook: TypeAlias = "Callable[[Module, tuple[Any, ...]], Any]"  # (module, args) -> new args or None
ForwardHook: TypeAlias = "Callable[[Module, tuple[Any, ...], Any], Any]"  # (module, args, output) -> output or None
Hooks: TypeAlias = dict[int, Callable[..., Any]]  # by number, in order of registration


def call_with_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the pre-hooks, ``forward`` and the hooks of `module`; a hook that returns None changes nothing.

    Raises TypeError if a hook replaces an output that is a Tensor by a value that is not.
    """
    for pre_hook in list((module._pre_hooks or {}).values()):  # a copy, because a hook may remove itself
        replaced = pre_hook(module, args)
        if replaced is not None:
            args = replaced if isinstance(replaced, tuple) else (replaced,)
    output = module.forward(*args, **kwargs)
    for hook in list((module._hooks or {}).values()):
        replaced = hook(module, args, output)
        if replaced is not None:
            if isinstance(output, tl.Tensor) and not isinstance(replaced, tl.Tensor):
                raise TypeError(
                    f"{module.label()}: a forward hook must return None or a Tensor in place of the output, got "
                    f"{kind_of(replaced)}, which would cut off the gradient"
                )
            output = replaced
    return output
