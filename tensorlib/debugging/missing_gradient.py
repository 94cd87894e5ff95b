"""Why a Tensor gets no gradient at all."""

from __future__ import annotations

from collections.abc import Sequence

from tensorlib.debugging.gradient_flow import ObservedPass, Slot, slot_of
from tensorlib.debugging.history_cuts import cut_of, cuts_between
from tensorlib.debugging.locations import located_op
from tensorlib.engine.function import Function
from tensorlib.engine.value import Value
from tensorlib.tensor import Tensor

__all__ = ["why_constant", "why_none", "why_unreached"]


def why_constant(x: Tensor) -> str:
    """Return why `x` does not require a gradient."""
    if (cut := cut_of(x)) is not None:
        cuts = cuts_between(x, x, []) or [cut]
        return f"it is a constant: {cuts[0]}"
    if x.dtype.kind != "f":
        return f"it is of dtype {x.dtype}, and only floating Tensors have gradients"
    return (
        "it does not require one: set requires_grad=True before the forward pass; "
        "or it was detached or computed inside no_grad"
    )


def why_unreached(x: Tensor, loss: Tensor, nodes: Sequence[Function]) -> list[str]:
    """Return why no path leads from `loss` to `x`: the cuts that debug noted, or what the graph shows."""
    if cuts := cuts_between(x, loss, nodes):
        return list(dict.fromkeys(str(cut) for cut in reversed(cuts)))  # nearest to the loss first
    if reasons := _visible_reasons(x, nodes):
        return reasons
    if not loss.requires_grad:
        return ["the loss has no history: none of its inputs requires a gradient, or it was computed inside no_grad"]
    if all("cuts" in vars(node) for node in nodes):  # debug observed every op
        return ["no path: not used by this loss (or only its value, through .data, .numpy() or .item())"]
    return [
        "no path: not used by this loss, or cut off from it by detach, no_grad or an op without a gradient; "
        "run the forward pass within tl.debug() and ask again to see where"
    ]


def _visible_reasons(x: Tensor, nodes: Sequence[Function]) -> list[str]:
    """Return the uses of a namesake of `x`, or of its array as a constant, in the recorded graph."""
    reasons = []
    for node in nodes:
        for edge in node.edges or ():
            leaf = edge[0] if edge is not None else None
            if isinstance(leaf, Value) and x.name and leaf.name == x.name and leaf is not x:
                reasons.append(
                    f"another Tensor called {x.name} is in the graph: the module's Tensor was replaced, before or "
                    "after the forward pass; explain the one that the module held then"
                )
        for role, array in node.saved_by_role():
            if array is x.array and role >= 0 and (node.edges or ())[role] is None:
                reasons.append(
                    f"{located_op(node)} uses its value as a constant: "
                    "it was detached, or requires_grad was set too late"
                )
    return list(dict.fromkeys(reasons))


def why_none(x: Tensor, observed: ObservedPass, nodes: Sequence[Function]) -> list[str]:
    """Return the ops between the loss and `x` whose backward returns None for an input that leads to x."""
    users: dict[Slot, list[Function]] = {}
    for node in nodes:
        for edge in node.edges or ():
            if edge is not None:
                users.setdefault((id(edge[0]), edge[1]), []).append(node)
    reasons, queue = [], [slot_of(x)]
    seen = set(queue)
    for slot in queue:  # grows during the loop
        for node in users.get(slot, []):
            outputs = [(id(node), k) for k in range(len(node.output_types))]
            if any(output in observed.total for output in outputs):
                reasons.append(f"the backward of {located_op(node)} returns None for it")
            else:
                new = [output for output in outputs if output not in seen]
                seen.update(new)
                queue += new
    return list(dict.fromkeys(reasons))
