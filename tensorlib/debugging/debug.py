"""debug: the first NaN or Inf is found out where it is made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tensorlib.debugging.detached import CutTracker
from tensorlib.debugging.ranges import Range, all_finite, range_of, remedy_backward, remedy_forward
from tensorlib.engine.function import Function
from tensorlib.engine.recording import Watch, recording, shown_line
from tensorlib.messages import plural
from tensorlib.tensor import Tensor

__all__ = ["debug"]


@contextmanager
def debug() -> Iterator[None]:
    """Look at every value and every gradient computed inside: a context manager, or a decorator of functions.

    ::

        with tl.debug():
            loss = model(x)
            loss.backward()

    The first NaN, and the first Inf that was not put in, raises FloatingPointError: with the op, the module, the line
    of your code that called it, the shapes and ranges of what it was given, and what to do. An Inf that is there
    already, as in a mask of -inf before softmax, passes.

    Every op recorded inside notes its line, so that an exception in its backward names it too, also later; and where a
    history is cut off is noted, so that `explain` can say why a gradient is None. That costs memory: what a constant
    made inside was cut off from lives as long as the constant. Acts in this thread; ops take several times as long.
    """
    watch = _Debug()
    try:
        with np.errstate(all="ignore"), recording(source=True, watch=watch):  # no warnings beside the report
            yield
    finally:
        watch.cuts.close()


class _Debug(Watch):
    def __init__(self) -> None:
        self.cuts = CutTracker()

    def forward(self, node: Function, inputs: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        self.cuts.ran(node, inputs, outputs)
        for k, y in enumerate(outputs):
            if not all_finite(y.array):
                self.judge(node, inputs, k if len(outputs) > 1 else None, y)

    def judge(self, node: Function, inputs: Sequence[Any], k: int | None, y: Tensor) -> None:
        """Raise, unless the output is infinite only because something infinite was put in."""
        ranges, output = [range_of(x) for x in inputs], range_of(y)
        assert output is not None
        given = any(x.infs for x in ranges if x) or any(
            isinstance(value, float) and math.isinf(value) for value in vars(node).values()
        )
        if output.nans or not given:
            raise FloatingPointError(_forward_report(node, inputs, ranges, k, output))

    def backward(self, node: Function, dys: Sequence[Any], dxs: Sequence[Any]) -> None:
        for i, dx in enumerate(dxs):
            if dx is not None and not all_finite(getattr(dx, "array", dx)):
                raise FloatingPointError(backward_report(node, dys, i, dx))

    def arrived(self, leaf: Tensor, dx: Any) -> None:
        if not all_finite(getattr(dx, "array", dx)):
            found = range_of(dx)
            assert found is not None
            raise FloatingPointError(
                f"backward: the gradient of {leaf.name or 'a leaf'} of shape {leaf.shape} must be finite, "
                f"got {found.holds()} in {plural(found.size, 'element')}; every contribution to it was finite: "
                "their sum overflows, or a hook made it so"
            )

    def detached(self, x: Tensor, y: Tensor, how: str) -> None:
        self.cuts.detached(x, y, how)


def _forward_report(
    node: Function, inputs: Sequence[Any], ranges: Sequence[Range | None], k: int | None, output: Range
) -> str:
    named = [getattr(x, "name", "") if isinstance(x, Tensor) else "" for x in inputs]
    given = [
        f"input {i}{f' ({name})' if name else ''} is {x}"
        for i, (name, x) in enumerate(zip(named, ranges, strict=True))
        if x is not None
    ]
    which = "the output" if k is None else f"output {k}"
    parts = [
        f"{node.name}: {which} must be finite, got {output.holds()} in {plural(output.size, 'element')}",
        _where(node),
        *given,
        remedy_forward(node.name, ranges, output),
    ]
    return "; ".join(parts)


def backward_report(node: Function, dys: Sequence[Any], i: int, dx: Any) -> str:
    """Return the line that says that the gradient of input `i` came out as NaN or Inf, and what is known of it."""
    found, gradients = range_of(dx), [range_of(dy) for dy in dys]
    saved = {role: x for role, array in node.saved_by_role() if (x := range_of(array)) is not None}
    assert found is not None
    edge = (node.edges or ())[i]
    name = edge[0].name if edge is not None and isinstance(edge[0], Tensor) else ""
    given = [f"{'dy' if len(dys) == 1 else f'dy {k}'} is {dy}" for k, dy in enumerate(gradients)]
    for role, x in saved.items():
        what = f"input {role}" if role >= 0 else "the output" if len(dys) == 1 else f"output {-1 - role}"
        given.append(f"{what} was {x}")
    parts = [
        f"{node.name}: backward: the gradient of input {i}{f' ({name})' if name else ''} must be finite, "
        f"got {found.holds()} in {plural(found.size, 'element')}",
        _where(node),
        *given,
        remedy_backward(node.name, gradients, saved, found),
    ]
    return "; ".join(parts)


def _where(node: Function) -> str:
    module = f", in module {node.path}" if node.path else ""
    if node.source is None:
        return f"run the forward pass within tl.debug() to see its line{module}"
    return f"called at {shown_line(node.source)}{module}"
