"""Why an op passes no gradient on, or little: read from what it saved, and said as one would tell a colleague."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tensorlib.arrays.backend import namespace_of
from tensorlib.debugging.ranges import number, op_at
from tensorlib.engine.function import Function

__all__ = ["percent", "why_zero"]


def percent(share: float) -> str:
    """Return "97 %"; never "100 %" of what is not all, nor "0 %" of what is not nothing."""
    if 0 < share < 1:
        rounded = round(100 * share, 1 if min(share, 1 - share) < 0.01 else None)
        return "under 0.1 %" if rounded == 0 else "over 99.9 %" if rounded == 100 else f"{rounded:g} %"
    return f"{100 * share:g} %"


def why_zero(node: Function, position: int, dys: Sequence[Any] | None = None) -> str:
    """Return why `node` makes zeros of the gradient of input `position`; "" where nothing is known.

    With `dys` all of the gradient that arrives has become 0; without, a part of it.
    """
    explain = _REASONS.get(node.name)
    try:
        text = explain(node, position, dys) if explain else ""
    except (AttributeError, IndexError, KeyError, ValueError):  # an op of the user's that bears a name of ours
        text = ""
    if not text and dys is not None:
        top = max([float(number(namespace_of(dy).abs(dy).max())) for dy in dys if dy.size])
        if top < 1e-20:
            return f"it underflows, as what arrives is at most {top:.2g}"
        return (
            "what it passes on is exactly 0"
            if math.prod(node.input_types[position][0])
            else "its input has no elements"
        )
    return text


def _share(test: Any) -> float:
    return number(test.sum()) / max(test.size, 1)


def _dead_units(node: Function, position: int, dys: Any) -> str:
    # A unit is a place along the last axis, if there are rows; it is dead if it gives 0 for every row.
    y = node.saved[-1]
    dead = (y == 0).all(axis=tuple(range(y.ndim - 1))) if y.ndim > 1 else y == 0
    return f"{percent(_share(dead))} of units dead"


def _other_factor(node: Function, position: int, dys: Any) -> str:
    other = dict(node.saved_by_role())[1 - position]
    zero = _share(other == 0) if hasattr(other, "dtype") else float(other == 0)
    name = "the number" if not hasattr(other, "dtype") else _named(node, 1 - position)
    if zero == 1:
        return f"the other factor, {name}, is all zero"
    return f"the other factor, {name}, is zero at {percent(zero)} of its elements" if zero else ""


def _named(node: Function, position: int) -> str:
    edge = (node.edges or ())[position]
    if edge is None or not edge[0].name:
        return f"input {position}"
    return f"what {op_at(edge[0])} gave" if isinstance(edge[0], Function) else edge[0].name


def _condition(node: Any, position: int, dys: Any) -> str:
    chosen = _share(node.condition if position == 0 else ~node.condition)
    return f"its condition chooses this input at {percent(chosen)} of the places"


def _larger(node: Function, position: int, dys: Any) -> str:
    x, y = node.saved
    this, other = (x, y) if position == 0 else (y, x)
    hidden = _share(other > this if node.name == "maximum" else other < this)
    return f"the other input is {'larger' if node.name == 'maximum' else 'smaller'} at {percent(hidden)} of the places"


def _dropped(node: Any, position: int, dys: Any) -> str:
    return f"it drops elements with probability {node.p:g}"


def _attained(node: Function, position: int, dys: Any) -> str:
    return f"only the {'largest' if node.name == 'max' else 'smallest'} elements get a gradient"


def _rows(node: Any, position: int, dys: Any) -> str:
    used = number(namespace_of(node.ids).unique(node.ids).size)
    return f"no id chose {node.rows - used:,} of its {node.rows:,} rows"


def _picked(node: Any, position: int, dys: Any) -> str:
    picked, size = math.prod(node.output_types[0][0]), math.prod(node.input_types[0][0])
    return f"its index picks {picked:,} of {size:,} elements" if picked < size else ""


def _saturated_softmax(node: Any, position: int, dys: Any) -> str:
    (y,) = node.saved
    probability = namespace_of(y).exp(y) if node.name == "log_softmax" else y
    saturated = _share(probability.max(axis=node.axis) > 1 - 1e-6)
    if saturated > 0.5:
        return f"saturated: its largest output is 1 in {percent(saturated)} of the rows"
    if dys is not None and number((dys[0] == dys[0].max(axis=node.axis, keepdims=True)).all()):
        return "the gradient that arrives is the same for all classes, and probabilities sum to 1 whatever x is"
    return ""


def _saturated(node: Any, position: int, dys: Any) -> str:
    (y,) = node.saved
    flat = _share((y * (1 - y) == 0) if node.name == "sigmoid" else (1 - y * y == 0))
    return f"saturated: {percent(flat)} of its outputs are exactly at their limits" if flat else ""


def _at_zero(node: Function, position: int, dys: Any) -> str:
    if node.name == "power" and not hasattr(node.saved[1], "dtype") and node.saved[1] == 0:
        return "the exponent is 0"
    zero = _share(node.saved[0] == 0)
    return f"its input is 0 at {percent(zero)} of the places, where the slope is 0" if zero else ""


def _targets(node: Any, position: int, dys: Any) -> str:
    ignored = _share(~(node.classes[1] if node.name == "linear_cross_entropy" else node.counted))
    if ignored == 1:
        return "every target is ignored"
    return "the targets are predicted with certainty" if dys is not None else ""


def _unseen(node: Any, position: int, dys: Any) -> str:
    visible = node.pattern.visible
    blind = 0.0 if visible is None else _share(~visible.any(axis=-1))
    return f"{percent(blind)} of the queries see nothing" if blind else ""


def _outside(node: Any, position: int, dys: Any) -> str:
    x, *bounds = node.saved
    low, high = bounds[0] if node.has_low else -math.inf, bounds[-1] if node.has_high else math.inf
    return f"{percent(_share((x < low) | (x > high)))} of the values lie outside of its bounds"


def _flat(node: Function, position: int, dys: Any) -> str:
    return f"{node.name} is a staircase: its slope is 0 everywhere"


_REASONS: dict[str, Callable[[Any, int, Any], str]] = {
    "relu": _dead_units, "linear_relu": _dead_units, "multiply": _other_factor, "matmul": _other_factor,
    "linear": _other_factor, "where": _condition, "maximum": _larger,
    "minimum": _larger, "dropout": _dropped, "add_dropout": _dropped, "max": _attained, "min": _attained,
    "embedding": _rows,
    "getitem": _picked, "take_along_axis": _picked, "softmax": _saturated_softmax, "log_softmax": _saturated_softmax,
    "sigmoid": _saturated, "tanh": _saturated, "power": _at_zero, "square": _at_zero, "abs": _at_zero,
    "cross_entropy": _targets, "linear_cross_entropy": _targets, "attention": _unseen, "clip": _outside,
    "round": _flat, "floor": _flat, "ceil": _flat, "sign": _flat, "trunc": _flat, "rint": _flat,
}  # fmt: skip
