"""What several families of ops share: axes, and functions without a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from operator import index
from typing import Any, TypeAlias

import numpy as np

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.errors import called_op
from tensorlib.engine.function import Function, as_tensor
from tensorlib.messages import shown

Axis: TypeAlias = int | tuple[int, ...] | None


class Plain(Function):
    """A function of the backend that has no gradient; its result is cut off from the graph."""

    broadcasts = True
    differentiable = False
    function = ""

    def forward(self, *arrays: Array, function: str, **options: Any) -> Array:
        """Call `function` of the namespace that fits the arrays."""
        self.function = function
        like = next(x for x in arrays if hasattr(x, "dtype"))
        return getattr(namespace_of(like), function)(*arrays, **options)

    @property
    def name(self) -> str:
        """The name of the backend's function."""
        return self.function


def plain(function: str, *inputs: Any, **options: Any) -> Any:
    """Apply NumPy's or CuPy's `function` of that name, whose result (booleans, indices) has no gradient."""
    return Plain.apply(*inputs, function=function, **options)


def as_tensors(xs: Sequence[Any]) -> list[Any]:
    """Return every x as a Tensor; numbers and lists become constants beside the first that has a backend."""
    if False not in [hasattr(x, "requires_grad") for x in xs]:  # what nearly always comes, without a detour
        return list(xs)
    arrays = [hasattr(x, "dtype") and not isinstance(x, np.generic) for x in xs]
    like = as_tensor(xs[arrays.index(True)]) if any(arrays) else None
    return [as_tensor(x) if array else as_tensor(x, like) for x, array in zip(xs, arrays, strict=True)]


def at_least_float32(op: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate an op of x: float16 is computed in float32, and the result rounded back.

    For sums and products on the way to a result that itself fits: float16 ends at 65504 and has 11 bits.
    """

    @wraps(op)
    def widened(x: Any, *arguments: Any, **options: Any) -> Any:
        x = as_tensor(x)
        if x.dtype == np.float16:
            return op(x.astype("float32"), *arguments, **options).astype("float16")
        return op(x, *arguments, **options)

    return widened


def as_floating(x: Any) -> Any:
    """Return x as a Tensor of a floating dtype; integers and booleans become float64.

    For functions that NumPy lacks: their formulas would wrap around in small integers (-x of a uint8), or end in
    float16, which NumPy makes of the exponentials of these.
    """
    x = as_tensor(x)
    return x if x.dtype.kind == "f" else x.astype("float64")


def normal_axes(axis: Axis, ndim: int, name: str) -> tuple[int, ...]:
    """Return the axes as sorted non-negative numbers; None means all. Errors name the op."""
    if type(axis) is int and -ndim <= axis < ndim:  # what nearly always comes, without a detour
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
    """Return the axes as `normal_axes` does, after a look at `keepdims`: x.sum(0, 1) would sum over axis 0 alone."""
    if keepdims is not False and keepdims is not True:
        check_flag(name, "keepdims", keepdims, f"; several axes go into a tuple, {name}(x, axis=(0, 1))")
    return normal_axes(axis, ndim, name)


def check_flag(name: str, what: str, value: Any, remedy: str = "") -> None:
    """Raise TypeError unless an option is True or False: another value, in the wrong place, would count as True."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{called_op(name)}: {what} must be True or False, got {shown(value)}{remedy}")


def normal_axis(axis: int, ndim: int, name: str) -> int:
    """Return one axis as a non-negative number. Errors name the op."""
    if not hasattr(axis, "__index__"):
        raise TypeError(f"{called_op(name)}: axis must be one integer, got {shown(axis)}")
    return normal_axes(axis, ndim, name)[0]
