"""Tensor: a Value with a constructor, operators, and one line for each method that is an op."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from os.path import basename
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tensorlib.arrays.backend import Array, Backend, get_backend
from tensorlib.arrays.capturing import current_capture
from tensorlib.arrays.conversion import floats_beside, new_array, without_library
from tensorlib.arrays.sharing import kept, note_overwritten, read_only
from tensorlib.engine import backward, hooks
from tensorlib.engine.node import next_serial
from tensorlib.engine.recording import STATE, is_grad_enabled
from tensorlib.engine.value import Value, as_array, checked_array, wrap
from tensorlib.exchange import interop, numpy_functions
from tensorlib.messages import kind_of, unknown_name
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
from tensorlib.pytorch_words import TENSOR_NAMES

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from tensorlib.engine.value import TensorLike

__all__ = ["Tensor"]


def reflected(op: Callable[[Any, Any], Tensor]) -> Callable[[Tensor, Any], Tensor]:
    """Return the method for an operator whose right operand is the Tensor, as in ``2 - x``."""

    def method(self: Tensor, other: Any) -> Tensor:
        return op(other, self)

    return method


def in_place(op: Callable[[Any, Any], Tensor], symbol: str) -> Callable[[Tensor, Any], Tensor]:
    """Return the method for an assignment such as ``x -= y``, which binds the name x to a new Tensor.

    For a leaf that requires a gradient this would lose the leaf. So the leaf itself gets the new value within
    `no_grad`, and elsewhere an error says what to write. A Parameter or Buffer without gradient always gets the value,
    because a loop over the parameters of a module has no other name for it. So does the gradient, while the hook that
    got it runs.
    """

    def method(self: Tensor, other: Any) -> Tensor:
        if self.node is not None or (type(self) is Tensor and not self.needs_grad):
            return self._become(op(self, other)) if self is STATE.get().changeable else op(self, other)
        if self.needs_grad and is_grad_enabled():
            raise RuntimeError(
                f"{symbol}=: would bind the name of a leaf that requires a gradient to another Tensor; write "
                f"w.data {symbol}= ... to set the leaf's value, or y = w {symbol} ... to compute a new Tensor"
            )
        value = op(self, other)
        if value.needs_grad:
            raise RuntimeError(
                f"{symbol}=: the value requires a gradient, which {type(self).__name__} would not pass on; use detach()"
            )
        self._set(f"{symbol}=", self._in_own_dtype(f"{symbol}=", value.array))
        return self

    return method


class Tensor(Value):
    """An array of one dtype on one backend, which records how it was computed if a gradient is wanted.

    Args:
        data: numbers, nested lists, a Tensor, an array of NumPy or CuPy, or of a library with DLPack, such as PyTorch;
            the data are *copied*. Python floats become float32; an array keeps its dtype.
        requires_grad: whether gradients with respect to this Tensor are wanted. Floating dtypes only.
        dtype: the dtype to convert to.
        backend: "numpy" (or "cpu"), "cupy" (or "cuda", "gpu"); by default the backend of `data`.

    Attributes:
        grad: the sum of the gradients from ``backward()`` passes, as a Tensor without history; or None.
        version: how often the array was replaced.
        name: the path at which a module holds this Tensor, such as "encoder.layers.0.attention.weight"; otherwise "".

    >>> x = tl.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    Tensor([[2. 4.]
            [6. 8.]], shape=(2, 2), dtype=float32)
    """

    __slots__ = ()

    def __init__(
        self,
        data: TensorLike,
        requires_grad: bool = False,
        dtype: DTypeLike | None = None,
        backend: str | Backend | None = None,
    ) -> None:
        self.array = new_array(data.array if isinstance(data, Value) else without_library(data), dtype, backend)
        self.node, self.output_index = None, 0
        self.grad, self.version, self.name, self.hooks = None, 0, "", None
        self.requires_grad = requires_grad
        if isinstance(data, Tensor):
            data._without_history(self, "Tensor(...)")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Reached only when the attribute does not exist; suggests our name for PyTorch's.
            if name.startswith("_") or hasattr(Tensor, name):  # a property that raised AttributeError, or an empty slot
                return object.__getattribute__(self, name)
            raise AttributeError(unknown_name(type(self).__name__, name, dir(type(self)), TENSOR_NAMES))

    # ---- the value ----

    @property
    def data(self) -> Any:
        """The raw array of NumPy or CuPy, not a copy. Assign to it, by ``=`` or ``-=``, to set the value of a leaf.

        An assignment copies the value, keeps shape and dtype, and increases the version, so that a backward pass that
        needs the old value is an error. The engine cannot see elements being written, as in ``x.data[0] = 1``: do not
        do that between a forward pass and its backward pass. The array of a Tensor that was computed in a graph is
        read-only on NumPy; write into a copy of it.

        >>> w = tl.Tensor([1.0, 2.0], requires_grad=True)
        >>> (w * w).sum().backward()
        >>> w.data -= 0.25 * w.grad.data
        >>> w
        Tensor([0.5 1. ], shape=(2,), dtype=float32, requires_grad=True)
        >>> w.data = w.data - 0.25 * w.grad
        """
        return self.array if self.node is None else read_only(self.array)

    @data.setter
    def data(self, value: TensorLike) -> None:
        if value is self.array:  # x.data -= y has already written into the array
            note_overwritten(self.array, next_serial())
            self._check_leaf("data")
            self._note_change()
            self.version += 1
            return
        if isinstance(value, Value) and value.needs_grad and is_grad_enabled():
            raise TypeError("data: the value requires a gradient, which x would not pass on; use value.detach()")
        given = new_array(
            value.array if isinstance(value, Value) else value, backend=self.backend, floats=floats_beside(self.dtype)
        )
        self._set("data", self._in_own_dtype("data", given))

    @property
    def requires_grad(self) -> bool:
        """Whether gradients with respect to this Tensor are wanted. May be set on leaves of a floating dtype.

        >>> x = tl.ones(2)
        >>> x.requires_grad = True
        >>> (3 * x).sum().backward()
        >>> x.grad.numpy()
        array([3., 3.], dtype=float32)
        """
        return self.needs_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if not isinstance(wanted, bool | np.bool_):  # Tensor([1.0], "float64") would silently ask for a gradient
            remedy = "for a shape use tl.zeros((2, 3))" if isinstance(wanted, int) else "is it meant as dtype=?"
            raise TypeError(f"Tensor: requires_grad must be True or False, got {wanted!r}; {remedy}")
        if wanted and self.array.dtype.kind != "f":
            raise TypeError(
                f"Tensor: requires_grad needs a real floating dtype, got {self.array.dtype}; pass dtype='float32'"
            )
        if self.node is not None and not wanted:
            raise RuntimeError("requires_grad: can be set to False on leaves only; use x.detach()")
        if wanted:
            self.array = kept(self.array)  # its value must not change under a graph, as after from_numpy it could
        self.needs_grad = bool(wanted)

    @property
    def T(self) -> Tensor:
        """The Tensor with its axes reversed."""
        return shapes.transpose(self)

    @property
    def is_leaf(self) -> bool:
        """True unless this Tensor is the output of a recorded op."""
        return self.node is None

    def numpy(self) -> np.ndarray:
        """Return the value as a read-only NumPy array: a view on NumPy, a copy on CuPy. Waits for the GPU.

        ``x.numpy().copy()`` can be written to. The result keeps its values when an optimizer or ``load_state_dict``
        replaces the Tensor's array.

        >>> tl.Tensor([1.0, 2.0]).numpy()
        array([1., 2.], dtype=float32)
        """
        return read_only(self.backend.to_numpy(self.array))

    def item(self) -> Any:
        """Return the only element as a Python number. Waits for the GPU.

        >>> tl.Tensor([[2.5]]).item()
        2.5
        """
        return self._only_element("item")

    def _only_element(self, operation: str) -> Any:
        if self.size != 1:
            raise ValueError(f"{operation}: needs exactly one element, got shape {self.shape}; use .numpy() for all")
        return self.array.item()

    def detach(self) -> Tensor:
        """Return a Tensor with the same value and the same memory, but without history.

        >>> x = tl.Tensor(3.0, requires_grad=True)
        >>> (x * x.detach()).backward()  # the second factor counts as a constant
        >>> x.grad.item()
        3.0
        """
        return self._without_history(wrap(self.array), "detach")

    def to(self, backend: str | Backend) -> Tensor:
        """Return a copy on `backend`, without history; return the Tensor itself if it is there already.

        >>> x = tl.ones(2)
        >>> x.to("numpy") is x
        True
        """
        wanted = get_backend(backend)
        if wanted is self.backend:
            return self
        return self._without_history(Tensor(self.numpy(), self.requires_grad, backend=wanted), "to")

    def _without_history(self, copy: Tensor, how: str) -> Tensor:
        """Return `copy`, which has this value but not this history, after notifying the thread's observer.

        Warn if a gradient is lost by a call that is there for something else, such as moving the value.
        """
        state = STATE.get()
        if state.watch is not None:
            state.watch.detached(self, copy, how)
        if self.node is not None and state.record and (how == "to" or (how == "Tensor(...)" and not copy.needs_grad)):
            warnings.warn(
                f"{how}: the copy has no history, so no gradient flows back from it; use x.copy() to keep the history, "
                "or x.detach() first if none is wanted",
                stacklevel=3 if how == "to" else 4,  # the constructor is called through `answering`
            )
        return copy

    def replace(self, array: Array, copy: bool = True) -> None:
        """Replace the array of this leaf by a copy of `array`, of the same shape but of any dtype and backend.

        This increases the version, so that a backward pass that needs the old value is an error. With ``copy=False``
        the Tensor holds `array` itself; the caller must not write to it any more. Optimizers use that.

        >>> x = tl.Tensor([1.0, 2.0])
        >>> x.replace(np.array([3.0, 4.0], "float32"))
        >>> x.numpy(), x.version
        (array([3., 4.], dtype=float32), 1)
        """
        self._check_leaf("replace")
        if not isinstance(array, np.ndarray):
            array = as_array(array)
            if isinstance(array, Tensor) or not hasattr(array, "dtype"):
                raise TypeError(f"replace: needs an array, got {kind_of(array)}; x.data = value takes anything")
        array = checked_array(array, "replace")
        if self.needs_grad and array.dtype.kind != "f":
            raise TypeError(f"replace: a Tensor that requires a gradient needs a floating dtype, got {array.dtype}")
        self._set("replace", array.copy() if copy else array)

    def _check_leaf(self, operation: str) -> None:
        if self.node is not None:
            raise RuntimeError(
                f"{operation}: needs a leaf, but this Tensor was computed by {self.node.name}; use x.detach()"
            )

    def _set(self, operation: str, array: Array) -> None:
        """Replace the array of this leaf, and increase the version."""
        self._check_leaf(operation)
        if array.shape != self.shape:
            raise ValueError(f"{operation}: the shape must stay {self.shape}, got {tuple(array.shape)}")
        self._note_change()
        self.array = array
        self.version += 1

    def _note_change(self) -> None:
        """Let a step that is being recorded know that the value of this leaf changes in it."""
        if (capture := current_capture()) is not None:
            capture.replaces(self)

    def _become(self, other: Tensor) -> Self:
        """Take over the value and the history of another Tensor; return self."""
        self.array, self.needs_grad = other.array, other.needs_grad
        self.node, self.output_index = other.node, other.output_index
        return self

    def _in_own_dtype(self, operation: str, array: Array) -> Array:
        """Return `array` in the dtype of this Tensor, by the rule of NumPy's assignments: not from float to integer."""
        if array.dtype == self.dtype:
            return array
        if not np.can_cast(array.dtype, self.dtype, "same_kind"):
            raise TypeError(f"{operation}: the dtype must stay {self.dtype}, got {array.dtype}; use .astype(dtype)")
        return array.astype(self.dtype)

    __array_ufunc__ = numpy_functions.UfuncOverride()
    __array_function__ = numpy_functions.array_function

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return sys.modules["tensorlib"]  # by name, because the package imports this file

    __array__ = interop.to_host_array
    __dlpack__ = interop.to_dlpack
    __dlpack_device__ = interop.dlpack_device
    __cuda_array_interface__ = property(interop.cuda_array_interface)
    __copy__ = interop.shallow_copy
    __deepcopy__ = interop.deep_copy
    __reduce__ = interop.reduced

    # ---- the gradient ----

    def backward(self, gradient: TensorLike | None = None, retain_graph: bool = False) -> None:
        """Add the gradients of this scalar to ``.grad`` of every leaf that requires a gradient; see `engine.backward`.

        A Tensor that is not a scalar needs `gradient`, the gradient of the loss with respect to it.

        >>> x = tl.Tensor([1.0, 2.0], requires_grad=True)
        >>> (x * x).sum().backward()
        >>> (3 * x).backward([1.0, 1.0])
        >>> x.grad.numpy()
        array([5., 7.], dtype=float32)
        """
        if isinstance(gradient, bool):
            raise TypeError(f"backward: the gradient must be numbers, got {gradient}; is it meant as retain_graph=?")
        backward.backward(self, gradient, retain_graph)

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
    if TYPE_CHECKING:  # written out because type checkers would otherwise assume the bool of object's comparisons

        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
    else:
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
    __iadd__ = in_place(arithmetic.add, "+")
    __isub__ = in_place(arithmetic.subtract, "-")
    __imul__ = in_place(arithmetic.multiply, "*")
    __itruediv__ = in_place(arithmetic.divide, "/")
    __ifloordiv__ = in_place(arithmetic.floor_divide, "//")
    __imod__ = in_place(arithmetic.remainder, "%")
    __ipow__ = in_place(arithmetic.power, "**")
    __imatmul__ = in_place(linalg.matmul, "@")

    def __pos__(self) -> Self:
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
        # One node for all rows. Each x[i] would be a node of its own, with a gradient as large as x.
        return (row.reshape(self.shape[1:]) for row in shapes.split(self, len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool(logic.equal(self, value).any().item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"bool: a Tensor of shape {self.shape} has no single truth value; use .any() or .all()")
        return bool(self.array.item())

    def __float__(self) -> float:
        return float(self._number("float"))

    def __int__(self) -> int:
        return int(self._number("int"))

    def _number(self, operation: str) -> Any:
        """Return the only element; warn if it leaves a graph, which ``array[i] = x`` and math.exp(x) do unnoticed."""
        number = self._only_element(operation)
        if self.needs_grad and is_grad_enabled():
            warnings.warn(
                f"{operation}: this Tensor requires a gradient, which a number does not pass on; use x.item() if only "
                "the value is wanted, or tl.stack and tl.exp(x) in place of array[i] = x and math.exp(x)",
                stacklevel=3,
            )
        return number

    def __index__(self) -> int:
        if self.ndim or self.dtype.kind not in "iu":
            raise TypeError(
                f"index: needs a 0-d Tensor of integers, got shape {self.shape} and dtype {self.dtype}; see int(x)"
            )
        return self.array.item()

    def __format__(self, spec: str) -> str:
        return format(self._only_element(f"format {spec!r}"), spec) if spec else str(self)

    def __repr__(self) -> str:
        kind = type(self).__name__
        values = np.array2string(self.numpy(), precision=4, threshold=20, edgeitems=2, prefix=f"{kind}(")
        parts = [values, f"shape={self.shape}", f"dtype={self.dtype}"]
        if self.backend.name != "numpy":
            parts.append(f"backend={self.backend.name}")
        if self.node is not None:
            where = f" in {self.node.path}" if self.node.path else ""
            line = f" at {basename(self.node.source)}" if self.node.source else ""
            parts.append(f"from={self.node.name}{where}{line}")
        elif self.requires_grad:
            parts.append("requires_grad=True")
        if self.name:
            parts.append(f"name={self.name}")
        return f"{kind}({', '.join(parts)})"


Value.public_class = Tensor
