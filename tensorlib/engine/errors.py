"""Errors of ops in the user's words: the function that was called, and what its operands were."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import backend_of
from tensorlib.messages import shown

if TYPE_CHECKING:
    from tensorlib.engine.function import Function

__all__ = ["by_name", "called_op", "diagnosed"]


def diagnosed(node: Function, arrays: list[Any], options: dict[str, Any], error: Exception) -> Exception:
    """Name the op in an error that NumPy or CuPy raised, and say what the operands were."""
    name = called_op(node.name)
    if str(error).startswith(f"{node.name}:"):
        return by_name(error, node.name) if type(error) in (TypeError, ValueError) else error
    named = [x for x in arrays if hasattr(x, "shape")]
    backends = [backend_of(x).name for x in named]
    if len(set(backends)) > 1:
        return TypeError(
            f"{name}: operands must be on one backend, got {' and '.join(backends)}; move one with .to({backends[0]!r})"
        )
    shapes = [tuple(x.shape) for x in named]
    if node.broadcasts:
        try:
            np.broadcast_shapes(*shapes)
        except ValueError:
            return ValueError(f"{name}: shapes must broadcast, got {' and '.join(map(str, shapes))}")
    if isinstance(error, TypeError) and "boolean" in str(error):
        symbol = {"negative": "~ x", "subtract": "x ^ y"}.get(name)
        return TypeError(
            f"{name}: booleans are no numbers, got {' and '.join([str(x.dtype) for x in named])}; "
            f"use {f'{symbol}, or ' if symbol else ''}x.astype('float32')"
        )
    if isinstance(error, TypeError) and "ufunc" in str(error):  # NumPy's words are about C types
        dtypes = " and ".join([str(x.dtype) for x in named])
        return TypeError(f"{name}: operands must be of a dtype that has it, got {dtypes}; use x.astype('float32')")
    if type(error) not in (TypeError, ValueError):
        return error
    given = [f"shape {', '.join(map(str, shapes)) or 'none'}", *[f"{k}={shown(v)}" for k, v in options.items()]]
    return type(error)(f"{name}: {str(error).partition(chr(10))[0]} (operands of {', '.join(given)})")


def called_op(otherwise: str) -> str:
    """Return the public function that the user called to get here, for an error to name: "mse_loss", not "subtract"."""
    name, frame = otherwise, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("tensorlib", "functools"):
        if frame.f_code.co_name == "_call_backward":
            return otherwise
        if frame.f_code.co_name in frame.f_globals.get("__all__", ()):
            name = frame.f_code.co_name
        elif frame.f_code.co_name == "widened":  # at_least_float32, around the op
            name = frame.f_locals["op"].__name__
        frame = frame.f_back
    return name


def by_name(error: Exception, speaker: str) -> Exception:
    """Return the error with the function that the user called in the place of the `speaker`, who stands before ":"."""
    text = str(error)
    said, colon, rest = text.partition(": ")
    return type(error)(f"{called_op(speaker)}: {rest}") if colon and said in (speaker, "backend_of") else error
