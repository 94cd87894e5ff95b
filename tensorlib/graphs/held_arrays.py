"""The arrays that a recorded op holds until the backward pass."""

from __future__ import annotations

from inspect import get_annotations
from typing import Any

from tensorlib.arrays.backend import Array
from tensorlib.engine.function import Function
from tensorlib.engine.node import Node
from tensorlib.engine.value import Value

__all__ = ["arrays_in", "held_arrays", "own_attributes"]

_ENGINE_ATTRIBUTES = {*get_annotations(Node), *get_annotations(Function)}


def held_arrays(node: Function) -> list[Array]:
    """Return the arrays that `node` saved, those in its statistics and attributes, and the inputs of its checkpoint."""
    found = [x for x in node.saved if hasattr(x, "nbytes")]
    for name, value in vars(node).items():  # of 100,000 nodes, so nothing is built for the usual ones
        if value is not None and (name == "statistics" or name not in _ENGINE_ATTRIBUTES):
            found += arrays_in(value)
    return found if node.region is None else found + arrays_in(node.region.held())


def own_attributes(node: Function) -> dict[str, Any]:
    """Return the attributes that the op itself has set, such as an axis or a mask, without the engine's."""
    return {name: value for name, value in vars(node).items() if name not in _ENGINE_ATTRIBUTES}


def arrays_in(value: Any) -> list[Array]:
    """Return all arrays in a value, looking into tuples, lists and dicts."""
    found, waiting = [], [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        elif isinstance(item, Value):
            found.append(item.array)
        elif hasattr(item, "nbytes"):
            found.append(item)
    return found
