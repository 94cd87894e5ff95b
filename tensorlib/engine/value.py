"""Value: an array in the graph, with its gradient and the node that computed it.

`Tensor` is a Value with a constructor, operators and methods. The engine imports only Value, so it
does not depend on the ops, which Tensor's methods call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from tensorlib.arrays.backend import Array, Backend, backend_of
from tensorlib.arrays.conversion import check_numbers, floats_beside, native, new_array, plain

if TYPE_CHECKING:
    from tensorlib.engine.node import Node
    from tensorlib.tensor import Tensor

    TensorLike: TypeAlias = Tensor | Array | np.ndarray | np.generic | float | list[Any] | tuple[Any, ...]
    """A Tensor, or anything that becomes one: an array of NumPy or CuPy, a number, nested lists of numbers."""

__all__ = ["Value", "as_array", "as_value", "edge_of", "wrap"]


class Value:
    """An array of one dtype on one backend, and its place in the graph.

    Attributes:
        array: the raw array of NumPy or CuPy.
        node: the op that computed this Value; None for a leaf and for a constant.
        output_index: the number of this Value among the node's outputs.
        needs_grad: whether gradients flow to it.
        grad: the sum of the gradients from ``backward()`` passes, as a Tensor without history; or None.
        version: how often the array was replaced.
        name: the path at which a module holds this Value, such as "encoder.layers.0.attention.weight"; otherwise "".
        hooks: the hooks on a leaf's gradient, if there are any; other Values keep their hooks in `node`.
        cut: the place where this constant's history was cut off, if noted within `debug`.
    """

    __slots__ = (
        "__weakref__", "array", "cut", "grad", "hooks", "name", "needs_grad", "node", "output_index", "version",
    )  # fmt: skip

    array: Array
    node: Node | None
    output_index: int
    needs_grad: bool
    grad: Tensor | None
    version: int
    name: str
    hooks: dict[int, Any] | None
    cut: Any

    public_class: ClassVar[type[Value]]
    """The class that `wrap` instantiates: `Tensor`, set by tensor.py after its definition."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The size along each axis."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.array.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.array.size

    @property
    def dtype(self) -> np.dtype:
        """The type of the elements."""
        return self.array.dtype

    @property
    def backend(self) -> Backend:
        """The backend that the array belongs to."""
        return backend_of(self.array)


def wrap(array: Array, node: Node | None = None, output_index: int = 0) -> Tensor:
    """Return a Tensor that holds an array without copying it: an output of `node`, or a constant."""
    x: Any = _new(Value.public_class)
    x.array = array
    x.node = node
    x.output_index = output_index
    x.needs_grad = node is not None
    x.grad = None
    x.version = 0
    x.name = ""
    return x


_new = object.__new__


def as_array(y: Any) -> Array:
    """Return `y` as an array, because NumPy's reductions return scalars and a Value always holds an array."""
    return np.asarray(y) if isinstance(y, np.generic) else y


def as_value(x: Any, like: Value | None = None) -> Tensor:
    """Return `x` if it is a Tensor, otherwise a constant with a copy of it, on the backend of `like` if that is given.

    An array is copied because the caller may write to it later. To hold an array without a copy, use `wrap`. Python
    floats, also in lists, get the floating dtype of `like`, as they do beside an array in NumPy.
    """
    if isinstance(x, Value):
        return x  # type: ignore[return-value]  # every Value that exists is of the public class
    if like is None:
        return wrap(new_array(x))
    return wrap(new_array(x, backend=like.backend, floats=floats_beside(like.dtype)))


def checked_array(array: Any, operation: str = "Tensor") -> Array:
    """Return an array that the caller gave, after checking that it belongs to NumPy or CuPy and holds numbers."""
    if type(array) is not np.ndarray:
        backend_of(array)  # raises TypeError for an array of another library
        array = plain(operation, array)
    check_numbers(operation, array.dtype)
    return array if array.dtype.isnative else array.astype(native(array.dtype))


def edge_of(x: Value) -> tuple[Node | Value, int]:
    """Return where the gradient of `x` flows to: a node and the number of its output, or a leaf and 0.

    The pair is also the key of this gradient in dicts. Nodes and leaves hash by identity.
    """
    return (x, 0) if x.node is None else (x.node, x.output_index)
