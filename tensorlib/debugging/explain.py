"""explain: why a gradient is None, zero, NaN or huge, as one would tell a colleague."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tensorlib.debugging.detached import cut_of, cuts_between
from tensorlib.debugging.gradient_flow import Contribution, Flow, Flows, Hop, measure, slot_of
from tensorlib.debugging.listing import Step, listing
from tensorlib.debugging.ranges import op_at
from tensorlib.debugging.zero_causes import percent, why_zero
from tensorlib.engine.backward import topological_order
from tensorlib.engine.function import Function
from tensorlib.messages import plural
from tensorlib.tensor import Tensor

__all__ = ["Explanation", "explain"]

HUGE, TINY = 1e3, 1e-7  # norms beyond which a gradient is called so: clipping is at 1, float32 has 7 digits


@dataclass(repr=False)
class Explanation:
    """What `explain` found out. ``str()`` tells it; it holds numbers and names only, so it may be kept.

    Attributes:
        verdict: "none", "zero", "nan", "inf", "huge" (norm above 1e3), "tiny" (below 1e-7) or "fine".
        reasons: why, each a phrase; the first is the most important.
        name: of the Tensor that was asked about, or "this Tensor" if it has none.
        norm: of its gradient; None if there is none.
        zeros: which part of the gradient's elements is 0.
        path: the ops on the way along which most of the gradient comes, from the loss on.
        shares: where several ways meet on this path: what meets there, and the share and name of each.
        notes: what else is worth knowing.
    """

    verdict: str
    reasons: list[str]
    name: str
    shape: tuple[int, ...]
    dtype: str
    norm: float | None = None
    zeros: float = 0.0
    path: list[Step] = field(default_factory=list)
    shares: list[tuple[str, list[tuple[float, str]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        why = "; ".join(self.reasons[:3])
        if len(self.reasons) > 3:
            why += f"; and {plural(len(self.reasons) - 3, 'more reason')}"
        what = {
            "none": "it gets no gradient",
            "zero": "its gradient is zero",
            "nan": "its gradient holds NaN",
            "inf": "its gradient holds Inf",
            "fine": f"its gradient is fine, of norm {self.norm or 0:.3g}",
        }.get(self.verdict, f"its gradient is {self.verdict}, of norm {self.norm or 0:.3g}")
        lines = [f"{self.name} {self.shape} {self.dtype}: {what}{': ' if why else ''}{why}"]
        if self.path:
            lines += ["the norm of the gradient on the path that carries most of it:", *listing(self.path)]
        lines += [f"{what} comes {_shares(parts)}" for what, parts in self.shares]
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__


def explain(parameter: Tensor, loss: Tensor) -> Explanation:
    """Return why the gradient of `loss` with respect to `parameter` is what it is: None, zero, NaN, huge, or fine.

    ::

        with tl.debug():
            loss = model(x)
        print(tl.explain(model.encoder.weight, loss))

    which prints, say, ``encoder.weight (8, 8) float32: it gets no gradient: cut by detach at train.py:88``.

    Call it before ``loss.backward()``, which releases the graph (or pass retain_graph=True to that). It runs a backward
    pass of its own, which changes nothing: no ``.grad``, no graph, and no hooks are called. Where the forward pass ran
    within `debug`, lines are known, and why there is no path; else it says what can be seen without.
    """
    _check(parameter, loss)
    label = parameter.name or "this Tensor"
    answer = Explanation("none", [], label, parameter.shape, str(parameter.dtype))
    if not parameter.requires_grad:
        answer.reasons = [_why_constant(parameter)]
        return answer
    order = _nodes(loss)
    if not loss.requires_grad:
        answer.reasons = _why_unreached(parameter, loss, order)
        return answer
    flows, flow = measure(loss, parameter)
    if flow is None:
        answer.reasons = _why_none_given(parameter, flows, order) or _why_unreached(parameter, loss, order)
        return answer
    hops = flows.way(slot_of(parameter))
    answer.verdict, answer.norm, answer.zeros = _verdict(flow), flow.norm, flow.share_of_zeros
    answer.reasons = _reasons(answer.verdict, flows, flow, hops, order, parameter)
    answer.path = [_step(hop) for hop in hops]
    answer.shares = _meetings(flows, hops)
    answer.notes = _notes(parameter, loss, order, hops)
    return answer


def _check(parameter: Any, loss: Any) -> None:
    for name, x in (("parameter", parameter), ("loss", loss)):
        if not isinstance(x, Tensor):
            raise TypeError(
                f"explain: the {name} must be a Tensor, got {type(x).__name__}; call explain(parameter, loss)"
            )
    if loss.size != 1:
        raise ValueError(
            f"explain: the loss must be a scalar, got shape {loss.shape}; call explain(parameter, loss), "
            "and sum the loss if it is none"
        )


def _nodes(loss: Tensor) -> list[Function]:
    """Return what was recorded on the way to the loss; the error for a graph that was released."""
    if loss.node is None:
        return []
    try:
        return topological_order([loss.node])
    except RuntimeError:
        raise RuntimeError(
            f"explain: the graph of the loss, made by {loss.node.name}, was released by an earlier backward pass; "
            "call explain before backward(), or pass retain_graph=True to it"
        ) from None


def _verdict(flow: Flow) -> str:
    if not flow.is_finite:
        return "nan" if flow.nans else "inf"
    if flow.is_zero:
        return "zero"
    return "huge" if flow.norm > HUGE else "tiny" if flow.norm < TINY else "fine"


# ---- no gradient -----------------------------------------------------------------------------------------------


def _why_constant(x: Tensor) -> str:
    if (cut := cut_of(x)) is not None:
        found = cuts_between(x, x, []) or [cut]
        return f"it is a constant: {found[0]}"
    if x.dtype.kind != "f":
        return f"it is of dtype {x.dtype}, and only floating Tensors have gradients"
    return (
        "it does not require one: set requires_grad=True before the forward pass; "
        "or it was computed inside no_grad or detached"
    )


def _why_unreached(x: Tensor, loss: Tensor, order: Sequence[Function]) -> list[str]:
    """Return why no edge leads from the loss to x: what debug has noted, and what can be seen without."""
    if cuts := cuts_between(x, loss, order):
        return list(dict.fromkeys(str(cut) for cut in reversed(cuts)))  # nearest to the loss first
    reasons = []
    for node in order:
        for edge in node.edges or ():
            leaf = edge[0] if edge is not None else None
            if isinstance(leaf, Tensor) and x.name and leaf.name == x.name and leaf is not x:
                reasons.append(
                    f"another Tensor called {x.name} is in the graph: it was replaced, before or after the forward "
                    "pass; ask about the one that the module held then"
                )
        for role, array in node.saved_by_role():
            if array is x.array and role >= 0 and (node.edges or ())[role] is None:
                reasons.append(
                    f"{op_at(node)} uses its value as a constant: it was detached, or requires_grad was set too late"
                )
    if reasons:
        return list(dict.fromkeys(reasons))
    if not loss.requires_grad:
        return ["the loss has no history: no input of it requires a gradient, or it was computed inside no_grad"]
    if all("cuts" in vars(node) for node in order):  # debug has seen all of it
        return ["no path: not used by this loss (or only its value, through .data, .numpy() or .item())"]
    return [
        "no path: not used by this loss, or cut off from it by detach, no_grad or an op without gradient; "
        "run the forward pass within tl.debug() and ask again to see where"
    ]


def _why_none_given(x: Tensor, flows: Flows, order: Sequence[Function]) -> list[str]:
    """Return the ops that lie between the loss and x and give no gradient (None) to what leads on to x."""
    users: dict[tuple[int, int], list[Function]] = {}
    for node in order:
        for edge in node.edges or ():
            if edge is not None:
                users.setdefault((id(edge[0]), edge[1]), []).append(node)
    reasons, queue = [], [slot_of(x)]
    seen = set(queue)
    for slot in queue:  # grows while it is walked
        for node in users.get(slot, []):
            outputs = [(id(node), k) for k in range(len(node.output_types))]
            if any(s in flows.total for s in outputs):
                reasons.append(f"the backward of {op_at(node)} returns None for it")
            else:
                new = [s for s in outputs if s not in seen]
                seen.update(new)
                queue += new
    return list(dict.fromkeys(reasons))


# ---- a gradient ------------------------------------------------------------------------------------------------


def _reasons(
    verdict: str, flows: Flows, flow: Flow, hops: Sequence[Hop], order: Sequence[Function], x: Tensor
) -> list[str]:
    if verdict == "zero":
        return _causes(flows, x, order, "zeroed by", "the contributions to the gradient of {} cancel each other out")
    if verdict in ("nan", "inf"):
        return _causes(flows, x, order, "", "the sum of the contributions to the gradient of {} is not finite")
    if verdict in ("huge", "tiny"):
        return [_growth(hops, verdict == "huge")]
    if flow.share_of_zeros >= 0.1:
        return [_why_sparse(flow, hops)]
    return []


def _causes(flows: Flows, x: Tensor, order: Sequence[Function], verb: str, in_sum: str) -> list[str]:
    """Return the ops (or sums) at which the gradient of x became zero, or not finite, nearest to the loss first."""
    position = {id(node): i for i, node in enumerate(order)}
    reasons: list[tuple[int, str]] = []
    for source in flows.sources(slot_of(x), *((_zero, True) if verb else (_spoiled, False))):
        if isinstance(source, Contribution):
            remark = flows.remarks.get((id(source.node), source.position), "")
            reasons.append((position[id(source.node)], f"{verb} {op_at(source.node)}: {remark}" if verb else remark))
        else:
            own = source == slot_of(x)
            at = len(order) if own else position[source[0]]
            reasons.append((at, in_sum.format((x.name or "this Tensor") if own else op_at(order[at]))))
    counts = Counter(text for _, text in sorted(reasons))
    return [f"{text} ({n} times)" if n > 1 else text for text, n in counts.items()]


def _zero(flow: Flow) -> bool:
    return flow.is_zero


def _spoiled(flow: Flow) -> bool:
    return not flow.is_finite


def _growth(hops: Sequence[Hop], grew: bool) -> str:
    """Return the step that changes the norm most, or the op that does so most in all, if no step stands out."""
    factors = [(hop, hop.after.norm / hop.before.norm) for hop in hops if hop.before.norm and hop.after.norm]
    sign = 1 if grew else -1
    if not factors:
        return "so at the loss itself"
    by_op: dict[str, list[float]] = {}
    for hop, factor in factors:
        by_op.setdefault(hop.node.name, []).append(math.log10(factor))
    total = sum(sum(logs) for logs in by_op.values())
    top, most = max(factors, key=lambda f: sign * math.log(f[1]))
    verb = "grows" if grew else "shrinks"
    op = max(by_op, key=lambda name: sign * sum(by_op[name]))
    logs = by_op[op]
    if len(logs) > 1 and sign * math.log10(most) < 0.5 * sign * total:
        return (
            f"no one step is to blame: {len(logs):,} times {op} on the path multiply it by {_power(sum(logs))} "
            f"together, by {_power(sum(logs) / len(logs))} each; it {verb} most at {op_at(top.node)}, "
            f"by a factor {_power(math.log10(most))}"
        )
    return f"it {verb} most at {op_at(top.node)}, by a factor {_power(math.log10(most))}"


def _power(exponent: float) -> str:
    return f"{10**exponent:.5g}" if abs(exponent) < 300 else f"1e{exponent:+.0f}"


def _why_sparse(flow: Flow, hops: Sequence[Hop]) -> str:
    """Return the op nearest to the Tensor that made most of the zeros in its gradient."""
    text = f"{percent(flow.share_of_zeros)} of its elements are zero"
    half = flow.share_of_zeros / 2
    for hop in reversed(hops):
        if hop.before.share_of_zeros < half <= hop.after.share_of_zeros:
            why = why_zero(hop.node, hop.position)
            passed = (1 - hop.after.share_of_zeros) / max(1 - hop.before.share_of_zeros, 1e-9)
            return f"{text}: {op_at(hop.node)} lets {percent(min(passed, 1))} through" + (f" ({why})" if why else "")
    return text


def _step(hop: Hop) -> Step:
    node, before, after = hop.node, hop.before, hop.after
    return Step(node.name, node.path, node.source, before.norm, after.norm, before.share_of_zeros, after.share_of_zeros)


# ---- shares and notes ------------------------------------------------------------------------------------------


def _meetings(flows: Flows, hops: Sequence[Hop]) -> list[tuple[str, list[tuple[float, str]]]]:
    """Return where ways meet on the path: at the Tensor itself, and the two places where the path has least of all."""
    met = []
    for i, hop in enumerate(hops):
        edge = (hop.node.edges or ())[hop.position]
        given = flows.into[id(edge[0]), edge[1]] if edge is not None else []
        total = sum(c.flow.norm for c in given)
        if len(given) < 2 or not 0 < total < math.inf or hop.after.norm / total > 0.95:
            continue
        paths = [c.node.path for c in given]
        told_apart = all(paths) and len(set(paths)) == len(paths)
        parts: dict[str, float] = {}
        for c in given:
            name = c.node.path if told_apart else op_at(c.node)
            parts[name] = parts.get(name, 0.0) + c.flow.norm / total
        if len(parts) == 1:
            continue
        last = i == len(hops) - 1
        what = "its gradient" if last else f"the gradient of what {op_at(hops[i + 1].node)} gives"
        met.append((last, hop.after.norm / total, what, sorted(((s, n) for n, s in parts.items()), reverse=True)))
    met.sort(key=lambda m: (not m[0], m[1]))
    return [(what, parts) for _, _, what, parts in met[:3]]


def _shares(parts: Sequence[tuple[float, str]]) -> str:
    text = ", ".join(f"{percent(round(share, 3))} through {name}" for share, name in parts[:3])
    rest = sum(share for share, _ in parts[3:])
    return text + (f", {percent(round(rest, 3))} through {plural(len(parts) - 3, 'other')}" if parts[3:] else "")


def _notes(x: Tensor, loss: Tensor, order: Sequence[Function], hops: Sequence[Hop]) -> list[str]:
    notes = []
    if cuts := [cut for cut in cuts_between(x, loss, order) if not cut.by_engine]:
        ways = list(dict.fromkeys(str(cut) for cut in reversed(cuts)))
        notes.append(f"note: a part of its use is cut off: {'; '.join(ways[:3])}")
    if x.node is not None:
        notes.append("note: it is no leaf, so backward() leaves its .grad None unless retain_grad() was called on it")
    hooked = [op_at(hop.node) for hop in hops if hop.node.gradient_hooks]
    hooked += [x.name or "this Tensor"] if x.node is None and getattr(x, "hooks", None) else []
    if hooked:
        notes.append(f"note: hooks, which may change gradients, are not called here: on {', '.join(hooked[:3])}")
    return notes
