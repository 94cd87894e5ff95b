"""Why an op passes on zeros in a gradient, read from the arrays that it saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tensorlib.arrays.array import Array
from tensorlib.arrays.backend import namespace_of
from tensorlib.debugging.locations import located_op
from tensorlib.debugging.ranges import python_number
from tensorlib.engine.function import Function
from tensorlib.engine.value import Value

__all__ = ["percent", "why_zero"]


def percent(share: float) -> str:
    """Return a share as "97 %". Only a share of exactly 1 gives "100 %", and only exactly 0 gives "0 %"."""
    if 0 < share < 1:
        rounded = round(100 * share, 1 if min(share, 1 - share) < 0.01 else None)
        return "under 0.1 %" if rounded == 0 else "over 99.9 %" if rounded == 100 else f"{rounded:g} %"
    return f"{100 * share:g} %"


def why_zero(node: Function, position: int, dys: Sequence[Array] | None = None) -> str:
    """Return why the gradient that `node` passes to input `position` has zeros; "" if the cause is unknown.

    `dys` holds the gradients of the node's outputs if the whole gradient is zero; it is None if only a part is.
    """
    explain = _CAUSES.get(node.name)
    try:
        text = explain(node, position, dys) if explain else ""
    except (AttributeError, IndexError, KeyError, ValueError):  # a user's op with the name of one of ours
        text = ""
    if not text and dys is not None:
        top = max([float(python_number(namespace_of(dy).abs(dy).max())) for dy in dys if dy.size])
        if top < 1e-20:
            return f"it underflows, as the incoming gradient is at most {top:.2g}"
        if not math.prod(node.input_types[position][0]):
            return "its input has no elements"
        return "the gradient that it passes on is exactly 0"
    return text


def _share(test: Any) -> float:
    """Return the fraction of elements that are True."""
    return python_number(test.sum()) / max(test.size, 1)


def _dead_units(node: Function, position: int, dys: Any) -> str:
    # A unit is a position along the last axis; it is dead if it is 0 in every row. In a vector each element is a unit.
    y = node.statistics if node.name == "feed_forward" else node.saved[-1]
    dead = (y == 0).all(axis=tuple(range(y.ndim - 1))) if y.ndim > 1 else y == 0
    return f"{percent(_share(dead))} of units dead"


def _zero_factor(node: Function, position: int, dys: Any) -> str:
    other = dict(node.saved_by_role())[1 - position]
    zero = _share(other == 0) if hasattr(other, "dtype") else float(other == 0)
    name = "the number" if not hasattr(other, "dtype") else _input_name(node, 1 - position)
    if zero == 1:
        return f"the other factor, {name}, is all zero"
    return f"the other factor, {name}, is zero in {percent(zero)} of its elements" if zero else ""


def _input_name(node: Function, position: int) -> str:
    edge = (node.edges or ())[position]
    if edge is None or not edge[0].name:
        return f"input {position}"
    return edge[0].name if isinstance(edge[0], Value) else f"the output of {located_op(edge[0])}"


def _not_selected(node: Any, position: int, dys: Any) -> str:
    selected = _share(node.condition if position == 0 else ~node.condition)
    return f"its condition selects this input at {percent(selected)} of the positions"


def _not_the_extreme(node: Function, position: int, dys: Any) -> str:
    x, y = node.saved
    this, other = (x, y) if position == 0 else (y, x)
    hidden = _share(other > this if node.name == "maximum" else other < this)
    relation = "larger" if node.name == "maximum" else "smaller"
    return f"the other input is {relation} at {percent(hidden)} of the positions"


def _dropped(node: Any, position: int, dys: Any) -> str:
    return f"it drops elements with probability {node.p:g}"


def _only_the_extreme(node: Function, position: int, dys: Any) -> str:
    return f"only the {'largest' if node.name == 'max' else 'smallest'} elements get a gradient"


def _unused_rows(node: Any, position: int, dys: Any) -> str:
    used = python_number(namespace_of(node.ids).unique(node.ids).size)
    return f"no id selects {node.rows - used:,} of its {node.rows:,} rows"


def _not_indexed(node: Any, position: int, dys: Any) -> str:
    picked, size = math.prod(node.output_types[0][0]), math.prod(node.input_types[0][0])
    return f"its index picks {picked:,} of {size:,} elements" if picked < size else ""


def _flat_softmax(node: Any, position: int, dys: Any) -> str:
    (y,) = node.saved
    probability = namespace_of(y).exp(y) if node.name == "log_softmax" else y
    saturated = _share(probability.max(axis=node.axis) > 1 - 1e-6)
    if saturated > 0.5:
        return f"saturated: its largest output is 1 in {percent(saturated)} of the rows"
    if dys is not None and python_number((dys[0] == dys[0].max(axis=node.axis, keepdims=True)).all()):
        return "the incoming gradient is the same for all classes, and probabilities sum to 1 for every input"
    return ""


def _saturated(node: Any, position: int, dys: Any) -> str:
    (y,) = node.saved
    flat = _share((y * (1 - y) == 0) if node.name == "sigmoid" else (1 - y * y == 0))
    return f"saturated: {percent(flat)} of its outputs are exactly at their limits" if flat else ""


def _zero_slope_at_zero(node: Function, position: int, dys: Any) -> str:
    if node.name == "power" and not hasattr(node.saved[1], "dtype") and node.saved[1] == 0:
        return "the exponent is 0"
    zero = _share(node.saved[0] == 0)
    return f"its input is 0 at {percent(zero)} of the positions, where the slope is 0" if zero else ""


def _ignored_targets(node: Any, position: int, dys: Any) -> str:
    ignored = _share(~(node.classes[1] if node.name == "linear_cross_entropy" else node.counted))
    if ignored == 1:
        return "every target is ignored"
    return "the targets are predicted with certainty" if dys is not None else ""


def _blind_queries(node: Any, position: int, dys: Any) -> str:
    visible = node.pattern.visible
    blind = 0.0 if visible is None else _share(~visible.any(axis=-1))
    return f"{percent(blind)} of the queries see nothing" if blind else ""


def _clipped(node: Any, position: int, dys: Any) -> str:
    x, *bounds = node.saved
    low, high = bounds[0] if node.has_low else -math.inf, bounds[-1] if node.has_high else math.inf
    return f"{percent(_share((x < low) | (x > high)))} of the values are outside its bounds"


_CAUSES: dict[str, Callable[[Any, int, Any], str]] = {
    "relu": _dead_units, "linear_relu": _dead_units, "feed_forward": _dead_units,
    "multiply": _zero_factor, "matmul": _zero_factor, "linear": _zero_factor,
    "where": _not_selected, "maximum": _not_the_extreme, "minimum": _not_the_extreme,
    "dropout": _dropped, "add_dropout": _dropped, "max": _only_the_extreme, "min": _only_the_extreme,
    "embedding": _unused_rows, "getitem": _not_indexed, "take_along_axis": _not_indexed,
    "softmax": _flat_softmax, "log_softmax": _flat_softmax, "sigmoid": _saturated, "tanh": _saturated,
    "power": _zero_slope_at_zero, "square": _zero_slope_at_zero, "abs": _zero_slope_at_zero,
    "cross_entropy": _ignored_targets, "linear_cross_entropy": _ignored_targets,
    "attention": _blind_queries, "self_attention": _blind_queries, "cross_attention": _blind_queries, "clip": _clipped,
}  # fmt: skip
