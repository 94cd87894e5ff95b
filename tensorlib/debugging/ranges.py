"""What is in an array, as messages say it, and what to do where an op gave NaN or Inf."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from tensorlib.arrays.backend import backend_of, namespace_of
from tensorlib.engine.function import Function
from tensorlib.engine.recording import shown_line

__all__ = ["Range", "all_finite", "number", "op_at", "place", "range_of", "remedy_backward", "remedy_forward"]


class Range(NamedTuple):
    """Shape, dtype ("" of a Python number), and what the elements are: smallest and largest among the finite ones."""

    shape: tuple[int, ...]
    dtype: str
    size: int
    low: float = math.nan
    high: float = math.nan
    zeros: int = 0
    nans: int = 0
    positive: int = 0  # how many are +Inf
    negative: int = 0  # how many are -Inf

    @property
    def infs(self) -> int:
        """How many elements are infinite."""
        return self.positive + self.negative

    def holds(self) -> str:
        """Return "3 NaN and 1 -Inf", or "" where all elements are finite."""
        counts = ((self.nans, "NaN"), (self.positive, "Inf"), (self.negative, "-Inf"))
        return " and ".join(f"{n:,} {what}" for n, what in counts if n)

    def __str__(self) -> str:
        if not self.dtype:
            return f"the number {'NaN' if self.nans else f'{self.low:.4g}' if not self.infs else self.holds()[2:]}"
        values = f" in [{self.low:.4g}, {self.high:.4g}]" if self.low == self.low else ""
        return f"{self.shape} {self.dtype}{values}" + (f", {self.holds()}" if self.holds() else "")


def number(x: Any) -> Any:
    """Return what a reduction gave as a Python number. Waits for the GPU."""
    return x.item() if hasattr(x, "item") else x


def all_finite(array: Any) -> bool:
    """Return whether no element is NaN or infinite. Waits for the GPU, once."""
    return array.dtype.kind not in "fc" or bool(number(namespace_of(array).isfinite(array).all()))


def range_of(x: Any) -> Range | None:
    """Return what is in an array, a Tensor or a number; None of anything else. Fetches it from a GPU."""
    x = getattr(x, "array", x)
    if not hasattr(x, "dtype"):
        if not isinstance(x, int | float):
            return None
        host, dtype = np.asarray(float(x)), ""
    else:
        host, dtype = np.asarray(backend_of(x).to_numpy(x)), str(x.dtype)
    if host.dtype.kind == "c":
        host = np.abs(host)
    finite = host[np.isfinite(host)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (math.nan, math.nan)
    counts = [int(np.count_nonzero(test)) for test in (host == 0, np.isnan(host), host == np.inf, host == -np.inf)]
    return Range(tuple(host.shape), dtype, host.size, low, high, *counts)


def place(source: str | None, path: str) -> str:
    """Return "train.py:12 (in decoder)", or as much of it as is known."""
    module = f"in {path}" if path else ""
    if source is None:
        return module
    return f"{shown_line(source)} ({module})" if module else shown_line(source)


def op_at(node: Function) -> str:
    """Return "relu at train.py:12 (in decoder)", or as much of it as is known."""
    if node.source is None:
        return f"{node.name} in {node.path}" if node.path else node.name
    return f"{node.name} at {place(node.source, node.path)}"


# ---- remedies ------------------------------------------------------------------------------------------------

_Rule = tuple[set[str], Callable[..., bool], str]

# For each: the ops it is about, the condition on the ranges of their inputs, what happened and what to do.
_FORWARD: list[_Rule] = [
    ({"log", "log2", "log10"}, lambda x: x.low < 0,
     "the logarithm of a negative number is NaN: keep x positive, as in tl.log(tl.maximum(x, 1e-6))"),
    ({"log", "log2", "log10"}, lambda x: x.zeros > 0,
     "log(0) is -Inf: keep x above 0, as in tl.log(x + 1e-6); for log(softmax(x)) use tl.log_softmax"),
    ({"log1p"}, lambda x: x.low <= -1, "log1p needs x > -1"),
    ({"sqrt", "rsqrt"}, lambda x: x.low < 0,
     "the square root of a negative number is NaN: keep x from falling below 0, as in tl.sqrt(tl.maximum(x, 0))"),
    ({"rsqrt", "reciprocal"}, lambda x: x.zeros > 0, "division by 0: add a small number to x, such as 1e-6"),
    ({"divide"}, lambda x, y: y.zeros > 0,
     "division by 0: add a small number such as 1e-6 to the denominator, or choose a harmless one by tl.where"),
    ({"exp", "exp2", "expm1", "sinh", "cosh"}, lambda x: x.high > 10,
     "exp overflows, float32 above 88.7 and float16 above 11: subtract the largest element first, "
     "or use tl.softmax, tl.logsumexp, tl.log_softmax"),
    ({"power"}, lambda x, y: x.low < 0 and (y.low, y.high) != (round(y.low), round(y.high)),
     "a negative number to a fractional power is NaN: use tl.abs(x), or keep x from falling below 0"),
    ({"power"}, lambda x, y: x.zeros > 0 and y.low < 0, "0 to a negative power is Inf: keep x away from 0"),
    ({"arcsin", "arccos", "arctanh"}, lambda x: x.low < -1 or x.high > 1 or x.low == -1 or x.high == 1,
     "it needs x within -1 and 1: keep it inside by tl.clip"),
    ({"arccosh"}, lambda x: x.low < 1, "arccosh needs x >= 1"),
    ({"add", "subtract"}, lambda x, y: x.infs > 0 and y.infs > 0, "Inf - Inf is NaN: mask with a large finite number"),
    ({"multiply", "matmul"}, lambda x, y: x.infs + y.infs > 0,
     "0 · Inf is NaN: mask with tl.where, or with a large finite number, not by multiplying"),
    ({"softmax", "log_softmax", "logsumexp"}, lambda x: x.infs > 0,
     "a row of -Inf alone, or +Inf, has no softmax: pass visible= to tl.softmax, or mask with a large finite number"),
]  # fmt: skip

# The same, on the ranges of what was saved: of inputs 0 and 1 (x, y), and of the output (z).
_BACKWARD: list[_Rule] = [
    ({"sqrt"}, lambda x, y, z: z.zeros > 0,
     "the slope of a square root at 0 is infinite: keep it away from 0, as in tl.sqrt(x + 1e-12)"),
    ({"log", "log2", "log10"}, lambda x, y, z: x.zeros > 0,
     "the slope of log at 0 is infinite: keep x above 0, as in tl.log(x + 1e-6)"),
    ({"divide"}, lambda x, y, z: y.zeros > 0, "the slope of x / y at y = 0 is infinite: keep y away from 0"),
    ({"power"}, lambda x, y, z: x.zeros > 0 and y.low < 1,
     "the slope of x^y at 0 is infinite for y < 1: keep x above 0"),
    ({"rsqrt", "reciprocal"}, lambda x, y, z: z.infs > 0, "the slope at 0 is infinite: add a small number to x"),
    ({"arcsin", "arccos"}, lambda x, y, z: x.low <= -1 or x.high >= 1,
     "the slope at -1 and 1 is infinite: keep x inside by tl.clip"),
]  # fmt: skip


def remedy_forward(op: str, inputs: Sequence[Range | None], output: Range) -> str:
    """Return what happened and what to do where `op` made NaN or Inf of these inputs."""
    spoiled = next((i for i, x in enumerate(inputs) if x is not None and x.nans), None)
    if spoiled is not None:
        x = inputs[spoiled]
        assert x is not None
        if not x.dtype:
            return f"input {spoiled} is NaN already, as the mean or variance of nothing is"
        return (
            f"input {spoiled} holds {x.nans:,} NaN of {x.size:,} elements already: "
            "it was made before, outside of debug, or came with the data or the parameters"
        )
    return _first(_FORWARD, op, inputs) or _overflow(output)


def remedy_backward(op: str, dys: Sequence[Range | None], saved: Mapping[int, Range], dx: Range) -> str:
    """Return what happened and what to do where the backward of `op` made NaN or Inf; `saved` by role: input, or -1."""
    if any(dy is not None and (dy.nans or dy.infs) for dy in dys):
        return (
            "the gradient of its output was so already: look at the gradient given to backward(), "
            "at hooks, and for a sum of gradients that overflows"
        )
    unknown = Range((), "", 0)
    text = _first(_BACKWARD, op, [saved.get(role, unknown) for role in (0, 1, -1)])
    if text and dx.nans and any(dy is not None and dy.zeros for dy in dys):
        return (
            f"{text}. Where dy is 0, 0 · Inf is NaN: a tl.where after {op} hides the value and not the slope; "
            f"put one before it, as in tl.{op}(tl.where(ok, x, 1))"
        )
    spoiled = next((x for x in saved.values() if x.nans or x.infs), None)
    if not text and spoiled is not None:
        return f"the forward pass had {spoiled.holds()} already: run it within tl.debug()"
    return text or _overflow(dx)


def _first(rules: list[_Rule], op: str, ranges: Sequence[Range | None]) -> str:
    known = [x for x in ranges if x is not None]
    for ops, condition, text in rules:
        if op in ops and len(known) == len(signature(condition).parameters) and condition(*known):
            return text
    return ""


def _overflow(y: Range) -> str:
    if y.dtype == "float16":
        return "float16 ends at 65504: compute this in float32"
    if y.infs and not y.nans:
        return f"{y.dtype} overflows: look for what grows on the way here, and scale it down or clip it"
    return "look at the ranges above for Inf, and for values near the largest of their dtype"
