"""The part of a derived program that stands for the engine. `script.py` copies this text into each program.

It computes the values and gradients of ops in the engine's order and on plain arrays; see `tensorlib/engine/`.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import numpy as np

from tensorlib.arrays.philox import philox_bits
from tensorlib.arrays.shapes import sum_to

__all__: list[str] = []

# ---- copied from here ----------------------------------------------------------------------------------------------


class Function:
    """An op: `forward` computes its value and saves what `backward`, its gradient, needs."""

    broadcasts = False
    differentiable = True
    fresh = False
    edges = ()
    needs: tuple[bool, ...] = ()
    saved: tuple[Any, ...] = ()
    statistics: Any = None
    precision = "float32"
    inputs: tuple[Any, ...] = ()
    outputs: tuple[Any, ...] = ()

    def save(self, *arrays: Any) -> None:
        self.saved = arrays

    @classmethod
    def run(cls, *inputs: Any, **attributes: Any) -> Any:
        """Run this op inside another op."""
        op: Any = cls()
        op.needs = (False,) * len(inputs)
        return op.forward(*inputs, **attributes)


class Backend:
    """NumPy, as formulas ask for it."""

    name, xp = "numpy", np

    def random_bits(self, key: int, draw: int, count: int, dtype: str = "uint16") -> Any:
        return philox_bits(key, draw, 0, count, dtype)

    def asarray(self, values: Any, dtype: Any = None) -> Any:
        return np.array(values, dtype=dtype)

    def to_numpy(self, array: Any) -> Any:
        return array

    def concatenate(self, arrays: Any, axis: int) -> Any:
        return np.concatenate(arrays, axis=axis)

    def scatter_add(self, total: Any, index: Any, values: Any) -> None:
        np.add.at(total, index, values)


class State:
    """The precision of matrix products, as the ops read it."""

    precision, formulas = "float32", False

    def get(self) -> State:
        return self


STATE = State()


def namespace_of(x: Any) -> Any:
    return np


def backend_of(array: Any) -> Backend:
    return Backend()


def is_tensor(x: Any) -> bool:
    return False


def as_array(y: Any) -> Any:
    """Return `y` as an array, because NumPy's reductions return scalars."""
    return np.asarray(y) if isinstance(y, np.generic) else y


def computed(op: type, needs: tuple[bool, ...], /, *inputs: Any, **attributes: Any) -> Any:
    """Apply an op; return it and its outputs. `needs` says which inputs need a gradient."""
    node: Any = op()
    node.needs, node.precision = needs, STATE.precision
    y = node.forward(*inputs, **attributes)
    outputs = y if isinstance(y, tuple) else (y,)
    node.inputs = tuple([(getattr(x, "shape", ()), getattr(x, "dtype", None)) for x in inputs])
    node.outputs = tuple([(y.shape, y.dtype) for y in outputs])
    return node, *map(as_array, outputs)


def pull(node: Any, sums: dict[str, Any], owned: set[str], outputs: tuple[str, ...], inputs: tuple[Any, ...]) -> None:
    """Run the gradient of one op, and add what it returns to the sums of its inputs' gradients.

    The second contribution to a sum allocates, later ones are added in place: only to arrays that are `owned`.
    """
    dys = [sums.get(name) for name in outputs]
    if all(dy is None for dy in dys):
        return
    dys = [np.zeros(*kind) if dy is None else dy for dy, kind in zip(dys, node.outputs, strict=True)]
    STATE.precision = node.precision
    dxs = node.backward(*dys)
    dxs = dxs if isinstance(dxs, tuple) else (dxs,)
    for name, dx, (shape, dtype) in zip(inputs, dxs, node.inputs, strict=True):
        if name is None or dx is None:
            continue
        if dx.shape != shape:
            dx = sum_to(dx, shape)  # the input was broadcast
        if dx.dtype != dtype:
            dx = dx.astype(dtype)
        if name not in sums:
            sums[name] = dx
        elif name in owned:
            sums[name] += dx
        else:
            sums[name] = sums[name] + dx
            owned.add(name)


def stored(dtype: str, shape: tuple[int, ...], text: str) -> Any:
    """Return an array from its bytes in base64."""
    return np.frombuffer(base64.b64decode(text), np.dtype(dtype)).reshape(shape).copy()


def laid_out(values: Any, strides: tuple[int, ...]) -> Any:
    """Return equal values with these strides, in elements: the rounding of a sum depends on the order in memory."""
    spans = [(n - 1) * step for n, step in zip(values.shape, strides, strict=True)]
    start = -sum(min(span, 0) for span in spans)
    memory = np.zeros(start + sum(max(span, 0) for span in spans) + 1, values.dtype)
    steps = [step * values.itemsize for step in strides]
    view: Any = np.lib.stride_tricks.as_strided(memory[start:], values.shape, steps)
    view[...] = values
    return view


def checksum(array: Any) -> str:
    """Return 16 digits that differ if a single bit of the array does."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def report(values: dict[str, Any], gradients: dict[str, Any], names: dict[str, str]) -> None:
    """Print shape, dtype and checksum of each value and gradient, and the numbers of small ones."""
    for title, arrays in (("value", values), ("gradient of", gradients)):
        for name, array in arrays.items():
            small = f"  {array.tolist()}" if array.size <= 4 else ""
            full = f", {names[name]!a}" if name in names else ""
            print(f"{title} {name}  {array.shape} {array.dtype}  {checksum(array)}{small}{full}")
