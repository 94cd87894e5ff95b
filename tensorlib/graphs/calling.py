"""Calling a module or function to record it: its inputs get gradients and names, its results become a list."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorlib.arrays.random import default_generator
from tensorlib.engine.recording import recording
from tensorlib.engine.value import wrap
from tensorlib.graphs.composites import CompositeNames
from tensorlib.tensor import Tensor

__all__ = ["call_of"]


def call_of(function: Callable[..., Any], inputs: Sequence[Any], formulas: bool) -> tuple[list[Tensor], dict[str, Any]]:
    """Return the Tensors that ``function(*inputs)`` computed and that have a history, and the inputs by their names.

    Raises ValueError if no result has a history.
    """
    given = [_input(x) for x in inputs]
    with recording(record=True, **({"formulas": True, "watch": CompositeNames()} if formulas else {})):
        result = _without_drawing(function, given)
    found = _tensors_in(result)
    recorded = [y for y in found if y.requires_grad]
    if not recorded:
        name = getattr(function, "__name__", type(function).__name__)
        raise ValueError(
            f"graph: {name} must return a Tensor that was computed from its inputs or parameters, got "
            f"{f'{len(found)} without history' if found else type(result).__name__}; pass inputs of floating numbers"
        )
    return recorded, dict(zip(_parameter_names(function, len(given)), given, strict=False))


def _without_drawing(function: Callable[..., Any], given: Sequence[Any]) -> Any:
    """Return ``function(*given)``; the default generator, from which dropout draws, remains as it is."""
    generator = default_generator()
    before = generator.state
    try:
        return function(*given)
    finally:
        generator.state = before


def _input(x: Any) -> Any:
    """Return an array or Tensor of floating numbers without history as a Tensor that requires a gradient."""
    if isinstance(x, np.ndarray) and x.dtype.kind == "f":
        return Tensor(x, requires_grad=True)
    if isinstance(x, Tensor) and x.dtype.kind == "f" and not x.requires_grad:
        leaf = wrap(x.array)
        leaf.needs_grad = True
        return leaf
    return x


def _parameter_names(function: Callable[..., Any], count: int) -> list[str]:
    """Return the names of the first positional parameters."""
    try:
        parameters = inspect.signature(getattr(function, "forward", function)).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in parameters if parameter.kind in positional][:count]


def _tensors_in(result: Any) -> list[Tensor]:
    """Return the Tensors in a result, looking into tuples, lists, dicts and data classes."""
    found: list[Tensor] = []
    waiting = [result]
    while waiting:
        item = waiting.pop(0)
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        elif hasattr(item, "__dataclass_fields__"):
            waiting.extend(getattr(item, name) for name in item.__dataclass_fields__)
    return found
