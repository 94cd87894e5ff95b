"""Exchange with NumPy, with other libraries by DLPack, and with ``copy`` and pickle.

Other libraries would lose the history of a Tensor that requires a gradient, so exporting one is an error: use
``x.detach()``. A Tensor from `from_numpy` or `from_dlpack` *shares* memory with its source; ``Tensor(x)`` copies.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import get_backend
from tensorlib.arrays.conversion import check_numbers, dlpack_array, new_array, plain
from tensorlib.arrays.sharing import note_shared, read_only
from tensorlib.engine.value import Value, as_value, wrap
from tensorlib.messages import kind_of

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__ = ["from_dlpack", "from_numpy"]


# ---- in --------------------------------------------------------------------------------------------------------


def from_numpy(array: np.ndarray) -> Tensor:
    """Return a Tensor that *shares* the memory of a numpy.ndarray: later changes of the array show in the Tensor.

    Shape, dtype and strides are kept; a read-only array stays read-only, a memory-mapped one stays mapped.
    The Tensor does not require a gradient; setting that gives it memory of its own. A graph that needs the value keeps
    a copy, so changes of the array do not reach its gradients. ``tl.Tensor(array)`` copies.

    Raises TypeError for anything except a numpy.ndarray of numbers, and for a masked array.

    >>> array = np.zeros(2)
    >>> x = tl.from_numpy(array)
    >>> array[0] = 5
    >>> x.numpy()
    array([5., 0.])
    """
    if not isinstance(array, np.ndarray):
        remedy = "tl.from_dlpack(x)" if hasattr(array, "__dlpack__") else "tl.Tensor(x), which copies"
        raise TypeError(f"from_numpy: needs a numpy.ndarray, got {kind_of(array)}; use {remedy}")
    array = plain("from_numpy", array)
    check_numbers("from_numpy", array.dtype)
    if not array.dtype.isnative:
        raise TypeError(
            f"from_numpy: the byte order must be that of this machine, got dtype {array.dtype}; use tl.Tensor(x), "
            "which copies"
        )
    note_shared(array)
    return wrap(array)


def from_dlpack(x: Any) -> Tensor:
    """Return a Tensor that *shares* the memory of `x`, an array of any library with DLPack, such as PyTorch.

    Shape and dtype are those of the array, and the backend follows from its memory: a GPU array becomes a Tensor on
    "cupy". Later changes of the array show in the Tensor, as with `from_numpy`; ``tl.Tensor(tl.from_dlpack(x))`` is a
    copy.

    Raises TypeError if x does not support DLPack or is not numeric, BufferError if its memory cannot be shared.

    >>> tl.from_dlpack(np.arange(3)).shape
    (3,)
    """
    if isinstance(x, Value):
        tensor = as_value(x)
        _refuse_gradient(tensor, "from_dlpack", BufferError, "the new Tensor")
        return tensor.detach()
    if isinstance(x, np.ndarray):
        return from_numpy(x)
    if isinstance(x, type) or not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
        raise TypeError(
            f"from_dlpack: needs an array that has __dlpack__, got {kind_of(x)}; use tl.Tensor(x), which copies"
        )
    array = dlpack_array("from_dlpack", x)
    note_shared(array)
    return wrap(array)


# ---- out -------------------------------------------------------------------------------------------------------


def to_host_array(x: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    """Return the array for ``np.asarray(x)``, a read-only view, or for ``np.array(x)``, a copy.

    Raises TypeError if that would silently lose a gradient or wait for a GPU.
    """
    if x.requires_grad:
        raise TypeError(
            "numpy: this Tensor requires a gradient, which NumPy would lose; use x.detach().numpy(), "
            "or tl.stack and tl.concatenate to join Tensors"
        )
    if x.backend.xp is not np:
        raise TypeError(f"numpy: this Tensor is on backend {x.backend.name!r}; use x.numpy()")
    array = np.array(x.data, dtype=dtype, copy=copy)
    return read_only(array) if array is x.data else array  # a graph may have saved this memory


def to_dlpack(x: Tensor, **options: Any) -> Any:
    """Return the array's DLPack capsule, which shares its memory; ``torch.from_dlpack(x)`` calls this."""
    _refuse_gradient(x, "dlpack", BufferError, "the other library")
    array: Any = x.data
    note_shared(array)  # the other library may write to it
    return array.__dlpack__(**options)


