"""The names of public functions that are compositions of ops, such as `mean`, as the path of these ops.

Nothing is noted in ordinary recording. Only while a module or function is recorded with ``formulas=True``, a watch looks
at each op's stack of calls, which costs a few microseconds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from tensorlib.engine.function import Function
from tensorlib.engine.node import op_name
from tensorlib.engine.recording import Watch

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__ = ["CompositeNames"]

_PACKAGES = ("tensorlib", "nn", "functools", "contextlib")


class CompositeNames(Watch):
    """Adds to the path of each op the public functions that called it: ``mean()`` for the sum and the quotient."""

    def forward(self, node: Function, inputs: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        """Add the names, outermost first, unless the only function is the op's own."""
        names = _public_functions(sys._getframe(1))  # the engine, which notifies
        own = op_name(type(node))
        if names and names[-1].rstrip("_") == own:
            names.pop()
        if names:
            node.path = ".".join([*([node.path] if node.path else []), *[f"{name}()" for name in names]])


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
