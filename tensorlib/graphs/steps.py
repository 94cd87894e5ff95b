"""The data of a `Derivation`: what was given, and the ops, with symbols in place of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tensorlib.arrays.backend import backend_of
from tensorlib.engine.node import op_name
from tensorlib.messages import shown

__all__ = ["Given", "Held", "Step"]


class Held(NamedTuple):
    """A copy of an array on the host, and how the array was laid out: NumPy's sums depend on that.

    `strides` count elements; None for an array whose last axis is the contiguous one.
    """

    values: np.ndarray
    strides: tuple[int, ...] | None

    @classmethod
    def of(cls, array: Any) -> Held:
        """Return a copy of an array of any backend."""
        host = backend_of(array).to_numpy(array)
        values = np.array(host, order="C", copy=True)
        return cls(values, None if array.flags.c_contiguous or not values.size else _strides(array))


def _strides(array: Any) -> tuple[int, ...]:
    """Return the strides in elements; if they span far more memory than the array has, smaller ones in that order."""
    size = array.itemsize
    own = tuple([step // size for step in array.strides])
    span = sum((n - 1) * abs(step) for n, step in zip(array.shape, own, strict=True)) + 1
    if span <= 8 * array.size + 64 and not any(step % size for step in array.strides):
        return own
    strides, reach = list(own), 1 if 1 in map(abs, own) else 2
    for axis in sorted(range(array.ndim), key=lambda axis: abs(own[axis])):
        if own[axis]:
            strides[axis] = reach if own[axis] > 0 else -reach
            reach *= array.shape[axis]
    return tuple(strides)


@dataclass(frozen=True)
class Given:
    """A leaf or a constant: its symbol, the name that the user or a module gave it, and its values.

    `needs_gradient` is False for a constant; `hooked` says whether a hook may change the gradient.
    """

    symbol: str
    name: str
    needs_gradient: bool
    hooked: bool
    held: Held


@dataclass(frozen=True)
class Step:
    """One op.

    Attributes:
        number: its number, from 1.
        op: its class.
        inputs: a symbol for each input, or a Python number.
        input_types, output_types: shape and dtype of each; the dtype of a Python number is None.
        needs: for each input, whether a gradient flows to it.
        outputs: the symbols of the results.
        attributes: the keyword arguments, such as an axis.
        path: the module that the op was called in.
        precision: that of matrix products.
        hooked: whether a hook may change the gradient of a result.
        copied: the positions in ``saved`` of contiguous copies.
    """

    number: int
    op: type
    inputs: tuple[str | float, ...]
    input_types: tuple[tuple[tuple[int, ...], Any], ...]
    needs: tuple[bool, ...]
    outputs: tuple[str, ...]
    output_types: tuple[tuple[tuple[int, ...], Any], ...]
    attributes: dict[str, Any]
    path: str
    precision: str
    hooked: bool
    copied: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the op, as "layer_norm"."""
        return op_name(self.op)

    def options(self) -> dict[str, str]:
        """Return the attributes as text; an array by its shape. A dropout mask's key and draw are left out."""
        pairs = list(self.attributes.items())
        pairs = [pair for name, value in pairs for pair in _fields(name, value)]
        return {name: _brief(value) for name, value in pairs if name not in ("key", "draw")}


def _fields(name: str, value: Any) -> list[tuple[str, Any]]:
    """Return the fields of a NamedTuple, such as the pattern of attention, as attributes of their own."""
    return list(value._asdict().items()) if hasattr(value, "_fields") else [(name, value)]


def _brief(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_brief, value))})"
    return f"array {tuple(value.shape)}" if getattr(value, "shape", ()) else shown(value)
