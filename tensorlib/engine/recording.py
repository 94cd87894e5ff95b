"""What is recorded in this thread: whether nodes are, in which module, with which line, and who is told of it.

All of it is one immutable value in a ContextVar: threads don't disturb each other, an exception restores what was
before, and an op looks once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tensorlib.engine.function import Function
    from tensorlib.tensor import Tensor

__all__ = ["is_grad_enabled", "module_scope", "no_grad", "record_source"]


class Watch:
    """Is told of every value and gradient as it is computed, in the thread and for as long as it is set."""

    runs_hooks = True  # does a backward pass under this watch call the hooks on gradients?

    def forward(self, node: Function, inputs: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        """`node` has computed `outputs` from `inputs`, the arguments of ``apply``. It may be recorded or not."""

    def backward(self, node: Function, dys: Sequence[Any], dxs: Sequence[Any]) -> None:
        """`node` has computed the gradients `dxs` of its inputs from `dys`: arrays, or Tensors under create_graph.

        None stands for a gradient that is not wanted, or that the op does not give.
        """

    def arrived(self, leaf: Tensor, dx: Any) -> None:
        """`dx`, an array or a Tensor, is the whole gradient of `leaf`, after its hooks."""

    def detached(self, x: Tensor, y: Tensor, how: str) -> None:
        """`y` is the value of `x` without history, made by the method `how`."""


class State(NamedTuple):
    record: bool = True  # are nodes recorded at all?
    path: str = ""  # the module in whose forward we are, as "encoder.layers.0"
    source: bool = False  # shall nodes note the line of the caller that made them?
    tape: Any = None  # its method `ran` is told of every op and what it was given, for `checkpoint`
    watch: Watch | None = None  # who is told of everything that is computed, for `debug`


NOTHING_SPECIAL = State()
STATE: ContextVar[State] = ContextVar("tensorlib_state", default=NOTHING_SPECIAL)


@contextmanager
def recording(**changes: Any) -> Iterator[None]:
    token = STATE.set(STATE.get()._replace(**changes))
    try:
        yield
    finally:
        STATE.reset(token)


def no_grad() -> Any:
    """Record nothing inside, in this thread only: a context manager, or a decorator of functions."""
    return recording(record=False)


def current_state() -> State:
    """Return what is recorded in this thread, and how."""
    return STATE.get()


def is_grad_enabled() -> bool:
    """Return True where operations are recorded, False inside `no_grad`."""
    return STATE.get().record


def module_scope(path: str) -> Any:
    """Nodes recorded inside belong to the module `path` ("decoder.layers.1"): what pictures and messages show."""
    return recording(path=path)


def record_source() -> Any:
    """Nodes recorded inside note the line of code that made them, as ``file.py:12``. Costs some microseconds an op."""
    return recording(source=True)


# ---- the user's line -----------------------------------------------------------------------------------------------


def calling_line() -> str:
    """Return ``file:line`` of the innermost frame that lies outside tensorlib and nn, and what they call through."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_USERS:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


_NOT_THE_USERS = ("tensorlib", "nn", "functools", "contextlib")  # a formula is called through functools.singledispatch


def shown_line(source: str) -> str:
    """Return a ``file:line`` as messages show it: from the current directory, if the file lies in it."""
    try:
        return source.removeprefix(os.path.join(os.getcwd(), ""))
    except OSError:  # the current directory is gone
        return source
