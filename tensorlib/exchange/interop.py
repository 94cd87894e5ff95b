"""The doors of a Tensor: to NumPy, to other libraries by DLPack, and to ``copy`` and pickle.

What leaves by a door leaves its history behind, so a Tensor that requires a gradient is not let out by itself: say
``x.detach()``. What enters by `from_numpy` and `from_dlpack` *shares* memory with its owner; ``Tensor(x)`` copies.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import Array, Backend, backend_of, get_backend

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__ = ["from_dlpack", "from_numpy"]

_BACKENDS = {1: "numpy", 2: "cupy", 13: "cupy"}  # of DLPack's device types: the host, CUDA, memory that CUDA manages


# ---- in --------------------------------------------------------------------------------------------------------


def new_array(data: Any, dtype: Any, backend: str | Backend | None) -> Array:
    """Return a copy of `data` as `Tensor` holds it. Python floats become float32, what has a dtype keeps it."""
    if isinstance(data, _tensor.Tensor):
        data = data._array
    if not hasattr(data, "dtype"):
        given = data
        try:
            data = np.asarray(given)
        except ValueError:
            raise ValueError("Tensor: nested lists must form a rectangle, got rows of different lengths") from None
        if data.dtype == object:
            raise TypeError(f"Tensor: data must be numbers, got {_what_is_no_number(given, data)}")
        if data.dtype == np.float64 and dtype is None:
            dtype = np.float32
    check_numbers("Tensor", data.dtype)
    own = backend_of(data)
    home = own if backend is None else get_backend(backend)
    if home is not own:
        data = own.to_numpy(data)
    array = home.asarray(data, dtype)
    if dtype is not None:
        check_numbers("Tensor", array.dtype)
    return array


def _what_is_no_number(given: Any, objects: np.ndarray) -> str:
    """Name the culprit among data that NumPy could only keep as objects."""
    for x in objects.reshape(-1):
        if not isinstance(x, bool | int | float | complex):
            inside = "" if x is given else f"{kind_of(given)} with "
            return f"{inside}{kind_of(x)}{'; call it first' if callable(x) else ''}"
    return "an integer of more than 64 bits"


def from_numpy(array: Array) -> Tensor:
    """Return a Tensor that *shares* the array's memory: later changes of the array show in it."""
    if not isinstance(array, np.ndarray):
        remedy = "tl.from_dlpack(x)" if hasattr(array, "__dlpack__") else "tl.Tensor(x), which copies"
        raise TypeError(f"from_numpy: needs a numpy.ndarray, got {kind_of(array)}; use {remedy}")
    if hasattr(array, "mask"):
        raise TypeError("from_numpy: a Tensor has no mask, got a MaskedArray; use x.filled(0)")
    check_numbers("from_numpy", array.dtype)
    return _tensor.wrap(array if type(array) is np.ndarray else array.view(np.ndarray))  # a memmap stays mapped


def from_dlpack(x: Any) -> Tensor:
    """Return a Tensor that *shares* the memory of an array of NumPy, CuPy, PyTorch, JAX, ...: of any that has DLPack.

    The backend follows the memory: that of a GPU becomes a Tensor on "cupy". Later changes of the array show in the
    Tensor, so leave it alone until the backward pass is over; ``Tensor(tl.from_dlpack(x))`` is a copy.
    """
    if isinstance(x, _tensor.Tensor):
        _refuse_gradient(x, "from_dlpack", BufferError, "another Tensor by this door")
        return x.detach()
    if isinstance(x, np.ndarray):
        return from_numpy(x)
    if isinstance(x, type) or not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
        raise TypeError(
            f"from_dlpack: needs an array that has __dlpack__, got {kind_of(x)}; use tl.Tensor(x), which copies"
        )
    device = int(x.__dlpack_device__()[0])
    if device not in _BACKENDS:
        raise BufferError(
            f"from_dlpack: memory must be of the host or of a CUDA GPU, got DLPack device type {device}; "
            "move it to the host first"
        )
    backend = get_backend(_BACKENDS[device])
    try:
        array = backend.xp.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:  # what the owner or the taker refuses
        reason = str(error).partition("\n")[0].rstrip(".")
        raise BufferError(f"from_dlpack: {kind_of(x)} cannot be shared: {reason}") from error
    check_numbers("from_dlpack", array.dtype)
    return _tensor.wrap(array)


def check_numbers(operation: str, dtype: Any) -> None:
    """Raise TypeError unless the dtype is of booleans, integers, real or complex numbers."""
    if dtype.kind not in "biufc":
        raise TypeError(f"{operation}: data must be numbers, got dtype {dtype}")


