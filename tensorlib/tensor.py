"""Tensor: a value, its gradient, and one line per method that leads to an op."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tensorlib import autograd, hooks
from tensorlib.backend import Array, Backend, backend_of, get_backend
from tensorlib.function import Function, current_state
from tensorlib.ops import (
    activations,
    arithmetic,
    cumulative,
    elementwise,
    exponential,
    extremes,
    indexing,
    linalg,
    logic,
    reduce,
    trigonometric,
)
from tensorlib.ops import shape as shapes
from tensorlib.ops import softmax as softmaxes

__all__ = ["Tensor", "from_numpy", "full", "ones", "ones_like", "zeros", "zeros_like"]


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
    _hooks: dict[int, Any]  # of a leaf, once there are any; those of other Tensors are with their node
    _cut: Any  # within `debug`: where this constant's history was cut off

    def __init__(
        self,
        data: Any,
        requires_grad: bool = False,
        dtype: Any = None,
        backend: str | Backend | None = None,
    ) -> None:
        self._array = _new_array(data, dtype, backend)
        self._node, self._index = None, 0
        self.grad, self.version, self.name = None, 0, ""
        self.requires_grad = requires_grad

    # ---- the value ----

    @property
    def data(self) -> Array:
        """The raw array of NumPy or CuPy, not a copy. Changing it in place is invisible to the engine: don't."""
        return self._array

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
        """Return the value on the host: a view on NumPy, a copy (which waits for the GPU) on CuPy."""
        return self.backend.to_numpy(self._array)

    def item(self) -> Any:
        """Return the only element as a Python number. Waits for the GPU."""
        if self.size != 1:
            raise ValueError(f"item: needs exactly one element, got shape {self.shape}")
        return self._array.item()

    def detach(self) -> Tensor:
        """Return the same value without history; shares memory."""
        constant = wrap(self._array)
        if (watch := current_state().watch) is not None:
            watch.detached(self, constant)
        return constant

    def to(self, backend: str | Backend) -> Tensor:
        """Return a copy on another backend, without history; itself if it is there already."""
        wanted = get_backend(backend)
        if wanted is self.backend:
            return self
        return Tensor(self.numpy(), self.requires_grad, backend=wanted)

    def replace(self, array: Array) -> None:
        """Put another array of the same shape in this leaf's place; what optimizers and loading do.

        Raises the version, so that a backward pass through the old value is noticed.
        """
        if self._node is not None:
            raise RuntimeError("replace: only leaves hold a value of their own, and this Tensor was computed")
        if array.shape != self.shape:
            raise ValueError(f"replace: the shape must stay {self.shape}, got {array.shape}")
        self._array = array
        self.version += 1

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        import tensorlib

        return tensorlib

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad:
            raise TypeError("numpy: this Tensor requires a gradient, which NumPy would lose; use x.detach().numpy()")
        if self.backend.xp is not np:
            raise TypeError(f"numpy: this Tensor is on backend {self.backend.name!r}; use x.numpy()")
        return np.array(self._array, dtype=dtype, copy=copy)

    # ---- the gradient ----

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add the gradients of this scalar to ``.grad`` of every leaf that requires one; see `autograd.backward`."""
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

    def __pos__(self) -> Tensor:
        return self

    def __radd__(self, other: Any) -> Tensor:
        return arithmetic.add(other, self)

    def __rsub__(self, other: Any) -> Tensor:
        return arithmetic.subtract(other, self)

    def __rmul__(self, other: Any) -> Tensor:
        return arithmetic.multiply(other, self)

    def __rtruediv__(self, other: Any) -> Tensor:
        return arithmetic.divide(other, self)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return arithmetic.floor_divide(other, self)

    def __rmod__(self, other: Any) -> Tensor:
        return arithmetic.remainder(other, self)

    def __rpow__(self, other: Any) -> Tensor:
        return arithmetic.power(other, self)

    def __rmatmul__(self, other: Any) -> Tensor:
        return linalg.matmul(other, self)

    def __rand__(self, other: Any) -> Tensor:
        return logic.bitwise_and(other, self)

    def __ror__(self, other: Any) -> Tensor:
        return logic.bitwise_or(other, self)

    def __rxor__(self, other: Any) -> Tensor:
        return logic.bitwise_xor(other, self)

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
    astype = shapes.astype
    bitwise_and = logic.bitwise_and
    bitwise_or = logic.bitwise_or
    bitwise_xor = logic.bitwise_xor
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
    floor = elementwise.floor
    floor_divide = arithmetic.floor_divide
    greater = logic.greater
    greater_equal = logic.greater_equal
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
    multiply = arithmetic.multiply
    negative = arithmetic.negative
    norm = reduce.norm
    not_equal = logic.not_equal
    outer = linalg.outer
    prod = reduce.prod
    reciprocal = arithmetic.reciprocal
    relu = activations.relu
    remainder = arithmetic.remainder
    reshape = shapes.reshape
    round = elementwise.round
    rsqrt = elementwise.rsqrt
    sigmoid = exponential.sigmoid
    sign = elementwise.sign
    sin = trigonometric.sin
    sinh = trigonometric.sinh
    softmax = softmaxes.softmax
    split = shapes.split
    sqrt = elementwise.sqrt
    square = elementwise.square
    squeeze = shapes.squeeze
    std = reduce.std
    subtract = arithmetic.subtract
    sum = reduce.sum
    swapaxes = shapes.swapaxes
    tan = trigonometric.tan
    tanh = trigonometric.tanh
    trace = linalg.trace
    transpose = shapes.transpose
    tril = linalg.tril
    triu = linalg.triu
    var = reduce.var

    # ---- as a Python object ----

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len: a 0-d Tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"bool: a Tensor of shape {self.shape} has no single truth value; use .any() or .all()")
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __repr__(self) -> str:
        values = np.array2string(self.numpy(), precision=4, threshold=20, edgeitems=2, prefix="Tensor(")
        parts = [values, f"shape={self.shape}", f"dtype={self.dtype}"]
        if self.backend.name != "numpy":
            parts.append(f"backend={self.backend.name}")
        if self._node is not None:
            parts.append(f"from={self._node.name}")
        elif self.requires_grad:
            parts.append("requires_grad=True")
        return f"Tensor({', '.join(parts)})"


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


def _new_array(data: Any, dtype: Any, backend: str | Backend | None) -> Array:
    """Return a new array of `data`. Python floats become float32, everything that has a dtype keeps it."""
    if isinstance(data, Tensor):
        data = data._array
    if not hasattr(data, "dtype"):
        try:
            data = np.asarray(data)
        except ValueError:
            raise ValueError("Tensor: nested lists must form a rectangle, got rows of different lengths") from None
        if data.dtype == np.float64 and dtype is None:
            dtype = np.float32
    if data.dtype.kind not in "biufc":
        raise TypeError(f"Tensor: data must be numbers, got dtype {data.dtype}")
    home = _home(data) if backend is None else get_backend(backend)
    if home is not _home(data):
        data = _home(data).to_numpy(data)
    return home.asarray(data, dtype)


def _home(array: Array) -> Backend:
    return backend_of(array)


def from_numpy(array: Array) -> Tensor:
    """Return a Tensor that *shares* the array's memory: later changes of the array show in it."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: needs a numpy.ndarray, got {type(array).__name__}")
    return wrap(array)


def full(
    shape: int | tuple[int, ...], value: float, dtype: Any = "float32", backend: str | Backend = "numpy"
) -> Tensor:
    """Return a Tensor of this shape with every element `value`."""
    return wrap(get_backend(backend).xp.full(shape, value, dtype))


def zeros(shape: int | tuple[int, ...], dtype: Any = "float32", backend: str | Backend = "numpy") -> Tensor:
    """Return a Tensor of zeros."""
    return full(shape, 0, dtype, backend)


def ones(shape: int | tuple[int, ...], dtype: Any = "float32", backend: str | Backend = "numpy") -> Tensor:
    """Return a Tensor of ones."""
    return full(shape, 1, dtype, backend)


def zeros_like(x: Tensor) -> Tensor:
    """Return zeros with the shape, dtype and backend of x."""
    return wrap(x.backend.xp.zeros(x.shape, x.dtype))


def ones_like(x: Tensor) -> Tensor:
    """Return ones with the shape, dtype and backend of x."""
    return wrap(x.backend.xp.ones(x.shape, x.dtype))
