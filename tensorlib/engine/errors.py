"""Errors of ops in the user's terms: which function was called, on which operands, and where the op was recorded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import backend_of
from tensorlib.arrays.conversion import check_numbers, too_large
from tensorlib.engine.value import Value
from tensorlib.messages import broadcast_remedy, shown

if TYPE_CHECKING:
    from tensorlib.engine.function import Function
    from tensorlib.engine.node import Node

__all__ = ["by_name", "called_op", "explained", "in_backward", "overwritten", "replaced_since", "require_arrays"]


# ---- the forward pass --------------------------------------------------------------------------------------------


def explained(op: Function, arrays: list[Any], options: dict[str, Any], error: Exception) -> Exception:
    """Return `error`, raised by `forward`, with the name of the public function and a description of its operands."""
    name = called_op(op.name)
    if str(error).startswith(f"{op.name}:"):
        return by_name(error, op.name) if type(error) in (TypeError, ValueError) else error
    named = [x for x in arrays if hasattr(x, "shape")]
    backends = [backend_of(x).name for x in named]
    if len(set(backends)) > 1:
        return TypeError(
            f"{name}: operands must be on one backend, got {' and '.join(backends)}; move one with .to({backends[0]!r})"
        )
    shapes = [tuple(x.shape) for x in named]
    if op.broadcasts:
        try:
            np.broadcast_shapes(*shapes)
        except ValueError:
            both = " and ".join(map(str, shapes))
            return ValueError(f"{name}: shapes must broadcast, got {both}; {broadcast_remedy(shapes)}")
    dtypes = " and ".join([str(x.dtype) for x in named])
    if isinstance(error, TypeError) and "boolean" in str(error):
        symbol = {"negative": "~ x", "subtract": "x ^ y"}.get(name)
        return TypeError(
            f"{name}: operands must be numbers, got {dtypes}; "
            f"use {f'{symbol}, or ' if symbol else ''}x.astype('float32')"
        )
    if isinstance(error, TypeError) and "ufunc" in str(error):  # NumPy's own message speaks of C types
        return TypeError(f"{name}: operands must have a dtype that supports it, got {dtypes}; use x.astype('float32')")
    if type(error) is OverflowError and (numbers := [x for x in arrays if isinstance(x, int)]):
        return too_large(name, named[0].dtype, numbers)
    if type(error) not in (TypeError, ValueError):
        return error
    if "read-only" in str(error):
        return ValueError(
            f"{type(op).__name__}: forward must not write into its inputs; write into a copy: y = x.copy()"
        )
    given = [f"shape {', '.join(map(str, shapes)) or 'none'}", *[f"{k}={shown(v)}" for k, v in options.items()]]
    return type(error)(f"{name}: {str(error).partition(chr(10))[0]} (operands of {', '.join(given)})")


def require_arrays(op: Node, method: str, result: Any, tensors: bool = False) -> None:
    """Raise TypeError for anything but arrays of numbers, and for Tensors unless allowed, from a user's method."""
    wanted = f"{op.name}: {method} must return an array, or a tuple of arrays, got"
    results = result if isinstance(result, tuple) else (result,)
    for y in results:
        if isinstance(y, Value):
            if tensors:
                continue
            raise TypeError(
                f"{wanted} {shown(y)}; compute with functions of tl.namespace_of(x), such as np.exp, or return y.data"
            )
        if hasattr(y, "dtype"):
            check_numbers(f"{op.name}: {method}", y.dtype)
            if not y.dtype.isnative or (isinstance(y, np.ndarray) and type(y) is not np.ndarray):
                raise TypeError(
                    f"{wanted} {type(y).__name__} of dtype {y.dtype.str}; write tl.Tensor(y).data, or y.filled(0) "
                    "for a masked array"
                )
        elif method == "forward":
            remedy = "is its return missing?" if y is None else "use arrays of tl.namespace_of(x)"
            raise TypeError(f"{wanted} {shown(y)}; {remedy}")
    if method == "forward" and op.edges and not any(y.dtype.kind == "f" for y in results):
        raise TypeError(
            f"{op.name}: forward must return floating numbers where a gradient is wanted, got "
            f"{' and '.join([str(y.dtype) for y in results]) or 'none'}; set differentiable = False in the class "
            "if it has no gradient"
        )


def called_op(otherwise: str) -> str:
    """Return the public function that the user called to get here: "mse_loss", not the "subtract" inside it."""
    name, frame = otherwise, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("tensorlib", "functools"):
        if frame.f_code.co_name == "_run_backward":
            return otherwise
        if frame.f_code.co_name in frame.f_globals.get("__all__", ()) and frame.f_globals is not globals():
            name = frame.f_code.co_name
        elif frame.f_code.co_name == "widened":  # at_least_float32, around the op
            name = frame.f_locals["op"].__name__
        frame = frame.f_back
    return name


def by_name(error: Exception, speaker: str) -> Exception:
    """Return `error` with the public function's name in place of `speaker`, the name before the first colon."""
    text = str(error)
    said, colon, rest = text.partition(": ")
    return type(error)(f"{called_op(speaker)}: {rest}") if colon and said in (speaker, "backend_of") else error


# ---- the backward pass -------------------------------------------------------------------------------------------


def in_backward(node: Function, error: Exception) -> Exception:
    """Return `error` of `backward` with the op's name and origin in its message; of the same type if possible."""
    message = f"{node.name}: backward failed: {type(error).__name__}: {error}; the op is {node.origin()}"
    if node.guarded and "read-only" in message:
        message = f"{node.name}: backward must not write into dy or saved arrays; write into a copy: dx = dy.copy()"
    return type(error)(message) if type(error) in _PLAIN_ERRORS else RuntimeError(message)


_PLAIN_ERRORS = {
    ArithmeticError, AttributeError, FloatingPointError, IndexError, KeyError, MemoryError, NotImplementedError,
    RuntimeError, TypeError, ValueError, ZeroDivisionError,
}  # fmt: skip


def overwritten(node: Node) -> RuntimeError:
    """Return the error for a node that kept memory into which an assignment such as ``x.data -= y`` has written."""
    return RuntimeError(
        f"backward: {node.name} needs a value that an assignment to .data has overwritten since the forward pass; "
        f"run the backward pass before the update; the op is {node.origin()}"
    )


def replaced_since(what: str, leaf: Value, version: int) -> RuntimeError:
    """Return the error for a leaf whose array was replaced after the forward pass had saved it."""
    return RuntimeError(
        f"backward: {what} needs the value that {leaf.name or 'a leaf'} of shape {leaf.shape} had in the "
        f"forward pass (version {version}), but it has been replaced since (version {leaf.version}); "
        "run the backward pass before the update"
    )
