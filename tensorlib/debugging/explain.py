"""explain: say in a few lines of text why a gradient is None, zero, NaN, huge or fine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tensorlib.debugging.gradient_causes import reasons_for, verdict_of
from tensorlib.debugging.gradient_flow import Hop, observe_backward, slot_of
from tensorlib.debugging.gradient_path import Shares, Step, joins, listing, shown_shares, steps_of
from tensorlib.debugging.history_cuts import cuts_between
from tensorlib.debugging.locations import located_op
from tensorlib.debugging.missing_gradient import why_constant, why_none, why_unreached
from tensorlib.engine.function import Function
from tensorlib.graphs.building import recorded_nodes
from tensorlib.messages import plural
from tensorlib.tensor import Tensor

__all__ = ["Explanation", "explain"]


@dataclass(repr=False)
class Explanation:
    """The answer of `explain`; ``str()`` gives it as text. It holds numbers and names only, so it may be kept.

    Attributes:
        verdict: "none", "zero", "nan", "inf", "huge" (norm above 1e3), "tiny" (below 1e-7) or "fine".
        reasons: phrases that give the reasons for the verdict, the most important first.
        name: the name of the Tensor in question, or "this Tensor" if it has none.
        shape, dtype: those of the Tensor.
        norm: the norm of its gradient; None without a gradient.
        zeros: the fraction of the gradient's elements that are 0.
        path: the ops on the path that carries most of the gradient, from the loss on.
        shares: for each gradient on this path to which other paths contribute, a phrase and the shares of all paths.
        notes: further lines of text, such as cuts and hooks.

    >>> x = tl.Tensor([3.0, 4.0], requires_grad=True)
    >>> answer = tl.explain(x, (x * x).sum())
    >>> answer.verdict, round(answer.norm, 3), [step.op for step in answer.path]
    ('fine', 10.0, ['sum', 'multiply'])
    """

    verdict: str
    reasons: list[str]
    name: str
    shape: tuple[int, ...]
    dtype: str
    norm: float | None = None
    zeros: float = 0.0
    path: list[Step] = field(default_factory=list)
    shares: list[tuple[str, Shares]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        why = "; ".join(self.reasons[:3])
        if len(self.reasons) > 3:
            why += f"; and {plural(len(self.reasons) - 3, 'more reason')}"
        answer = {
            "none": "it gets no gradient",
            "zero": "its gradient is zero",
            "nan": "its gradient holds NaN",
            "inf": "its gradient holds Inf",
        }.get(self.verdict, f"its gradient is {self.verdict}, of norm {self.norm or 0:.3g}")
        lines = [f"{self.name} {self.shape} {self.dtype}: {answer}{': ' if why else ''}{why}"]
        if self.path:
            lines += ["the norm of the gradient on the path that carries most of it:", *listing(self.path)]
        lines += [f"{what} comes {shown_shares(shares)}" for what, shares in self.shares]
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__


def explain(parameter: Tensor, loss: Tensor) -> Explanation:
    """Return why the gradient of `loss` with respect to `parameter` is what it is: None, zero, NaN, huge, or fine.

    Call it before ``loss.backward()``, which releases the graph, or pass ``retain_graph=True`` to that. It runs a
    backward pass that changes neither ``.grad`` nor the graph, and calls no hooks. If the forward pass ran within
    `debug`, the answer names your lines and the operation that cut a history off; otherwise it only uses the graph.

    Raises ValueError if the loss is not a scalar, RuntimeError if its graph was released.

    >>> x = tl.Tensor([1.0, 2.0], requires_grad=True)
    >>> loss = tl.relu(x - 5.0).sum()
    >>> print(tl.explain(x, loss))
    this Tensor (2,) float32: its gradient is zero: zeroed by relu: 100 % of units dead
    the norm of the gradient on the path that carries most of it:
             1  the loss
          1.41  sum
             0  relu
             0  subtract
    """
    _check(parameter, loss)
    answer = Explanation("none", [], _name(parameter), parameter.shape, str(parameter.dtype))
    if not parameter.requires_grad:
        answer.reasons = [why_constant(parameter)]
        return answer
    nodes = recorded_nodes([loss], "explain")
    if not loss.requires_grad:
        answer.reasons = why_unreached(parameter, loss, nodes)
        return answer
    observed, flow = observe_backward(loss, parameter)
    if flow is None:
        answer.reasons = why_none(parameter, observed, nodes) or why_unreached(parameter, loss, nodes)
        return answer
    hops = observed.largest_path(slot_of(parameter))
    answer.verdict, answer.norm, answer.zeros = verdict_of(flow), flow.norm, flow.share_of_zeros
    answer.reasons = reasons_for(flow, parameter, observed, hops, nodes)
    answer.path = steps_of(hops)
    answer.shares = joins(observed, hops)
    answer.notes = _notes(parameter, loss, nodes, hops)
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
            "and sum a loss that is not a scalar"
        )


def _name(x: Tensor) -> str:
    return x.name or "this Tensor"


def _notes(x: Tensor, loss: Tensor, nodes: Sequence[Function], hops: Sequence[Hop]) -> list[str]:
    notes = []
    if cuts := [cut for cut in cuts_between(x, loss, nodes) if not cut.by_engine]:
        phrases = list(dict.fromkeys(str(cut) for cut in reversed(cuts)))
        notes.append(f"note: part of its use is cut off: {'; '.join(phrases[:3])}")
    if x.node is not None:
        notes.append(
            "note: it is not a leaf, so backward() leaves its .grad None unless retain_grad() was called on it"
        )
    hooked = [located_op(hop.node) for hop in hops if hop.node.gradient_hooks]
    hooked += [_name(x)] if x.node is None and getattr(x, "hooks", None) else []
    if hooked:
        notes.append(f"note: hooks, which may change gradients, are not called here: on {', '.join(hooked[:3])}")
    return notes
