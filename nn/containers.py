"""Modules that hold a sequence of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, Self, TypeVar, cast

import tensorlib as tl
from nn.module import Module
from tensorlib.messages import kind_of

__all__ = ["ModuleList", "Sequential"]

M = TypeVar("M", bound=Module)


class ModuleList(Module, Generic[M]):
    """A list of modules, named by their index: "0", "1", ...

    Raises TypeError for an item that is not a module, and IndexError for an index out of range.

    >>> layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
    >>> len(layers), layers[-1] is layers[1]
    (2, True)
    >>> [name for name, _ in layers.named_parameters()]
    ['0.weight', '0.bias', '1.weight', '1.bias']
    """

    def __init__(self, modules: Iterable[M] = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: M) -> Self:
        """Add a module at the end; return self."""
        if not isinstance(module, Module):
            remedy = ""
            if isinstance(module, list | tuple):
                call = f"write {type(self).__name__}(*modules)"
                remedy = f"; {call if isinstance(self, Sequential) else 'append its items one by one'}"
            elif isinstance(module, type):
                remedy = "; call it"
            elif callable(module):
                remedy = "; call functions in the forward of a Module of your own"
            raise TypeError(f"{type(self).__name__}: holds modules, got {kind_of(module)}{remedy}")
        setattr(self, str(len(self)), module)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.named_children())

    def __iter__(self) -> Iterator[M]:
        return (cast("M", child) for _, child in self.named_children())

    def __getitem__(self, index: int) -> M:
        modules = list(self)
        try:
            return modules[index]
        except IndexError:
            message = f"{type(self).__name__}: index {index} is out of range for {len(modules)} modules"
            raise IndexError(message) from None


class Sequential(ModuleList[Module]):
    """Modules called one after another: ``Sequential(a, b)(x)`` is ``b(a(x))``.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8))
    >>> model(tl.zeros((2, 4))).shape
    (2, 8)
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Any) -> tl.Tensor:
        """Return the output of the last module."""
        for module in self:
            x = module(x)
        return x
