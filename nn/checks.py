"""Checks of settings and inputs, shared by layers, optimizers and schedules."""

from __future__ import annotations

import math
from numbers import Real
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

import tensorlib as tl
from tensorlib.arrays.backend import Array, Backend, backend_of, is_backend_array
from tensorlib.arrays.capturing import note_read
from tensorlib.messages import kind_of, shown

if TYPE_CHECKING:
    from nn.module import Module
    from tensorlib.engine.value import TensorLike

__all__ = [
    "check_fraction",
    "check_generator",
    "check_number",
    "check_size",
    "flag_on",
    "refuse_several",
    "with_width",
]


def check_size(where: str, least: int = 1, **sizes: Any) -> None:
    """Raise TypeError for a size that is not an integer, and ValueError for a bool or a size below `least`."""
    for name, size in sizes.items():
        wanted = f"{where}: {name} must be an integer of at least {least}, got"
        try:
            low = index(size) < least
        except TypeError:
            raise TypeError(f"{wanted} {_shown(size)}") from None
        if low or isinstance(size, bool):
            raise ValueError(f"{wanted} {size}")


def check_fraction(where: str, **fractions: Any) -> None:
    """Raise TypeError for an argument that is not a real number, and ValueError for one outside [0, 1)."""
    for name, p in fractions.items():
        _check_real(where, name, p, "must lie in [0, 1)")
        if not 0 <= p < 1:
            raise ValueError(f"{where}: {name} must lie in [0, 1), got {p}")


def check_number(where: str, above: bool = False, finite: bool = True, **numbers: Any) -> None:
    """Raise ValueError for a negative number or NaN; with `above`, also for 0, and with `finite`, for infinity.

    Raises TypeError for an argument that is not a real number.
    """
    for name, x in numbers.items():
        rule = "must be positive" if above else "must not be negative"
        _check_real(where, name, x, rule)
        if math.isnan(x) or (finite and math.isinf(x)):
            raise ValueError(f"{where}: {name} must be finite, got {x}")
        if not (x > 0 if above else x >= 0):
            raise ValueError(f"{where}: {name} {rule}, got {x}")


def _check_real(where: str, name: str, x: Any, rule: str) -> None:
    if not isinstance(x, Real) or isinstance(x, bool):  # NumPy's scalars are Real; a Tensor is not
        raise TypeError(f"{where}: {name} {rule}, got {_shown(x)}, which is not a number")


def check_generator(where: str, generator: Any) -> None:
    """Raise TypeError unless `generator` is a `tl.Generator` or None."""
    if generator is not None and not isinstance(generator, tl.Generator):
        remedy = f"tl.Generator({generator})" if isinstance(generator, int) else "tl.Generator(seed)"
        raise TypeError(f"{where}: generator must be a tl.Generator, got {_shown(generator)}; pass {remedy}")


def flag_on(where: str, name: str, flag: Any, backend: Backend | None) -> bool | Array:
    """Return whether a step was skipped as a bool or, if that is an array or a Tensor, as an array of shape ().

    Raises TypeError unless the flag is boolean, of shape () and, if it is no bool, on `backend`; None accepts any.
    """
    array = flag
    if isinstance(flag, tl.Tensor):
        note_read(flag)
        array = flag.array
    if isinstance(array, bool | np.bool_):
        return bool(array)
    if not is_backend_array(array) or array.shape != () or array.dtype != bool:
        raise TypeError(f"{where}: {name} must be a bool of shape (), got {shown(flag)}; pass optimizer.skipped")
    if backend is not None and backend_of(array) is not backend:
        raise TypeError(
            f"{where}: {name} must be on the backend {backend.name}, got {shown(flag)} on {backend_of(array).name}; "
            "pass a bool, or optimizer.skipped of a model on that backend"
        )
    return array


def with_width(
    layer: Module, x: TensorLike, width: int, like: tl.Tensor, axes: str = "...", what: str = "x"
) -> tl.Tensor:
    """Return x as a Tensor of shape (axes, width); a list or a number is placed on the backend of `like`.

    Raises ValueError for a different shape, and TypeError unless the dtype is floating.
    """
    if not isinstance(x, tl.Tensor):
        refuse_several(layer, x, what)
        try:
            x = tl.Tensor(x, backend=None if hasattr(x, "dtype") else like.backend)
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).replace("Tensor: data", f"{layer.label()}: {what}")) from None
    right = x.ndim >= 1 if axes == "..." else x.ndim == axes.count(",") + 2
    if not right or x.shape[-1] != width:
        transposed = right and like.shape == (width, x.shape[-1])
        remedy = _width_remedy(layer, x.shape, width, right, what, transposed)
        raise ValueError(f"{layer.label()}: {what} must have shape ({axes}, {width}), got {x.shape}{remedy}")
    if x.dtype.kind != "f":
        raise TypeError(
            f"{layer.label()}: {what} must be of a floating dtype, got {x.dtype}; embed ids, or use x.astype('float32')"
        )
    return x


def refuse_several(layer: Module, x: Any, what: str) -> None:
    """Raise TypeError for several Tensors in place of one, which would become one with another axis."""
    if isinstance(x, tuple | list) and any(isinstance(one, tl.Tensor) for one in x):
        raise TypeError(
            f"{layer.label()}: {what} must be one Tensor or array, got a {type(x).__name__} of {len(x)}; pass one, or "
            "tl.stack(xs)"
        )


def _width_remedy(
    layer: Module, shape: tuple[int, ...], width: int, right_ndim: bool, what: str, transposed: bool
) -> str:
    """Return the end of the message for an input of this shape, "" if it is unclear what is meant.

    transposed: whether the input fits the transpose of the layer's weight.
    """
    if right_ndim and len(shape) > 1 and shape[-2] == width:
        return f"; did you mean {what}.swapaxes(-1, -2)?"
    flat = [axis for axis in range(len(shape) - 1) if math.prod(shape[axis:]) == width]
    if right_ndim and flat:
        return f"; did you mean {what}.flatten({flat[-1]})?"
    if transposed:
        kind, share = type(layer).__name__, "tl.linear(x, embedding.weight.T)"
        return f"; did you mean {kind}({shape[-1]}, {width})? An embedding's weight is shared by {share}"
    if right_ndim and len(shape) > 0:
        return f"; for this {what}, build the {type(layer).__name__} with width {shape[-1]}"
    return "; for a batch of one, pass x[None]" if shape[-1:] == (width,) and len(shape) == 2 else ""


def _shown(x: Any) -> str:
    return repr(x) if isinstance(x, int | float | str | tuple | None) else kind_of(x)
