"""Arguments and results of a captured step: the arrays in them, and what else distinguishes two calls."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from tensorlib.arrays.backend import is_backend_array
from tensorlib.tensor import Tensor

__all__: list[str] = []


def is_array(x: Any) -> bool:
    """Return whether x is a Tensor or a raw array; NumPy's scalars count as numbers."""
    return isinstance(x, Tensor) or (is_backend_array(x) and not isinstance(x, np.generic))


def mapped(x: Any, change: Callable[[Any], Any]) -> Any:
    """Return x with ``change(array)`` in place of each Tensor and array, in lists, tuples, dicts and dataclasses too.

    What holds no array is returned itself.
    """
    if is_array(x):
        return change(x)
    parts = _parts(x)
    if parts is None:
        return x
    new = {name: mapped(part, change) for name, part in parts.items()}
    if all(new[name] is part for name, part in parts.items()):
        return x
    if isinstance(x, dict):
        changed = copy.copy(x)  # also of a subclass, such as defaultdict
        changed.update(new)
        return changed
    if isinstance(x, list | tuple):
        return type(x)(*new.values()) if hasattr(x, "_fields") else type(x)(new.values())
    changed = copy.copy(x)
    for name, part in new.items():
        object.__setattr__(changed, name, part)  # also of a frozen dataclass
    return changed


def _parts(x: Any) -> dict[Any, Any] | None:
    """Return what a container holds, by name or number; None if x is no container."""
    if isinstance(x, dict):
        return x
    if isinstance(x, list | tuple):
        return dict(enumerate(x))
    if is_dataclass(x) and not isinstance(x, type):
        return {field.name: getattr(x, field.name) for field in fields(x) if hasattr(x, field.name)}
    return None


class Signature:
    """What distinguishes the arguments of one call from those of another, but for the values of arrays.

    Attributes:
        arrays: the Tensors and arrays, in the order of `mapped`.
        pattern: containers, shapes and dtypes, and everything but numbers, as something hashable.
        numbers: for each Python number its place, such as "argument 1" or "rate", and the number.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.arrays: list[Any] = []
        self.numbers: list[tuple[str, Any]] = []
        self.pattern = (
            *[self._of(x, f"argument {i}") for i, x in enumerate(args)],
            *[(name, self._of(x, name)) for name, x in kwargs.items()],
        )
        self.key = (self.pattern, tuple([_exact(number) for _, number in self.numbers]))

    def _of(self, x: Any, place: str) -> Any:
        if is_array(x):
            self.arrays.append(x)
            array, needs = (x.array, x.needs_grad) if isinstance(x, Tensor) else (x, None)
            return array.shape, array.dtype.str, type(array), needs
        if isinstance(x, bool | int | float | complex | np.generic):
            self.numbers.append((place, x))
            return type(x)
        parts = _parts(x)
        if parts is not None:
            of_dict = isinstance(x, dict)
            return type(x), *[
                (_named(k), self._of(v, f"{place}[{k!r}]" if of_dict else place)) for k, v in parts.items()
            ]
        return _named(x)


def _exact(number: Any) -> Any:
    """Return a number as something that equals itself, also if it is NaN, and that tells 0.0 from -0.0."""
    return number.hex() if type(number) is float else repr(number) if isinstance(number, complex) else number


def _named(x: Any) -> Any:
    """Return something hashable that is equal for equal x: x itself if it is hashable, otherwise its identity."""
    try:
        hash(x)
    except TypeError:
        return _Same(x)
    return type(x), x


class _Same:
    """An object that cannot be hashed, compared by identity; it is held, so that its id stays its own."""

    __slots__ = ("given",)

    def __init__(self, given: Any) -> None:
        self.given = given

    def __hash__(self) -> int:
        return id(self.given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.given is other.given
