"""Why a gradient is zero, not finite, huge, tiny or sparse, from the flows of an observed backward pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from tensorlib.debugging.gradient_flow import Contribution, Flow, Hop, ObservedPass, slot_of
from tensorlib.debugging.locations import located_op
from tensorlib.debugging.zero_causes import percent, why_zero
from tensorlib.engine.function import Function
from tensorlib.tensor import Tensor

__all__ = ["HUGE", "TINY", "reasons_for", "verdict_of"]

HUGE, TINY = 1e3, 1e-7  # norms: gradients are usually clipped to norm 1, and float32 has 7 digits


def verdict_of(flow: Flow) -> str:
    """Return "nan", "inf", "zero", "huge", "tiny" or "fine"."""
    if not flow.is_finite:
        return "nan" if flow.nans else "inf"
    if flow.is_zero:
        return "zero"
    return "huge" if flow.norm > HUGE else "tiny" if flow.norm < TINY else "fine"


def reasons_for(
    flow: Flow, x: Tensor, observed: ObservedPass, hops: Sequence[Hop], nodes: Sequence[Function]
) -> list[str]:
    """Return why the gradient of `x` has this flow, as phrases, the most important first; [] if it is ordinary."""
    verdict = verdict_of(flow)
    if verdict in ("zero", "nan", "inf"):
        return _causes(verdict == "zero", x, observed, nodes)
    if verdict in ("huge", "tiny"):
        return [_growth(hops, 1 if verdict == "huge" else -1)]
    if flow.share_of_zeros >= 0.1:
        return [_why_sparse(flow, hops)]
    return []


# ---- zero, NaN and Inf -------------------------------------------------------------------------------------------


def _causes(zero: bool, x: Tensor, observed: ObservedPass, nodes: Sequence[Function]) -> list[str]:
    """Return the ops and sums at which the gradient of x became zero, or not finite; the nearest to the loss first."""
    index = {id(node): i for i, node in enumerate(nodes)}
    found: list[tuple[int, str]] = []
    for cause in observed.causes(slot_of(x), _is_zero if zero else _is_not_finite, every=zero):
        if isinstance(cause, Contribution):
            remark = observed.remarks.get((id(cause.node), cause.position), "")
            text = f"zeroed by {located_op(cause.node)}: {remark}" if zero else remark
            found.append((index[id(cause.node)], text))
        else:
            is_x = cause == slot_of(x)
            i = len(nodes) if is_x else index[cause[0]]
            name = (x.name or "this Tensor") if is_x else located_op(nodes[i])
            contributions = f"the contributions to the gradient of {name}"
            found.append(
                (i, f"{contributions} cancel each other out" if zero else f"the sum of {contributions} is not finite")
            )
    counts = Counter(text for _, text in sorted(found))
    return [f"{text} ({n} times)" if n > 1 else text for text, n in counts.items()]


def _is_zero(flow: Flow) -> bool:
    return flow.is_zero


def _is_not_finite(flow: Flow) -> bool:
    return not flow.is_finite


# ---- huge, tiny and sparse ---------------------------------------------------------------------------------------


def _growth(hops: Sequence[Hop], sign: int) -> str:
    """Return the step that changes the norm most, or, if no step dominates, the op whose steps change it most in total.

    `sign` is 1 to explain growth, -1 to explain shrinkage.
    """
    factors = [(hop, hop.after.norm / hop.before.norm) for hop in hops if hop.before.norm and hop.after.norm]
    if not factors:
        return "already at the loss itself"
    logs_by_op: dict[str, list[float]] = {}
    for hop, factor in factors:
        logs_by_op.setdefault(hop.node.name, []).append(math.log10(factor))
    total = sum(sum(logs) for logs in logs_by_op.values())
    top, most = max(factors, key=lambda f: sign * math.log(f[1]))
    verb = "grows" if sign > 0 else "shrinks"
    at_most = f"it {verb} most at {located_op(top.node)}, by a factor of {_power(math.log10(most))}"
    op = max(logs_by_op, key=lambda name: sign * sum(logs_by_op[name]))
    logs = logs_by_op[op]
    if len(logs) > 1 and sign * math.log10(most) < 0.5 * sign * total:
        return (
            f"no single step dominates: the {len(logs):,} {op} ops on the path multiply it by {_power(sum(logs))} "
            f"in total, by {_power(sum(logs) / len(logs))} each; {at_most}"
        )
    return at_most


def _power(exponent: float) -> str:
    return f"{10**exponent:.5g}" if abs(exponent) < 300 else f"1e{exponent:+.0f}"


def _why_sparse(flow: Flow, hops: Sequence[Hop]) -> str:
    """Return the op nearest to the Tensor that produced most of the zeros in its gradient."""
    text = f"{percent(flow.share_of_zeros)} of its elements are zero"
    half = flow.share_of_zeros / 2
    for hop in reversed(hops):
        if hop.before.share_of_zeros < half <= hop.after.share_of_zeros:
            why = why_zero(hop.node, hop.position)
            passed = (1 - hop.after.share_of_zeros) / max(1 - hop.before.share_of_zeros, 1e-9)
            through = f"{located_op(hop.node)} lets {percent(min(passed, 1))} through"
            return f"{text}: {through}" + (f" ({why})" if why else "")
    return text