def kind_of(x: Any) -> str:
    """Return how messages call the type of x: "list", "torch.Tensor"; a class by its own name."""
    kind = x if isinstance(x, type) else type(x)
    module = kind.__module__.partition(".")[0]
    name = kind.__qualname__ if module in ("builtins", "nn", "tensorlib", "__main__") else f"{module}.{kind.__name__}"
    return f"the class {name}" if isinstance(x, type) else name


# ---- out -------------------------------------------------------------------------------------------------------


def to_host_array(x: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    """Return what ``np.asarray(x)`` gets. It would lose a gradient, or wait for a GPU, unseen: both are errors."""
    if x.requires_grad:
        raise TypeError(
            "numpy: this Tensor requires a gradient, which NumPy would lose; use x.detach().numpy(), "
            "or tl.stack and tl.concatenate to join Tensors"
        )
    if x.backend.xp is not np:
        raise TypeError(f"numpy: this Tensor is on backend {x.backend.name!r}; use x.numpy()")
    return np.array(x.data, dtype=dtype, copy=copy)


def to_dlpack(x: Tensor, **options: Any) -> Any:
    """Return the array's DLPack capsule, which shares its memory; ``torch.from_dlpack(x)`` asks for it."""
    _refuse_gradient(x, "dlpack", BufferError, "the other library")
    return x.data.__dlpack__(**options)


def dlpack_device(x: Tensor) -> tuple[int, int]:
    """Return DLPack's (device type, number) of the memory: (1, 0) on the host, (2, number) on a CUDA GPU."""
    return x.data.__dlpack_device__()


def cuda_array_interface(x: Tensor) -> dict[str, Any]:
    """Return CuPy's description of the memory; AttributeError on NumPy, so that ``hasattr`` tells them apart."""
    description = getattr(x.data, "__cuda_array_interface__", None)
    if description is None:
        raise AttributeError(f"a Tensor on backend {x.backend.name!r} has no __cuda_array_interface__")
    _refuse_gradient(x, "cuda_array_interface", BufferError, "the other library")
    return description


def _refuse_gradient(x: Tensor, operation: str, error: type[Exception], taker: str) -> None:
    if x.requires_grad:
        raise error(f"{operation}: this Tensor requires a gradient, which {taker} would not know of; use x.detach()")


# ---- copies ----------------------------------------------------------------------------------------------------


def shallow_copy(x: Tensor) -> Tensor:
    """Return another Tensor on the same array and the same history; what ``copy.copy`` does."""
    y = rebuilt(type(x), 0.0, None, False, x.name, x.grad, getattr(x, "__dict__", {}))
    y._array, y._requires_grad, y._node, y._index, y.version = x._array, x._requires_grad, x._node, x._index, x.version
    return y


def deep_copy(x: Tensor, memo: dict[int, Any]) -> Tensor:
    """Return a leaf with memory of its own, on the same backend; what ``copy.deepcopy`` does. Tied stays tied.

    Hooks on its gradient belong to the old leaf: they often hold on to what they were made for.
    """
    _refuse_history(x, "deepcopy")
    attributes = copy.deepcopy(getattr(x, "__dict__", {}), memo)
    grad = None if x.grad is None else x.grad.detach().copy()
    return rebuilt(type(x), x._array, None, x._requires_grad, x.name, grad, attributes)


def reduced(x: Tensor) -> tuple[Any, ...]:
    """Return what pickle takes of a leaf: its values on the host and the name of its backend, never a graph."""
    _refuse_history(x, "pickle")
    grad = None if x.grad is None else x.grad.detach()
    attributes = getattr(x, "__dict__", {})
    return rebuilt, (type(x), x.numpy(), x.backend.name, x._requires_grad, x.name, grad, attributes)


def rebuilt(
    kind: type[Tensor], array: Any, backend: str | None, requires_grad: bool, name: str, grad: Any, attributes: Any
) -> Tensor:
    """Make a leaf of class `kind` from a copy of `array`; on the host where its backend, a GPU, is not to be had."""
    try:
        home = None if backend is None else get_backend(backend)
    except (RuntimeError, ValueError):
        home = None
    x = kind.__new__(kind)  # a subclass may take other arguments, so not kind(array)
    _tensor.Tensor.__init__(x, array, requires_grad, backend=home)
    x.name, x.grad = name, grad
    vars(x).update(attributes) if attributes else None
    return x


def _refuse_history(x: Tensor, operation: str) -> None:
    if not x.is_leaf:
        raise RuntimeError(
            f"{operation}: only leaves can be taken along, and this Tensor of shape {x.shape} was computed by "
            f"{x._node.name if x._node else ''}; use x.detach()"
        )


# Tensor takes its doors from here, so its module may be imported only when everything above exists.
import tensorlib.tensor as _tensor  # noqa: E402
