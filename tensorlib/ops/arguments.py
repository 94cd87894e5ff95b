"""Arguments of ops: conversion to Tensors, and checks of axes, flags, shapes, dtypes and numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np

from tensorlib.arrays.backend import namespace_of
from tensorlib.arrays.conversion import numeric_dtype
from tensorlib.engine.errors import called_op
from tensorlib.engine.function import as_tensor, is_tensor
from tensorlib.messages import shown

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

Axis: TypeAlias = int | tuple[int, ...] | None
Shape: TypeAlias = int | tuple[int, ...]

F = TypeVar("F", bound=Callable[..., Any])

HALF = np.dtype("float16")


# ---- Tensors -----------------------------------------------------------------------------------------------------


def as_tensors(xs: Sequence[TensorLike]) -> list[Tensor]:
    """Return every x as a Tensor; numbers and lists become constants on the backend of the first Tensor or array."""
    if False not in [is_tensor(x) for x in xs]:  # the common case first
        return list(xs)  # type: ignore[arg-type]  # each is a Tensor
    arrays = [hasattr(x, "dtype") and not isinstance(x, np.generic) for x in xs]
    like = as_tensor(xs[arrays.index(True)]) if any(arrays) else None
    return [as_tensor(x) if array else as_tensor(x, like) for x, array in zip(xs, arrays, strict=True)]


def operand(x: TensorLike) -> Any:
    """Return a Tensor or an array of NumPy or CuPy as it is, and numbers and lists as an array.

    Raises TypeError, which names the op and `tl.from_dlpack`, for an array of another library.
    """
    tensor = as_tensor(x)
    return x if tensor is x or tensor.data is x else tensor.data


def namespace_among(*operands: Any) -> Any:
    """Return the namespace of the first operand that is an array; numbers have none."""
    return namespace_of(next(x for x in operands if hasattr(x, "dtype")))


def at_least_float32(op: F) -> F:
    """Decorate an op so that it computes float16 operands in float32; unless one is wider, the result is float16.

    This is for sums and products whose intermediate results may exceed 65504 or need more than 11 bits.
    """

    @wraps(op)
    def widened(*arguments: Any, **options: Any) -> Any:
        for x in (*arguments, *options.values()) if options else arguments:
            if getattr(x, "dtype", None) == HALF:
                break
        else:
            return op(*arguments, **options)
        y = op(*map(_widened, arguments), **{name: _widened(x) for name, x in options.items()})
        if {x.dtype for x in (*arguments, *options.values()) if _is_floating_operand(x)} != {HALF}:
            return y
        return tuple([part.astype(HALF) for part in y]) if isinstance(y, tuple) else y.astype(HALF)

    return cast(F, widened)


def _is_floating_operand(x: Any) -> bool:
    """Return whether x is a floating Tensor or array; NumPy's scalars are numbers, which do not change a dtype."""
    return hasattr(x, "dtype") and x.dtype.kind == "f" and not isinstance(x, np.generic)


def _widened(x: Any) -> Any:
    """Return a float16 operand as float32, anything else as it is."""
    return x.astype("float32") if _is_floating_operand(x) and x.dtype == HALF else x


def checked_floating(name: str, what: str, x: TensorLike) -> Tensor:
    """Return x as a Tensor; raise TypeError unless its dtype is floating."""
    x = as_tensor(x)
    if x.dtype.kind != "f":
        raise TypeError(f"{name}: {what} must be of a floating dtype, got {x.dtype}; use .astype('float32')")
    return x


def as_floating(x: TensorLike) -> Tensor:
    """Return x as a Tensor of a floating dtype; integers and booleans become float64.

    This is for formulas in which small integers would wrap around (-x of a uint8), or become float16, the dtype that
    NumPy's exp gives them.
    """
    x = as_tensor(x)
    return x if x.dtype.kind == "f" else x.astype("float64")


# ---- axes and flags ----------------------------------------------------------------------------------------------


