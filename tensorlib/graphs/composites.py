"""The names of public functions that are compositions of ops, such as `mean`, as the path of these ops.

Nothing is noted in ordinary recording. Only while `graph` records a module or function with ``formulas=True``, a watch
looks at each op's stack of calls, which costs a few microseconds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from tensorlib.engine.function import Function
from tensorlib.engine.recording import Watch
from tensorlib.graphs.graph import Graph, GraphNode

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__ = ["CompositeNames", "without_own_names"]

_PACKAGES = ("tensorlib", "nn", "functools", "contextlib")


class CompositeNames(Watch):
    """Adds to the path of each op the public functions that called it: ``mean()`` for the sum and the quotient."""

    def forward(self, node: Function, inputs: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        """Add the names, outermost first; `without_own_names` removes those that name only the op itself."""
        if names := _public_functions(sys._getframe(1)):  # the engine, which notifies
            node.path = ".".join([*([node.path] if node.path else []), *[f"{name}()" for name in names]])


def without_own_names(graph: Graph) -> None:
    """Remove "exp()" from the path of an op exp, unless the same call has recorded other ops, as cross_entropy does."""
    neighbors: list[list[GraphNode]] = [[] for _ in graph.nodes]
    for node in graph.nodes:
        for ref in node.inputs:
            if ref.node is not None:
                neighbors[node.number].append(graph.nodes[ref.node])
                neighbors[ref.node].append(node)
    paths = [node.path for node in graph.nodes]
    for node in graph.nodes:
        outer, _, name = node.path.rpartition(".")
        if name == f"{node.op}()" and not any(
            other.op != node.op and f"{other.path}.".startswith(f"{node.path}.") for other in neighbors[node.number]
        ):
            paths[node.number] = outer
    for node, path in zip(graph.nodes, paths, strict=True):
        node.path = path


def _public_functions(frame: FrameType | None) -> list[str]:
    """Return the public functions on the stack, outermost first, up to the module or the user's code that called."""
    names: list[str] = []
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PACKAGES:
        name = frame.f_code.co_name
        if frame.f_globals["__name__"].startswith("tensorlib.graphs."):
            break  # `graph`, which called the function
        if name == "__call__" and "_path" in getattr(frame.f_locals.get("self"), "__dict__", ()):
            break  # a module, whose path the op has
        if name in frame.f_globals.get("__all__", ()):
            names.append(name)
        frame = frame.f_back
    return names[::-1]
