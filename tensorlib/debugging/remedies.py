"""Why an op produced NaN or Inf, inferred from the ranges of its inputs, and how to avoid it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import TypeAlias

from tensorlib.debugging.ranges import Range

__all__ = ["backward_remedy", "forward_remedy"]

_Rule: TypeAlias = tuple[set[str], Callable[..., bool], str]
"""The ops that a rule is about, the condition on ranges, and the cause and remedy."""

# Conditions on the ranges of the inputs.
_FORWARD: list[_Rule] = [
    ({"log", "log2", "log10"}, lambda x: x.low < 0,
     "the logarithm of a negative number is NaN: keep x positive, as in tl.log(tl.maximum(x, 1e-6))"),
    ({"log", "log2", "log10"}, lambda x: x.zeros > 0,
     "log(0) is -Inf: keep x above 0, as in tl.log(x + 1e-6); for log(softmax(x)) use tl.log_softmax"),
    ({"log1p"}, lambda x: x.low <= -1, "log1p needs x > -1"),
    ({"sqrt", "rsqrt"}, lambda x: x.low < 0,
     "the square root of a negative number is NaN: keep x at or above 0, as in tl.sqrt(tl.maximum(x, 0))"),
    ({"rsqrt", "reciprocal"}, lambda x: x.zeros > 0, "division by 0: add a small number to x, such as 1e-6"),
    ({"divide"}, lambda x, y: y.zeros > 0,
     "division by 0: add a small number such as 1e-6 to the denominator, or replace zeros in it with tl.where"),
    ({"exp", "exp2", "expm1", "sinh", "cosh"}, lambda x: x.high > 10,
     "exp overflows above 88.7 in float32 and above 11 in float16: subtract the largest element first, "
     "or use tl.softmax, tl.logsumexp, tl.log_softmax"),
    ({"power"}, lambda x, y: x.low < 0 and (y.low, y.high) != (round(y.low), round(y.high)),
     "a negative number to a fractional power is NaN: use tl.abs(x), or keep x at or above 0"),
    ({"power"}, lambda x, y: x.zeros > 0 and y.low < 0, "0 to a negative power is Inf: keep x away from 0"),
    ({"arcsin", "arccos"}, lambda x: x.low < -1 or x.high > 1,
     "x must be between -1 and 1: limit it with tl.clip"),
    ({"add", "subtract"}, lambda x, y: x.infs > 0 and y.infs > 0, "Inf - Inf is NaN: mask with a large finite number"),
    ({"multiply", "matmul"}, lambda x, y: x.infs + y.infs > 0,
     "0 · Inf is NaN: mask with tl.where or with a large finite number, not by multiplying"),
    ({"softmax", "log_softmax", "logsumexp"}, lambda x: x.infs > 0,
     "softmax is undefined for +Inf and for a row of only -Inf: pass visible= to tl.softmax, "
     "or mask with a large finite number"),
]  # fmt: skip

# Conditions on the ranges of saved arrays: inputs 0 and 1 (x, y), and the output (z).
_BACKWARD: list[_Rule] = [
    ({"sqrt"}, lambda x, y, z: z.zeros > 0,
     "the slope of a square root at 0 is infinite: keep x away from 0, as in tl.sqrt(x + 1e-12)"),
    ({"log", "log2", "log10"}, lambda x, y, z: x.zeros > 0,
     "the slope of log at 0 is infinite: keep x above 0, as in tl.log(x + 1e-6)"),
    ({"divide"}, lambda x, y, z: y.zeros > 0, "the slope of x / y at y = 0 is infinite: keep y away from 0"),
    ({"power"}, lambda x, y, z: x.zeros > 0 and y.low < 1,
     "the slope of x^y at 0 is infinite for y < 1: keep x above 0"),
    ({"rsqrt", "reciprocal"}, lambda x, y, z: z.infs > 0, "the slope at 0 is infinite: add a small number to x"),
    ({"arcsin", "arccos"}, lambda x, y, z: x.low <= -1 or x.high >= 1,
     "the slope at -1 and 1 is infinite: keep x strictly between them with tl.clip"),
    ({"kink"}, lambda x, y, z: True,
     "norm, std and arctan2 have no second derivative where their operands are 0: keep these away from 0, as in "
     "tl.sqrt((x * x).sum() + 1e-12) in place of tl.norm(x)"),
]  # fmt: skip


def forward_remedy(op: str, inputs: Sequence[Range | None], output: Range) -> str:
    """Return the cause and the remedy if `op` computed NaN or Inf from these inputs."""
    for i, x in enumerate(inputs):
        if x is None or not x.nans:
            continue
        if not x.dtype:
            return f"input {i} is NaN already; the mean or variance of zero elements is NaN"
        return (
            f"input {i} already holds {x.nans:,} NaN in {x.size:,} elements: "
            "they were computed earlier, outside debug, or came with the data or the parameters"
        )
    return _first_rule(_FORWARD, op, inputs) or _overflow(output)


def backward_remedy(op: str, dys: Sequence[Range | None], saved: Mapping[int, Range], dx: Range) -> str:
    """Return the cause and the remedy if the backward of `op` computed NaN or Inf.

    `saved` holds the ranges of saved arrays by role: i >= 0 for input i, -1 - k for output k.
    """
    if any(dy is not None and (dy.nans or dy.infs) for dy in dys):
        return (
            "the gradient of its output was already not finite: check the gradient given to backward(), "
            "hooks, and sums of gradients that overflow"
        )
    unknown = Range((), "", 0)
    text = _first_rule(_BACKWARD, op, [saved.get(role, unknown) for role in (0, 1, -1)])
    if text and op != "kink" and dx.nans and any(dy is not None and dy.zeros for dy in dys):
        operands = {"divide": "x, tl.where(ok, y, 1)", "power": "tl.where(ok, x, 1), y"}.get(op, "tl.where(ok, x, 1)")
        return (
            f"{text}. Where dy is 0, 0 · Inf is NaN: a tl.where after {op} hides the value but not the slope; "
            f"put one before it, as in tl.{op}({operands})"
        )
    not_finite = next((x for x in saved.values() if x.nans or x.infs), None)
    if not text and not_finite is not None:
        return f"the forward pass already computed {not_finite.specials()}: run it within tl.debug()"
    return text or _overflow(dx)


def _first_rule(rules: list[_Rule], op: str, ranges: Sequence[Range | None]) -> str:
    known = [x for x in ranges if x is not None]
    for ops, condition, text in rules:
        if op in ops and len(known) == len(signature(condition).parameters) and condition(*known):
            return text
    return ""


def _overflow(y: Range) -> str:
    if y.dtype == "float16":
        return "the largest float16 is 65504: compute this in float32"
    if y.infs and not y.nans:
        return f"{y.dtype} overflows: find the values that grow on the way here, and scale them down or clip them"
    return "check the ranges above for Inf, and for values near the largest of their dtype"
