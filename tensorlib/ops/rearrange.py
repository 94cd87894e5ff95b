"""Mirroring, shifting, repeating and padding: sentences made of picking, joining and broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlib.arrays.backend import Array, backend_of
from tensorlib.engine.function import Function, as_tensor
from tensorlib.messages import shown
from tensorlib.ops.arguments import (
    Axis,
    checked_element,
    checked_integer,
    checked_shape,
    normalized_axes,
    normalized_axis,
)
from tensorlib.ops.gathering import take
from tensorlib.ops.indexing import as_tuple, getitem
from tensorlib.ops.shape import broadcast_to, concatenate, expand_dims, reshape, split

__all__ = ["flip", "pad", "repeat", "roll", "tile"]


def flip(x: Any, axis: Axis = None) -> Any:
    """Return x with the order of its elements reversed along `axis` (along all axes by default)."""
    x = as_tensor(x)
    axes = normalized_axes(axis, x.ndim, "flip")
    return getitem(x, tuple([slice(None, None, -1 if a in axes else None) for a in range(x.ndim)]))


def roll(x: Any, shift: int | tuple[int, ...], axis: Axis = None) -> Any:
    """Return x with its elements moved on by `shift` along `axis`; those that leave at the end come in at the front.

    Several axes have one shift each, or one for all. Without an axis, x is rolled as if it were flat.
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


def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    """Return x with each element along `axis` `repeats` times in a row; x is flat where no axis is given.

    `repeats` is one integer, or one for each element. They decide about the shape: on a GPU they are waited for.
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
        return take(x, np.repeat(np.arange(n), counts), axis)
    times = int(counts.reshape(()))
    before, after = x.shape[: axis + 1], x.shape[axis + 1 :]
    return reshape(broadcast_to(expand_dims(x, axis + 1), (*before, times, *after)), (*before[:-1], n * times, *after))


def tile(x: Any, reps: int | tuple[int, ...]) -> Any:
    """Return x laid side by side, reps[i] times along axis i; missing axes of either are put in front, with 1."""
    x = as_tensor(x)
    times = checked_shape("tile", reps, "reps")
    ndim = max(x.ndim, len(times))
    shape, times = (1,) * (ndim - x.ndim) + x.shape, (1,) * (ndim - len(times)) + times
    rows = reshape(x, [size for n in shape for size in (1, n)])
    repeated = broadcast_to(rows, tuple([size for r, n in zip(times, shape, strict=True) for size in (r, n)]))
    return reshape(repeated, [r * n for r, n in zip(times, shape, strict=True)])


class Pad(Function):
    """y is x within a frame of a constant  =>  dx is what of dy lies within the frame."""

    def forward(self, x: Array, widths: list[tuple[int, int]], value: Any) -> Array:
        self.inner = tuple([slice(before, before + n) for n, (before, _) in zip(x.shape, widths, strict=True)])
        shape = tuple([before + n + after for n, (before, after) in zip(x.shape, widths, strict=True)])
        y = backend_of(x).xp.full(shape, value, x.dtype)
        y[self.inner] = x
        return y

    def backward(self, dy: Array) -> Any:
        return dy[self.inner]


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: float = 0) -> Any:
    """Return x with elements put before and after those of each axis.

    `pad_width` is a number for all sides, (before, after) for all axes, one such pair for each axis, or a dictionary
    from axes to a number or a pair. `mode` is as in NumPy: "constant" puts `constant_values`, "edge" the outermost
    element, "reflect" mirrors at the outermost element, "symmetric" behind it, and "wrap" goes on at the other end.
    """
    x = as_tensor(x)
    widths = _widths(pad_width.numpy() if hasattr(pad_width, "requires_grad") else pad_width, x.ndim)
    if mode == "constant":
        return Pad.apply(x, widths=widths, value=checked_element("pad", constant_values, x.dtype))
    if not isinstance(mode, str) or mode not in _PICKING:
        raise ValueError(f"pad: mode must be 'constant', {', '.join(map(repr, _PICKING))}; got {shown(mode)}")
    for axis, (before, after) in enumerate(widths):
        if before or after:
            if not x.shape[axis]:
                raise ValueError(f"pad: mode {mode!r} needs an element along axis {axis}, got shape {x.shape}")
            # Such padding only picks: which row comes where is what NumPy makes of the numbers of the rows.
            x = take(x, np.pad(np.arange(x.shape[axis]), (before, after), mode), axis)  # type: ignore[call-overload]
    return x


_PICKING = ("edge", "reflect", "symmetric", "wrap")


def _widths(pad_width: Any, ndim: int) -> list[tuple[int, int]]:
    """Return (before, after) for each axis."""
    if isinstance(pad_width, dict):
        pairs = np.zeros((ndim, 2), np.int64)
        for axis, width in pad_width.items():
            pairs[normalized_axis(axis, ndim, "pad")] = _widths(width, 1)[0]
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
        raise ValueError(f"pad: pad_width must be of integers >= 0, got {shown(pad_width)}; slices cut off")
    return [(int(before), int(after)) for before, after in pairs]
