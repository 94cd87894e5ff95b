"""Mirroring, shifting, repeating and padding: composed of indexing, joining and broadcasting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import Array, backend_of
from tensorlib.engine.function import Function, as_tensor, constant, derivation, is_tensor
from tensorlib.messages import shown
from tensorlib.ops.arguments import (
    Axis,
    Shape,
    checked_element,
    checked_integer,
    checked_shape,
    normalized_axes,
    normalized_axis,
)
from tensorlib.ops.gathering import take
from tensorlib.ops.indexing import Getitem, as_tuple, getitem
from tensorlib.ops.shape import broadcast_to, concatenate, expand_dims, reshape, split

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["flip", "pad", "repeat", "roll", "tile"]


@derivation(Getitem)
def flip(x: TensorLike, axis: Axis = None) -> Tensor:
    """Return x with the order of its elements reversed along `axis` (along all axes by default).

    >>> tl.flip([[1, 2], [3, 4]], axis=1)
    Tensor([[2 1]
            [4 3]], shape=(2, 2), dtype=int64)
    """
    x = as_tensor(x)
    axes = normalized_axes(axis, x.ndim, "flip")
    return getitem(x, tuple([slice(None, None, -1 if a in axes else None) for a in range(x.ndim)]))


def roll(x: TensorLike, shift: int | tuple[int, ...], axis: Axis = None) -> Tensor:
    """Return x with its elements shifted by `shift` along `axis`; those shifted beyond the end reappear at the front.

    Several axes have one shift each, or one shift for all. If `axis` is None, x is rolled as if flattened, but keeps
    its shape.
    y = x rolled by `shift`  =>  dx = dy rolled by -`shift`.

    >>> tl.roll([1, 2, 3, 4], 1)
    Tensor([4 1 2 3], shape=(4,), dtype=int64)
    """
    x = as_tensor(x)
    if axis is None:
        return reshape(roll(reshape(x, x.size), shift, 0), x.shape)
    shifts, axes = as_tuple(shift), as_tuple(axis)
    shifts = tuple([checked_integer("roll", "shift", amount) for amount in shifts])
    normal = [normalized_axes((a,), x.ndim, "roll")[0] for a in axes]
    if len(shifts) != len(axes) and 1 not in (len(shifts), len(axes)):
        raise ValueError(f"roll: needs one shift for each axis, got shifts {shifts} for axes {axes}")
    for a, amount in np.broadcast(normal, shifts):
        if step := int(amount) % max(x.shape[a], 1):
            front, back = split(x, [x.shape[a] - step], axis=a)
            x = concatenate([back, front], axis=a)
    return x


def repeat(x: TensorLike, repeats: TensorLike, axis: int | None = None) -> Tensor:
    """Return x with each element along `axis` repeated `repeats` times in a row; by default x is flattened.

    `repeats` is one integer, or one for each element. It determines the shape of y, so on a GPU the call waits for it.
    y repeats x  =>  dx_i = the sum of dy over the copies of x_i.

    >>> tl.repeat([1, 2], 2), tl.repeat([1, 2], [1, 3])
    (Tensor([1 1 2 2], shape=(4,), dtype=int64), Tensor([1 2 2 2], shape=(4,), dtype=int64))
    """
    x = as_tensor(x)
    if axis is None:
        return repeat(reshape(x, x.size), repeats, 0)
    axis = normalized_axis(axis, x.ndim, "repeat")
    counts, n = as_tensor(repeats).numpy(), x.shape[axis]
    if not counts.size:
        counts = counts.astype(np.int64)
    if counts.dtype.kind not in "iu":
        raise TypeError(f"repeat: repeats must be integers, got dtype {counts.dtype}")
    if counts.ndim > 1 or (counts.ndim and counts.size not in (1, n)):
        raise ValueError(f"repeat: needs one number or {n}, the size of axis {axis}; got shape {counts.shape}")
    if (counts < 0).any():
        raise ValueError(f"repeat: repeats must be at least 0, got {int(counts.min())}")
    if counts.size != 1:
        return take(x, constant(x.backend.constant(np.repeat(np.arange(n), counts))), axis)
    times = int(counts.reshape(()))
    before, after = x.shape[: axis + 1], x.shape[axis + 1 :]
    return reshape(broadcast_to(expand_dims(x, axis + 1), (*before, times, *after)), (*before[:-1], n * times, *after))


def tile(x: TensorLike, reps: Shape) -> Tensor:
    """Return x repeated as a block, reps[i] times along axis i; if x or `reps` has fewer axes, it gets leading ones.

    y repeats x  =>  dx = the sum of dy over the copies.

    >>> tl.tile([1, 2], (2, 2))
    Tensor([[1 2 1 2]
            [1 2 1 2]], shape=(2, 4), dtype=int64)
    """
    x = as_tensor(x)
    times = checked_shape("tile", reps, "reps")
    ndim = max(x.ndim, len(times))
    shape, times = (1,) * (ndim - x.ndim) + x.shape, (1,) * (ndim - len(times)) + times
    rows = reshape(x, [size for n in shape for size in (1, n)])
    repeated = broadcast_to(rows, tuple([size for r, n in zip(times, shape, strict=True) for size in (r, n)]))
    return reshape(repeated, [r * n for r, n in zip(times, shape, strict=True)])


class Pad(Function):
    """y = x framed by a constant  =>  dx = the part of dy within the frame.

    Keeps nothing.
    """

    def forward(self, x: Array, widths: list[tuple[int, int]], value: Any) -> Array:
        self.inner = tuple([slice(before, before + n) for n, (before, _) in zip(x.shape, widths, strict=True)])
        shape = tuple([before + n + after for n, (before, after) in zip(x.shape, widths, strict=True)])
        y = backend_of(x).xp.full(shape, value, x.dtype)
        y[self.inner] = x
        return y

    def backward(self, dy: Array) -> Any:
        return dy[self.inner]


@derivation(Pad)
def pad(
    x: TensorLike, pad_width: TensorLike | Mapping[int, TensorLike], mode: str = "constant", constant_values: float = 0
) -> Tensor:
    """Return x with elements added before and after it along each axis.

    `pad_width` is a number for all sides, (before, after) for all axes, one such pair for each axis, or a dictionary
    from axes to a number or a pair. `mode` is as in NumPy: "constant" adds `constant_values`, "edge" the outermost
    element; "reflect" mirrors at the outermost element, "symmetric" behind it; "wrap" continues at the other end. All
    modes but "constant" only select elements of x, so each element gets the sum of the gradients of its copies.

    >>> tl.pad([1, 2, 3], 1), tl.pad([1, 2, 3], (0, 2), "reflect")
    (Tensor([0 1 2 3 0], shape=(5,), dtype=int64), Tensor([1 2 3 2 1], shape=(5,), dtype=int64))
    """
    x = as_tensor(x)
    given: Any = pad_width
    widths = _pad_widths(given.numpy() if is_tensor(given) else given, x.ndim)
    if mode == "constant":
        return Pad.apply(x, widths=widths, value=checked_element("pad", constant_values, x.dtype))
    if not isinstance(mode, str) or mode not in _SELECTING_MODES:
        raise ValueError(f"pad: mode must be 'constant', {', '.join(map(repr, _SELECTING_MODES))}; got {shown(mode)}")
    for axis, (before, after) in enumerate(widths):
        if before or after:
            if not x.shape[axis]:
                raise ValueError(f"pad: mode {mode!r} needs an element along axis {axis}, got shape {x.shape}")
            # The other modes only select elements: NumPy pads the row numbers, and `take` copies the rows they name.
            rows = np.pad(np.arange(x.shape[axis]), (before, after), mode)  # type: ignore[call-overload]
            x = take(x, constant(x.backend.constant(rows)), axis)
    return x


_SELECTING_MODES = ("edge", "reflect", "symmetric", "wrap")


def _pad_widths(pad_width: Any, ndim: int) -> list[tuple[int, int]]:
    """Return (before, after) for each axis."""
    if isinstance(pad_width, dict):
        pairs = np.zeros((ndim, 2), np.int64)
        for axis, width in pad_width.items():
            pairs[normalized_axis(axis, ndim, "pad")] = _pad_widths(width, 1)[0]
        return [(int(before), int(after)) for before, after in pairs]
    try:
        given = np.asarray(pad_width)
        pairs = np.broadcast_to(given, (ndim, 2))
    except ValueError:
        raise ValueError(
            f"pad: pad_width must be a number, (before, after), or one such pair for each of {ndim} axes; "
            f"got {shown(pad_width)}"
        ) from None
    if given.dtype.kind not in "iu" or (given < 0).any():
        raise ValueError(f"pad: pad_width must be integers >= 0, got {shown(pad_width)}; slices remove elements")
    return [(int(before), int(after)) for before, after in pairs]
