"""debug: report the first NaN or Inf at the op that computes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import numpy as np

from tensorlib.debugging.history_cuts import CutTracker
from tensorlib.debugging.ranges import Range, all_finite, range_of
from tensorlib.debugging.remedies import backward_remedy, forward_remedy
from tensorlib.engine.backward import topological_order
from tensorlib.engine.function import Function
from tensorlib.engine.recording import Scope, Watch, recording, shown_line
from tensorlib.engine.value import Value
from tensorlib.graphs.building import graph_of_nodes
from tensorlib.graphs.graph import Graph
from tensorlib.messages import plural
from tensorlib.tensor import Tensor

__all__ = ["debug", "record_formulas"]


def debug() -> Scope:
    """Check every value and gradient computed inside. Use it as a context manager or a decorator of functions.

    The call alone does nothing: write ``with tl.debug():`` or ``@tl.debug()``.

    The first NaN, or the first Inf computed from finite inputs, raises FloatingPointError. It names the op, the
    module, your line that called it, the shapes and ranges of its inputs, and a remedy. An Inf that was already in the
    inputs, as in a mask of -inf before softmax, passes.

    Any exception that leaves the block or function has an attribute `graph`: what had been recorded by then and still
    exists, as `tl.graph` returns it, so ``tl.draw(error.graph, "error.svg")`` draws it. It is None if nothing was.

    Every op recorded inside also notes its line, so that an exception in its backward, even outside, names the line.
    Cuts of a history are noted too, so that `explain` can say why a gradient is None. They cost memory: the history
    behind a constant computed inside is kept as long as the constant. Only this thread is affected; its ops take
    several times as long.

    >>> x = tl.Tensor([0.0, 1.0], requires_grad=True)
    >>> with tl.debug():
    ...     loss = tl.log(x).sum()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FloatingPointError: log: the output must be finite, got 1 -Inf in 2 elements; ...
    """
    return _debugging()


def record_formulas() -> Scope:
    """Make sub-layers such as `feed_forward` record the ops that they are composed of: for pictures and explanations.

    Values and gradients are the same except for rounding; a step takes longer. `debug` does so, too.

    >>> x, w, b = tl.ones((1, 2)), tl.Tensor(np.eye(2), requires_grad=True), tl.zeros(2)
    >>> with tl.record_formulas():
    ...     y = tl.feed_forward(x, w, b, w, b)
    >>> y.node.name, tl.feed_forward(x, w, b, w, b).node.name
    ('linear', 'feed_forward')
    """
    return recording(formulas=True)


@contextmanager
def _debugging() -> Iterator[None]:
    watch = _FiniteCheck()
    try:
        # The report replaces NumPy's warnings.
        with np.errstate(all="ignore"), recording(source=True, formulas=True, watch=watch):
            yield
    except Exception as error:
        error.graph = watch.recorded()  # type: ignore[attr-defined]
        raise
    finally:
        watch.cuts.close()


class _FiniteCheck(Watch):
    def __init__(self) -> None:
        self.cuts = CutTracker()
        self.nodes: WeakSet[Function] = WeakSet()

    def recorded(self) -> Graph | None:
        """Return the graph of the nodes recorded so far that still exist."""
        roots = [node for node in self.nodes if node.edges is not None]
        try:
            return graph_of_nodes(topological_order(roots)[::-1]) if roots else None
        except RuntimeError:  # a part of it was released by a backward pass
            return None

    def forward(self, node: Function, inputs: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        if node.edges is not None:
            self.nodes.add(node)
        self.cuts.ran(node, inputs, outputs)
        for k, y in enumerate(outputs):
            if not all_finite(y.array):
                self.check_output(node, inputs, k if len(outputs) > 1 else None, y)

    def check_output(self, node: Function, inputs: Sequence[Any], k: int | None, y: Tensor) -> None:
        """Raise FloatingPointError, unless the output has only Inf, and an input or attribute is infinite."""
        ranges, output = [range_of(x) for x in inputs], range_of(y)
        assert output is not None
        infinite_input = any(x.infs for x in ranges if x) or any(
            isinstance(value, float) and math.isinf(value) for value in vars(node).values()
        )
        if output.nans or not infinite_input:
            raise FloatingPointError(_forward_report(node, inputs, ranges, k, output))

    def backward(self, node: Function, dys: Sequence[Any], dxs: Sequence[Any]) -> None:
        for i, dx in enumerate(dxs):
            if dx is not None and not all_finite(getattr(dx, "array", dx)):
                raise FloatingPointError(backward_report(node, dys, i, dx))

    def arrived(self, leaf: Value, dx: Any) -> None:
        if not all_finite(getattr(dx, "array", dx)):
            found = range_of(dx)
            assert found is not None
            raise FloatingPointError(
                f"backward: the gradient of {leaf.name or 'a leaf'} of shape {leaf.shape} must be finite, "
                f"got {found.specials()} in {plural(found.size, 'element')}; every contribution to it was finite: "
                "their sum overflows, or a hook changed it"
            )

    def detached(self, x: Tensor, y: Tensor, how: str) -> None:
        self.cuts.detached(x, y, how)


def _forward_report(
    node: Function, inputs: Sequence[Any], ranges: Sequence[Range | None], k: int | None, output: Range
) -> str:
    names = [x.name if isinstance(x, Value) else "" for x in inputs]
    described = [
        f"input {i}{f' ({name})' if name else ''} is {x}"
        for i, (name, x) in enumerate(zip(names, ranges, strict=True))
        if x is not None
    ]
    which = "the output" if k is None else f"output {k}"
    parts = [
        f"{node.name}: {which} must be finite, got {output.specials()} in {plural(output.size, 'element')}",
        _call_site(node),
        *described,
        forward_remedy(node.name, ranges, output),
    ]
    return "; ".join(parts)


def backward_report(node: Function, dys: Sequence[Any], i: int, dx: Any) -> str:
    """Return one line about the gradient of input `i`, which is not finite: the op, the ranges around it, a remedy."""
    found, gradients = range_of(dx), [range_of(dy) for dy in dys]
    saved = {role: x for role, array in node.saved_by_role() if (x := range_of(array)) is not None}
    assert found is not None
    edge = (node.edges or ())[i]
    name = edge[0].name if edge is not None and isinstance(edge[0], Value) else ""
    described = [f"{'dy' if len(dys) == 1 else f'dy {k}'} is {dy}" for k, dy in enumerate(gradients)]
    for role, x in saved.items():
        which = f"input {role}" if role >= 0 else "the output" if len(dys) == 1 else f"output {-1 - role}"
        described.append(f"{which} was {x}")
    parts = [
        f"{node.name}: backward: the gradient of input {i}{f' ({name})' if name else ''} must be finite, "
        f"got {found.specials()} in {plural(found.size, 'element')}",
        _call_site(node),
        *described,
        backward_remedy(node.name, gradients, saved, found),
    ]
    return "; ".join(parts)


def _call_site(node: Function) -> str:
    module = f", in module {node.path}" if node.path else ""
    if node.source is None:
        return f"run the forward pass within tl.debug() to see its line{module}"
    return f"called at {shown_line(node.source)}{module}"