def normalized_axes(axis: Axis, ndim: int, name: str) -> tuple[int, ...]:
    """Return the axes as sorted non-negative numbers; None means all axes. Errors name the op."""
    if type(axis) is int and -ndim <= axis < ndim:  # the common case first
        return (axis % ndim,)
    if axis is None:
        return tuple(range(ndim))
    listed: Any = axis if isinstance(axis, tuple | list) else (axis,)
    try:
        axes = [index(a) for a in listed]
    except TypeError:
        hint = f"; tl.{name}imum(x, y) takes two Tensors" if name in ("max", "min") and hasattr(axis, "dtype") else ""
        raise TypeError(
            f"{called_op(name)}: axis must be an integer, a tuple of integers or None, got {shown(axis)}{hint}"
        ) from None
    for a, given in zip(axes, listed, strict=True):
        if given is True or given is False:  # index(True) is 1
            raise TypeError(
                f"{called_op(name)}: axis must be an integer, got {given}; is it meant as keepdims={given}?"
            )
        if not -ndim <= a < ndim:
            raise ValueError(f"{called_op(name)}: axis must lie in [{-ndim}, {ndim}) for {ndim} dimensions, got {a}")
    normal = tuple(sorted(a % ndim for a in axes))
    if len(set(normal)) != len(normal):
        raise ValueError(f"{called_op(name)}: axes must differ, got {tuple(axes)}")
    return normal


def reduced_axes(axis: Axis, keepdims: bool, ndim: int, name: str) -> tuple[int, ...]:
    """Check `keepdims` and return `normalized_axes`: without the check, x.sum(0, 1) would sum over axis 0 alone."""
    if keepdims is not False and keepdims is not True:
        check_flag(name, "keepdims", keepdims, f"; several axes go into a tuple, {name}(x, axis=(0, 1))")
    return normalized_axes(axis, ndim, name)


def check_flag(name: str, what: str, value: Any, remedy: str = "") -> None:
    """Raise TypeError unless an option is True or False: a misplaced argument would otherwise count as True."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{called_op(name)}: {what} must be True or False, got {shown(value)}{remedy}")


def normalized_axis(axis: int, ndim: int, name: str) -> int:
    """Return one axis as a non-negative number. Errors name the op."""
    if not hasattr(axis, "__index__"):
        raise TypeError(f"{called_op(name)}: axis must be one integer, got {shown(axis)}")
    return normalized_axes(axis, ndim, name)[0]


# ---- shapes, dtypes and numbers ----------------------------------------------------------------------------------


def checked_shape(name: str, shape: Any, what: str = "shape") -> tuple[int, ...]:
    """Return a shape, given as one or several integers, as a tuple of integers >= 0."""
    several = isinstance(shape, tuple | list) or (isinstance(shape, np.ndarray) and shape.ndim == 1)
    try:
        sizes = tuple([index(n) for n in (shape if several else (shape,))])
        wrong: type[Exception] | None = ValueError if any(n < 0 for n in sizes) else None
    except TypeError:
        wrong = TypeError
    if wrong:
        needs = "integers" if several else "an integer"
        raise wrong(f"{called_op(name)}: {what} needs {needs} >= 0, got {shown(shape)}") from None
    return sizes


def checked_dtype(name: str, dtype: DTypeLike) -> np.dtype:
    """Return a numeric dtype that is given as a name, a type or a dtype."""
    hint = f"; a shape of several axes goes into a tuple: {name}((2, 3))" if isinstance(dtype, int) else ""
    return numeric_dtype(name, dtype, hint)


def checked_number(name: str, what: str, value: Any) -> Any:
    """Return a Python or NumPy number as a Python number; raise TypeError for a Tensor or an array."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (int, float, complex)):
        raise TypeError(f"{called_op(name)}: {what} must be a number, got {shown(value)}")
    return value


def checked_real(name: str, what: str, value: Any) -> Any:
    """Return `value` as `checked_number` does; raise TypeError if it is complex."""
    value = checked_number(name, what, value)
    if isinstance(value, complex):
        raise TypeError(f"{called_op(name)}: {what} must be a real number, got {value}")
    return value


def checked_integer(name: str, what: str, value: Any, alternative: str = "") -> int:
    """Return any kind of integer as a Python int; `alternative` names what else the caller accepts."""
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{called_op(name)}: {what} must be an integer{alternative}, got {shown(value)}") from None


def checked_size(name: str, what: str, value: Any) -> int:
    """Return one integer >= 0 as a Python int."""
    if isinstance(value, tuple | list):
        raise TypeError(f"{called_op(name)}: {what} must be one integer, got {shown(value)}")
    return checked_shape(name, value, what)[0]


def checked_element(name: str, value: Any, dtype: np.dtype, remedy: str = "pass another dtype") -> Any:
    """Return a number after checking that `dtype` can hold it: NumPy would turn 0.5 or NaN into some integer."""
    value = checked_real(name, "the value", value)
    bounds = np.iinfo(dtype) if dtype.kind in "iu" else None
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if bounds is not None and not (whole and bounds.min <= value <= bounds.max):
        raise ValueError(f"{name}: dtype {dtype} cannot hold {shown(value)}; {remedy}")
    return value
