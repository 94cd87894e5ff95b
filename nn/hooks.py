"""Hooks: functions that a module calls before and after its ``forward``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorlib as tl
from tensorlib.messages import kind_of

if TYPE_CHECKING:
    from nn.module import Module

__all__ = ["Hooks", "call_with_hooks"]

Hooks = dict[int, Callable[..., Any]]  # in order of registration


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
            if isinstance(output, tl.Tensor) and not isinstance(replaced, tl.Tensor):
                raise TypeError(
                    f"{module.label()}: a forward hook must return None or a Tensor in place of the output, got "
                    f"{kind_of(replaced)}; it would cut the gradient off"
                )
            output = replaced
    return output
