"""Tensor: a value, its gradient, and one line per method that leads to an op. Long, for a third of it is that list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os.path import basename
from typing import Any

import numpy as np

from tensorlib.arrays.backend import Array, Backend, backend_of, get_backend
from tensorlib.engine import backward as autograd
from tensorlib.engine import hooks
from tensorlib.engine.function import Function, as_array
from tensorlib.engine.recording import current_state
from tensorlib.exchange import interop
from tensorlib.messages import TENSOR_NAMES, shown, unknown_name
from tensorlib.ops import (
    activations,
    arithmetic,
    cumulative,
    elementwise,
    exponential,
    extremes,
    gathering,
    indexing,
    linalg,
    logic,
    rearrange,
    reduce,
    sorting,
    trigonometric,
)
from tensorlib.ops import shape as shapes
from tensorlib.ops import softmax as softmaxes

__all__ = ["Tensor"]


def reflected(op: Callable[[Any, Any], Any]) -> Callable[[Tensor, Any], Any]:
    """Return the method for the operator with the Tensor on its right, as in ``2 - x``."""

    def method(self: Tensor, other: Any) -> Any:
        return op(other, self)

    return method


class Tensor:
    """An array of one dtype on one backend, which remembers how it was computed if that is wanted.

    Args:
        data: numbers, nested lists, or an array of NumPy or CuPy, which is *copied*. Python floats become float32;
            an array keeps its dtype.
        requires_grad: whether gradients with respect to this Tensor are wanted. Floating dtypes only.
        dtype: the dtype to convert to.
        backend: "numpy" (or "cpu"), "cupy" (or "cuda", "gpu"); by default that of `data`.

    Attributes:
        grad: the sum of gradients from ``backward()`` passes, a Tensor without history, or None.
        version: how often the array was replaced.
        name: where a module holds this Tensor, as "encoder.layers.0.attention.weight"; empty otherwise.
    """

    __slots__ = (
        "__weakref__", "_array", "_cut", "_hooks", "_index", "_node", "_requires_grad", "grad", "name", "version",
    )  # fmt: skip

    __array_ufunc__ = None  # so that `array * tensor` comes to Tensor.__rmul__ and not element by element
    __array_priority__ = 1000

    _array: Array
    _node: Function | None
    _index: int
    grad: Tensor | None
    _requires_grad: bool
    version: int
    name: str
    _hooks: dict[int, Any] | None  # of a leaf, once there are any; those of other Tensors are with their node
    _cut: Any  # within `debug`: where this constant's history was cut off

    def __init__(
        self,
        data: Any,
        requires_grad: bool = False,
        dtype: Any = None,
        backend: str | Backend | None = None,
    ) -> None:
        self._array = interop.new_array(data, dtype, backend)
        self._node, self._index = None, 0
        self.grad, self.version, self.name, self._hooks = None, 0, "", None
        self.requires_grad = requires_grad
        if isinstance(data, Tensor):
            data._left_history(self, "Tensor(...)")

    def __getattr__(self, name: str) -> Any:
        # Only for names that there are not: whoever comes from PyTorch is told the word for it here.
        if name.startswith("_") or name in vars(Tensor):  # a property that raised AttributeError speaks for itself
            return object.__getattribute__(self, name)
        raise AttributeError(unknown_name(type(self).__name__, name, dir(type(self)), TENSOR_NAMES))

    # ---- the value ----

    @property
    def data(self) -> Array:
        """The raw array of NumPy or CuPy, not a copy. Changing it in place is invisible to the engine: don't."""
        return self._array

    @data.setter
    def data(self, value: Any) -> None:
        raise AttributeError(
            f"Tensor: data cannot be set, got {shown(value)}; give a leaf another value by x.replace(array)"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The size along each axis."""
        return self._array.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._array.size

    @property
    def dtype(self) -> np.dtype:
        """The type of the elements."""
        return self._array.dtype

    @property
    def backend(self) -> Backend:
        """The backend that the array belongs to."""
        return backend_of(self._array)

    @property
    def requires_grad(self) -> bool:
        """Whether gradients with respect to this Tensor are wanted. May be set on leaves of a floating dtype."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if not isinstance(wanted, bool | np.bool_):  # Tensor([1.0], "float64") would ask for a gradient, unseen
            raise TypeError(f"Tensor: requires_grad must be True or False, got {wanted!r}; is it meant as dtype=?")
        if wanted and self._array.dtype.kind != "f":
            raise TypeError(
                f"Tensor: requires_grad needs a real floating dtype, got {self._array.dtype}; pass dtype='float32'"
            )
        if self._node is not None and not wanted:
            raise RuntimeError("requires_grad: only leaves can be told that no gradient is wanted; use x.detach()")
        self._requires_grad = bool(wanted)

    @property
    def T(self) -> Tensor:
        """The Tensor with its axes reversed."""
        return shapes.transpose(self)

    @property
    def is_leaf(self) -> bool:
        """True unless an op that was recorded made this Tensor."""
        return self._node is None

    def numpy(self) -> np.ndarray:
        """Return the value on the host: this Tensor's own memory on NumPy, a copy (which waits for the GPU) on CuPy.

        Whoever writes into it changes a value that graphs may have saved, unseen: write into ``x.numpy().copy()``.
        It stays as it is when an optimizer or ``load_state_dict`` gives the Tensor another value.
        """
        return self.backend.to_numpy(self._array)

    def item(self) -> Any:
        """Return the only element as a Python number. Waits for the GPU."""
        return self._only("item")

    def _only(self, operation: str) -> Any:
        if self.size != 1:
            raise ValueError(f"{operation}: needs exactly one element, got shape {self.shape}; use .numpy() for all")
        return self._array.item()

    def detach(self) -> Tensor:
        """Return the same value without history; shares memory."""
        return self._left_history(wrap(self._array), "detach")

    def to(self, backend: str | Backend) -> Tensor:
        """Return a copy on another backend, without history; itself if it is there already."""
        wanted = get_backend(backend)
        if wanted is self.backend:
            return self
        return self._left_history(Tensor(self.numpy(), self.requires_grad, backend=wanted), "to")

    def _left_history(self, copy: Tensor, how: str) -> Tensor:
        """Return `copy`, which has this value and not this history; tell who watches."""
        if (watch := current_state().watch) is not None:
            watch.detached(self, copy, how)
        return copy

    def replace(self, array: Array) -> None:
        """Put another array of the same shape in this leaf's place, not a copy; what optimizers and loading do.

        Raises the version, so that a backward pass through the old value is noticed.
        """
        if self._node is not None:
            raise RuntimeError("replace: only leaves hold a value of their own, and this Tensor was computed")
        if not isinstance(array, np.ndarray):
            array = as_array(array)
            if isinstance(array, Tensor) or not hasattr(array, "dtype"):
                raise TypeError(f"replace: needs an array, got {interop.kind_of(array)}; pass tl.Tensor(x).data")
        if self._requires_grad and array.dtype.kind != "f":
            raise TypeError(f"replace: a Tensor that requires a gradient needs a floating dtype, got {array.dtype}")
        if array.shape != self.shape:
            raise ValueError(f"replace: the shape must stay {self.shape}, got {array.shape}")
        self._array = array
        self.version += 1

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        import tensorlib

        return tensorlib

    __array__ = interop.to_host_array
    __dlpack__ = interop.to_dlpack
    __dlpack_device__ = interop.dlpack_device
    __cuda_array_interface__ = property(interop.cuda_array_interface)
    __copy__ = interop.shallow_copy
    __deepcopy__ = interop.deep_copy
    __reduce__ = interop.reduced

    # ---- the gradient ----

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add the gradients of this scalar to ``.grad`` of every leaf that requires one; see `autograd.backward`."""
        if isinstance(gradient, bool):
            raise TypeError(f"backward: the gradient must be numbers, got {gradient}; is it meant as retain_graph=?")
        autograd.backward(self, gradient, retain_graph)

    register_hook = hooks.register_hook
    retain_grad = hooks.retain_grad

    # ---- operators ----

    __add__ = arithmetic.add
    __sub__ = arithmetic.subtract
    __mul__ = arithmetic.multiply
    __truediv__ = arithmetic.divide
    __floordiv__ = arithmetic.floor_divide
    __mod__ = arithmetic.remainder
    __pow__ = arithmetic.power
    __matmul__ = linalg.matmul
    __neg__ = arithmetic.negative
    __abs__ = elementwise.abs
    __getitem__ = indexing.getitem
    __eq__ = logic.equal
    __ne__ = logic.not_equal
    __lt__ = logic.less
    __le__ = logic.less_equal
    __gt__ = logic.greater
    __ge__ = logic.greater_equal
    __and__ = logic.bitwise_and
    __or__ = logic.bitwise_or
    __xor__ = logic.bitwise_xor
    __invert__ = logic.invert
    __hash__ = object.__hash__
    __radd__ = reflected(arithmetic.add)
    __rsub__ = reflected(arithmetic.subtract)
    __rmul__ = reflected(arithmetic.multiply)
    __rtruediv__ = reflected(arithmetic.divide)
    __rfloordiv__ = reflected(arithmetic.floor_divide)
    __rmod__ = reflected(arithmetic.remainder)
    __rpow__ = reflected(arithmetic.power)
    __rmatmul__ = reflected(linalg.matmul)
    __rand__ = reflected(logic.bitwise_and)
    __ror__ = reflected(logic.bitwise_or)
    __rxor__ = reflected(logic.bitwise_xor)

    def __pos__(self) -> Tensor:
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "setitem: Tensors are values and cannot be changed in place; use tl.where(mask, new, x) for a Tensor "
            "with some elements replaced"
        )

    # ---- methods, one line each ----

    abs = elementwise.abs
    add = arithmetic.add
    all = reduce.all
    amax = extremes.amax
    amin = extremes.amin
    any = reduce.any
    arccos = trigonometric.arccos
    arcsin = trigonometric.arcsin
    arctan = trigonometric.arctan
    arctan2 = trigonometric.arctan2
    argmax = extremes.argmax
    argmin = extremes.argmin
    argsort = sorting.argsort
    astype = shapes.astype
    bitwise_and = logic.bitwise_and
    bitwise_or = logic.bitwise_or
    bitwise_xor = logic.bitwise_xor
    broadcast_to = shapes.broadcast_to
    ceil = elementwise.ceil
    clip = arithmetic.clip
    copy = shapes.copy
    cos = trigonometric.cos
    cosh = trigonometric.cosh
    count_nonzero = reduce.count_nonzero
    cumprod = cumulative.cumprod
    cumsum = cumulative.cumsum
    diagonal = linalg.diagonal
    divide = arithmetic.divide
    dot = linalg.dot
    erf = elementwise.erf
    exp = exponential.exp
    exp2 = exponential.exp2
    expm1 = exponential.expm1
    flatten = shapes.flatten
    flip = rearrange.flip
    floor = elementwise.floor
    floor_divide = arithmetic.floor_divide
    gather = gathering.gather
    greater = logic.greater
    greater_equal = logic.greater_equal
    index_add = gathering.index_add
    isfinite = logic.isfinite
    isinf = logic.isinf
    isnan = logic.isnan
    less = logic.less
    less_equal = logic.less_equal
    log = exponential.log
    log10 = exponential.log10
    log1p = exponential.log1p
    log2 = exponential.log2
    log_softmax = softmaxes.log_softmax
    logaddexp = exponential.logaddexp
    logcumsumexp = cumulative.logcumsumexp
    logical_and = logic.logical_and
    logical_not = logic.logical_not
    logical_or = logic.logical_or
    logical_xor = logic.logical_xor
    logsumexp = reduce.logsumexp
    masked_fill = indexing.masked_fill
    matmul = linalg.matmul
    max = extremes.max
    maximum = arithmetic.maximum
    mean = reduce.mean
    min = extremes.min
    minimum = arithmetic.minimum
    moveaxis = shapes.moveaxis
    multiply = arithmetic.multiply
    negative = arithmetic.negative
    norm = reduce.norm
    not_equal = logic.not_equal
    outer = linalg.outer
    prod = reduce.prod
    reciprocal = arithmetic.reciprocal
    relu = activations.relu
    remainder = arithmetic.remainder
    repeat = rearrange.repeat
    reshape = shapes.reshape
    roll = rearrange.roll
    round = elementwise.round
    rsqrt = elementwise.rsqrt
    scatter = gathering.scatter
    scatter_add = gathering.scatter_add
    searchsorted = sorting.searchsorted
    sigmoid = exponential.sigmoid
    sign = elementwise.sign
    sin = trigonometric.sin
    sinh = trigonometric.sinh
    softmax = softmaxes.softmax
    sort = sorting.sort
    split = shapes.split
    sqrt = elementwise.sqrt
    square = elementwise.square
    squeeze = shapes.squeeze
    std = reduce.std
    subtract = arithmetic.subtract
    sum = reduce.sum
    swapaxes = shapes.swapaxes
    take = gathering.take
    tan = trigonometric.tan
    tanh = trigonometric.tanh
    tile = rearrange.tile
    topk = sorting.topk
    trace = linalg.trace
    transpose = shapes.transpose
    tril = linalg.tril
    triu = linalg.triu
    var = reduce.var

    # ---- as a Python object ----

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len: a 0-d Tensor has no length; its value is x.item()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError("iter: a 0-d Tensor cannot be iterated over; its value is x.item()")
        if not len(self):
            return iter(())
        # One node with an output for each row: as many nodes x[i] would each make a gradient of the size of x.
        return (row.reshape(self.shape[1:]) for row in shapes.split(self, len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool(logic.equal(self, value).any().item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"bool: a Tensor of shape {self.shape} has no single truth value; use .any() or .all()")
        return bool(self._array.item())

    def __float__(self) -> float:
        return float(self._only("float"))

    def __int__(self) -> int:
        return int(self._only("int"))

    def __index__(self) -> int:
        if self.ndim or self.dtype.kind not in "iu":
            raise TypeError(
                f"index: needs a 0-d Tensor of integers, got shape {self.shape} and dtype {self.dtype}; see int(x)"
            )
        return self._array.item()

    def __format__(self, spec: str) -> str:
        return format(self._only(f"format {spec!r}"), spec) if spec else str(self)

    def __repr__(self) -> str:
        kind = type(self).__name__
        values = np.array2string(self.numpy(), precision=4, threshold=20, edgeitems=2, prefix=f"{kind}(")
        parts = [values, f"shape={self.shape}", f"dtype={self.dtype}"]
        if self.backend.name != "numpy":
            parts.append(f"backend={self.backend.name}")
        if self._node is not None:
            where = f" in {self._node.path}" if self._node.path else ""
            line = f" at {basename(self._node.source)}" if self._node.source else ""
            parts.append(f"from={self._node.name}{where}{line}")
        elif self.requires_grad:
            parts.append("requires_grad=True")
        if self.name:
            parts.append(f"name={self.name}")
        return f"{kind}({', '.join(parts)})"


def wrap(array: Array, node: Function | None = None, index: int = 0) -> Tensor:
    """Make a Tensor around an array without copying: output number `index` of `node`, or a constant."""
    x = _new(Tensor)
    x._array = array
    x._node = node
    x._index = index
    x._requires_grad = node is not None
    x.grad = None
    x.version = 0
    x.name = ""
    return x


_new = object.__new__
