"""Conversion of a caller's data to a new array of numbers on a given backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlib.arrays.backend import Array, Backend, backend_of, get_backend, is_backend_array
from tensorlib.messages import kind_of, shown

__all__ = [
    "check_numbers",
    "dlpack_array",
    "floats_beside",
    "native",
    "new_array",
    "numeric_dtype",
    "plain",
    "too_large",
    "without_library",
]


def new_array(data: Any, dtype: Any = None, backend: str | Backend | None = None, floats: Any = np.float32) -> Array:
    """Return a copy of `data` as an array, by the rules of Tensor's constructor.

    Python floats become `floats`, and data that has a dtype keeps it, also in a list, unless `dtype` is given. The copy
    is on `backend`, by default on the backend of `data`.

    Raises TypeError if `data` is not numeric; ValueError if nested lists do not form a rectangle, or if an integer in
    them is too large for `dtype`.
    """
    dtype = None if dtype is None else numeric_dtype("Tensor", dtype)
    if not hasattr(data, "dtype"):
        given = data
        try:
            data = np.asarray(given)
        except ValueError:
            raise ValueError("Tensor: nested lists must form a rectangle, got rows of different lengths") from None
        if data.dtype == object:
            raise TypeError(f"Tensor: data must be numbers, got {_not_a_number(given, data)}")
        if data.dtype == np.float64 and dtype is None and not _holds_arrays(given):
            dtype = floats
        if dtype is not None and data.dtype.kind in "iuf" and np.dtype(dtype).kind in "iu":
            _require_fitting(data, np.dtype(dtype))
        data = data[()] if not data.ndim else data  # a number, which a GPU writes without an upload
    own = backend_of(data)
    data = plain("Tensor", data)
    check_numbers("Tensor", data.dtype)
    home = own if backend is None else get_backend(backend)
    if home is not own:
        data = own.to_numpy(data)
    return home.asarray(data, native(data.dtype) if dtype is None and not data.dtype.isnative else dtype)


def plain(operation: str, array: Any) -> Any:
    """Return an array of a subclass of numpy.ndarray, such as a matrix, as an ndarray; refuse a masked array."""
    if isinstance(array, np.ndarray) and type(array) is not np.ndarray:
        if hasattr(array, "mask"):
            raise TypeError(f"{operation}: a Tensor has no mask, got a MaskedArray; use x.filled(0)")
        array = array.view(np.ndarray)  # a memmap stays mapped
    return array


def without_library(x: Any) -> Any:
    """Return data as they are, or an array of another library, such as a torch.Tensor, as one of NumPy or CuPy."""
    return dlpack_array("Tensor", x) if hasattr(x, "__dlpack_device__") and not is_backend_array(x) else x


def dlpack_array(operation: str, x: Any) -> Array:
    """Return an array of NumPy or CuPy that shares the memory of `x`, an array of any library with DLPack."""
    device = int(x.__dlpack_device__()[0])
    if device not in _BACKENDS:
        raise BufferError(
            f"{operation}: memory must be on the host or on a CUDA GPU, got DLPack device type {device}; "
            "move it to the host first"
        )
    backend = get_backend(_BACKENDS[device])
    try:
        array = backend.xp.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise BufferError(f"{operation}: {kind_of(x)} cannot be shared: {reason}") from error
    check_numbers(operation, array.dtype)
    return array


_BACKENDS = {1: "numpy", 2: "cupy", 13: "cupy"}  # by DLPack's device type: host, CUDA, CUDA managed memory


def check_numbers(operation: str, dtype: Any) -> None:
    """Raise TypeError unless `dtype` is boolean, integer or real, of at most 64 bits."""
    if dtype.kind not in "biufc":
        raise TypeError(f"{operation}: data must be numbers, got dtype {dtype}")
    if dtype.kind == "c":
        raise TypeError(
            f"{operation}: complex numbers are not supported, got dtype {dtype}; keep the real and the imaginary part "
            "as two Tensors"
        )
    if dtype.itemsize > 8:
        raise TypeError(f"{operation}: numbers of more than 64 bits are not supported, got dtype {dtype}; use float64")


def numeric_dtype(operation: str, dtype: Any, hint: str = "") -> np.dtype:
    """Return a numeric dtype that is given as a name, a type or a dtype, in the byte order of this machine."""
    try:
        kind = None if dtype is None else np.dtype(dtype)
    except TypeError:
        kind = None
    if kind is None or kind.kind not in "biufc":
        raise TypeError(
            f"{operation}: dtype must be numeric, such as 'float32' or 'int64'; got {shown(dtype)}{hint}"
        ) from None
    check_numbers(operation, kind)
    return native(kind)


def native(dtype: np.dtype) -> np.dtype:
    """Return the dtype in the byte order of this machine, which kernels and GPUs expect."""
    return dtype.newbyteorder("=")


def floats_beside(dtype: np.dtype) -> np.dtype:
    """Return the dtype of Python floats that are combined with an array of `dtype`: its own, if that is floating."""
    return dtype if dtype.kind == "f" else np.dtype(np.float32)


def _holds_arrays(data: Any) -> bool:
    """Return whether nested lists hold arrays or NumPy's scalars, which have a dtype, rather than Python numbers."""
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return hasattr(data, "dtype")


def _require_fitting(numbers: np.ndarray, dtype: np.dtype) -> None:
    """Raise ValueError unless all numbers, which may be floats, can be converted to an integer dtype."""
    limits = np.iinfo(dtype)
    outside = numbers[~((numbers >= limits.min) & (numbers < limits.max + 1))]  # NaN too
    if outside.size:
        raise ValueError(
            f"Tensor: integers from {limits.min} to {limits.max} are required for {dtype}, got {outside.flat[0]}; "
            "use a wider dtype"
        )


def _not_a_number(given: Any, objects: np.ndarray) -> str:
    """Return a description of the first element that is not a number, in data that NumPy kept as objects."""
    for x in objects.reshape(-1):
        if not isinstance(x, bool | int | float):
            inside = "" if x is given else f"{kind_of(given)} with "
            remedy = "; is a return missing? None itself is tested by x is None" if x is None else ""
            return f"{inside}{kind_of(x)}{'; call it first' if callable(x) else remedy}"
    return "an integer of more than 64 bits"


def too_large(name: str, dtype: np.dtype, numbers: list[int]) -> ValueError:
    """Return the error for a Python integer that does not fit the dtype of the array beside it."""
    ranges = {kind: np.iinfo(kind) for kind in (str(dtype), "int64") if np.dtype(kind).kind in "iu"}
    outside = {kind: [n for n in numbers if not r.min <= n <= r.max] for kind, r in ranges.items()}
    number = (outside.get(str(dtype)) or numbers)[0]
    remedy = "pass a float" if dtype.kind == "f" else f"use x.astype({'float64' if outside['int64'] else 'int64'!r})"
    return ValueError(f"{name}: dtype {dtype} cannot hold {shown(number)}; {remedy}")
