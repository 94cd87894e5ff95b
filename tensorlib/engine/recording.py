"""Per-thread recording state: grad mode, current module path, source lines, observers.

The state is one immutable value in a ContextVar. So threads do not disturb each other, an exception restores the
previous state, and an op reads the whole state at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from tensorlib.engine.function import Function
    from tensorlib.engine.value import Value
    from tensorlib.tensor import Tensor

__all__ = ["is_grad_enabled", "module_scope", "no_grad", "record_source"]


F = TypeVar("F", bound=Callable[..., Any])


class Scope(Protocol):
    """A context manager that is also a decorator of functions."""

    def __enter__(self) -> None: ...
    def __exit__(self, *error: Any) -> bool | None: ...
    def __call__(self, function: F, /) -> F: ...


class Watch:
    """Observes every value and gradient as it is computed, in one thread, while it is set in the recording state."""

    runs_hooks = True  # whether a backward pass under this watch calls the hooks on gradients

    def forward(self, node: Function, inputs: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        """Observe that `node`, recorded or not, has computed `outputs` from `inputs`, the arguments of ``apply``."""

    def backward(self, node: Function, dys: Sequence[Any], dxs: Sequence[Any]) -> None:
        """Observe that `node` has computed the gradients `dxs` of its inputs from `dys`, those of its outputs.

        Gradients are arrays, or Tensors under create_graph; a gradient that is not wanted or does not exist is None.
        """

    def arrived(self, leaf: Value, dx: Any) -> None:
        """Observe the complete gradient of `leaf`, an array or a Tensor, after its hooks."""

    def detached(self, x: Tensor, y: Tensor, how: str) -> None:
        """Observe that the method `how` has returned `y`, the value of `x` without history."""


class State(NamedTuple):
    """The recording state of a thread, which an op reads before it runs."""

    record: bool = True  # grad mode: whether nodes are recorded
    path: str = ""  # the module whose forward is running, as "encoder.layers.0"
    source: bool = False  # whether nodes note the user's line that called them
    formulas: bool = False  # whether sub-layers record the ops that they are composed of, instead of one op
    tape: Any = None  # for `checkpoint`: its method `ran` is called with each op and its inputs
    changeable: Any = None  # in a hook: the gradient that it got, which ``g *= 2`` changes
    watch: Watch | None = None  # for `debug` and `explain`: observes everything that is computed
    precision: str = "float32"  # of the operands of matrix products; see `precision`


DEFAULT_STATE = State()
STATE: ContextVar[State] = ContextVar("tensorlib_state", default=DEFAULT_STATE)


@contextmanager
def recording(**changes: Any) -> Iterator[None]:
    """Change fields of this thread's state inside a ``with`` block or a decorated function."""
    token = STATE.set(STATE.get()._replace(**changes))
    try:
        yield
    finally:
        STATE.reset(token)


def no_grad() -> Scope:
    """Disable recording inside, in this thread only. Use it as a context manager or a decorator of functions.

    The call alone does nothing: write ``with tl.no_grad():`` or ``@tl.no_grad()``.

    >>> x = tl.Tensor(2.0, requires_grad=True)
    >>> with tl.no_grad():
    ...     y = x * x
    >>> y.requires_grad
    False
    """
    return recording(record=False)


def is_grad_enabled() -> bool:
    """Return True if operations are recorded here, False inside `no_grad`.

    >>> tl.is_grad_enabled()
    True
    """
    return STATE.get().record


def module_scope(path: str) -> Scope:
    """Mark the nodes recorded inside as part of the module `path`, which pictures and messages show.

    >>> with tl.module_scope("decoder.layers.1"):
    ...     y = tl.exp(tl.ones(2))
    """
    return recording(path=path)


def record_source() -> Scope:
    """Make nodes recorded inside note the line of user code that called them. This costs a few microseconds per op.

    >>> x = tl.Tensor([1.0], requires_grad=True)
    >>> with tl.record_source():
    ...     y = tl.exp(x)  # messages about y name this line
    """
    return recording(source=True)


# ---- the user's line -----------------------------------------------------------------------------------------------


def calling_line() -> str:
    """Return ``file:line`` of the innermost frame outside tensorlib, nn and the modules that they call through."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_USER:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


_NOT_THE_USER = ("tensorlib", "nn", "functools", "contextlib")  # singledispatch calls formulas through functools


def shown_line(source: str) -> str:
    """Return ``file:line`` as messages show it: relative to the current directory if the file is in it."""
    try:
        return source.removeprefix(os.path.join(os.getcwd(), ""))
    except OSError:  # the current directory is gone
        return source