def dlpack_device(x: Tensor) -> tuple[int, int]:
    """Return DLPack's (device type, number) of the memory: (1, 0) on the host, (2, number) on a CUDA GPU."""
    array: Any = x.data
    return array.__dlpack_device__()


def cuda_array_interface(x: Tensor) -> dict[str, Any]:
    """Return CuPy's description of the memory. Raises AttributeError on NumPy, so that ``hasattr`` is False there."""
    description = getattr(x.data, "__cuda_array_interface__", None)
    if description is None:
        raise AttributeError(f"a Tensor on backend {x.backend.name!r} has no __cuda_array_interface__")
    _refuse_gradient(x, "cuda_array_interface", BufferError, "the other library")
    return description


def _refuse_gradient(x: Tensor, operation: str, error: type[Exception], receiver: str) -> None:
    if x.requires_grad:
        raise error(f"{operation}: this Tensor requires a gradient, which {receiver} would lose; use x.detach()")


# ---- copies ----------------------------------------------------------------------------------------------------


def shallow_copy(x: Tensor) -> Tensor:
    """Return another Tensor with the same array and the same history, for ``copy.copy``."""
    y = rebuilt(type(x), 0.0, None, False, x.name, x.grad, getattr(x, "__dict__", {}))
    y.array, y.needs_grad, y.node, y.output_index, y.version = x.array, x.needs_grad, x.node, x.output_index, x.version
    return y


def deep_copy(x: Tensor, memo: dict[int, Any]) -> Tensor:
    """Return a leaf with its own memory on the same backend, for ``copy.deepcopy``. Tied parameters stay tied.

    Hooks on the gradient are not copied: they often refer to the object that they were registered for.
    """
    _refuse_history(x, "deepcopy")
    attributes = copy.deepcopy(getattr(x, "__dict__", {}), memo)
    grad = None if x.grad is None else x.grad.detach().copy()
    return rebuilt(type(x), x.array, None, x.needs_grad, x.name, grad, attributes)


def reduced(x: Tensor) -> tuple[Any, ...]:
    """Return `rebuilt` and its arguments, for pickle: the values on the host, the backend's name, but no graph."""
    _refuse_history(x, "pickle")
    grad = None if x.grad is None else x.grad.detach()
    attributes = getattr(x, "__dict__", {})
    return rebuilt, (type(x), x.numpy(), x.backend.name, x.needs_grad, x.name, grad, attributes)


def rebuilt(
    kind: type[Tensor], array: Any, backend: str | None, requires_grad: bool, name: str, grad: Any, attributes: Any
) -> Tensor:
    """Return a leaf of class `kind` with a copy of `array`; on the host if `backend` (a GPU) is unavailable."""
    try:
        home = None if backend is None else get_backend(backend)
    except (RuntimeError, ValueError):
        home = None
    x = kind.__new__(kind)  # not kind(array): a subclass may take other arguments
    x.array = new_array(array, backend=home)
    x.node, x.output_index, x.needs_grad, x.version, x.hooks = None, 0, requires_grad, 0, None
    x.name, x.grad = name, grad
    if attributes:
        vars(x).update(attributes)
    return x


def _refuse_history(x: Tensor, operation: str) -> None:
    if not x.is_leaf:
        raise RuntimeError(
            f"{operation}: needs a leaf, but this Tensor of shape {x.shape} was computed by "
            f"{x.node.name if x.node else ''}; use x.detach()"
        )
