"""cupy.ndarray and the functions of the module cupy, computed by NumPy in memory of the emulated device."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from tests.emulated_gpu import memory
from tests.emulated_gpu.device import capturing, counts, fetches, get_current_stream, library, submit, uploads
from tests.strict import Namespace, StrictArray, index_of, unwrapped

# ruff: noqa: SIM905  # plain words are easier to read than quoted ones

FETCH = set("nonzero flatnonzero unique extract bincount argwhere".split())  # CuPy reads a size from the device
CUBLAS = set("matmul __matmul__ __rmatmul__ dot inner vdot tensordot einsum".split())
JOIN = set("concatenate stack hstack vstack".split())
CHANGE = set("copyto put_along_axis".split())
_OWNERS: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # the first array of each window


def hosts_in(value: Any, change: Any) -> Any:
    """Apply `change` to every NumPy array in nested tuples, lists and dicts."""
    if isinstance(value, np.ndarray):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(hosts_in(part, change) for part in value)
    if isinstance(value, dict):
        return {name: hosts_in(part, change) for name, part in value.items()}
    return value


def by_address(array: np.ndarray) -> np.ndarray:
    """Return an array of the device without a hold on its memory; a host's array as a copy, as it is now."""
    return memory.unowned(array) if memory.is_device_address(array.ctypes.data) else array.copy()


def addresses_in(value: Any) -> list[int]:
    """Return the addresses of all arrays of the device in nested tuples, lists and dicts."""
    found: list[int] = []

    def note(array: np.ndarray) -> None:
        if array.size and memory.is_device_address(array.ctypes.data):
            found.append(array.ctypes.data)

    hosts_in(value, note)
    return found


class ndarray(StrictArray):  # CuPy's name
    """An array in memory of the emulated device."""

    __slots__ = ("_base",)
    __module__ = "cupy"

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C"
    ) -> None:
        shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        if memptr is None:
            self._host = memory.new(shape, dtype, order)
        else:
            self._host = memory.seen(memptr, memptr.ptr, shape, dtype, strides)
        self._base = None
        _OWNERS[id(memory.window_of(self._host))] = self

    @classmethod
    def _of(cls, host: np.ndarray) -> ndarray:
        """Return an array of memory of the device that NumPy sees as `host`."""
        self = object.__new__(cls)
        self._host = host
        window = id(memory.window_of(host))
        self._base = _OWNERS.get(window)
        if self._base is None:
            _OWNERS[window] = self
        return self

    @classmethod
    def _compute(cls, function: Any, arguments: Any, options: Any) -> Any:
        name = getattr(function, "__name__", "")
        if name in JOIN:
            _upload_for_joining(arguments[0])
        if name in FETCH or (name == "where" and len(arguments) == 1):
            fetches()
        if name in CUBLAS and all(a.dtype.kind == "f" for a in arguments if isinstance(a, np.ndarray)):
            library("cuBLAS")
        if name in CHANGE:
            cls._change(function, *arguments, **options)
            return None
        if options.get("out") is not None:
            out = options["out"]
            cls._change(function, *arguments, **options)
            return cls._of(out)
        with np.errstate(all="ignore"):
            result = function(*arguments, **options)
        if result is NotImplemented:
            return result
        if isinstance(result, bool | int | float):
            result = np.asarray(result)
        if isinstance(result, np.ndarray | np.generic):
            return cls._kept(np.asarray(result), lambda r: r, function, arguments, options)
        if isinstance(result, tuple | list):
            parts = [
                cls._kept(np.asarray(r), lambda all_parts, i=i: all_parts[i], function, arguments, options)
                for i, r in enumerate(result)
            ]
            return type(result)(parts) if type(result) in (tuple, list) else type(result)(*parts)
        return result

    @classmethod
    def _kept(cls, result: np.ndarray, part: Any, function: Any, arguments: Any, options: Any) -> ndarray:
        """Return a result as an array of the device; while recording, with the work that computes it again."""
        if memory.is_device_address(result.ctypes.data) and result.size:
            return cls._of(result)  # a view
        order = "F" if result.flags.f_contiguous and not result.flags.c_contiguous else "C"
        out = memory.new(result.shape, result.dtype, order)
        if not capturing():
            counts.launches += 1
            out[...] = result
            return cls._of(out)
        target, name = by_address(out), getattr(function, "__name__", "")
        arguments, options = hosts_in(tuple(arguments), by_address), hosts_in(options, by_address)
        addresses = addresses_in((target, arguments, options))

        def compute() -> None:
            memory.require_live(addresses, name)
            with np.errstate(all="ignore"):
                target[...] = part(function(*arguments, **options))

        submit(compute)
        return cls._of(out)

    @classmethod
    def _change(cls, function: Any, *arguments: Any, **options: Any) -> None:
        addresses: list[int] = []
        if capturing():
            arguments, options = hosts_in(arguments, by_address), hosts_in(options, by_address)
            addresses = addresses_in((arguments, options))

        def compute() -> None:
            memory.require_live(addresses, getattr(function, "__name__", ""))
            with np.errstate(all="ignore"):
                function(*arguments, **options)

        submit(compute)

    # ---- what it is

    base = property(lambda self: self._base)
    data = property(lambda self: _pointer(self._host))
    device = property(lambda self: self.data.device)
    mT = property(lambda self: self.swapaxes(-1, -2))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        contiguous = self._host.flags.c_contiguous
        return {
            "shape": self.shape, "typestr": self.dtype.str, "descr": self.dtype.descr, "version": 3,
            "data": (self._host.ctypes.data if self.size else 0, False), "stream": 1,
            "strides": None if contiguous else self.strides,
        }  # fmt: skip

    __array_namespace__ = property()  # CuPy's arrays have none

    def __repr__(self) -> str:
        return repr(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.item() if not self.ndim else self.get(), spec)

    # ---- from and to the host

    def item(self, *index: Any) -> Any:
        fetches()
        return self._host.item(*index)

    def tolist(self) -> Any:
        return self.get().tolist()

    def tobytes(self, order: str = "C") -> bytes:
        return self.get().tobytes(order)

    def get(
        self, stream: Any = None, order: str = "C", out: np.ndarray | None = None, blocking: bool = True
    ) -> np.ndarray:
        with stream or get_current_stream():
            fetches(waits=blocking)
        if out is None:
            return np.array(self._host, order="C" if order == "C" else "F")
        if self.dtype != out.dtype:
            raise TypeError(f"{out.dtype} array cannot be obtained from {self.dtype} array")
        if self.shape != out.shape:
            raise ValueError(f"Shape mismatch. Expected shape: {self.shape}, actual shape: {out.shape}")
        if blocking:
            out[...] = self._host
        else:
            host = np.array(self._host, order="C" if out.flags.c_contiguous else "F")
            kept = memory.seen(None, 0, (0,), np.uint8) if not host.size else memory.copied(host)
            memory.copy_with_host(out.ctypes.data, kept.ctypes.data, host.nbytes, stream)
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        with stream or get_current_stream():
            uploads()
        self._host[...] = arr

    def _number(self, kind: Any) -> Any:
        if self.size != 1:
            raise TypeError("only size-1 arrays can be converted to Python scalars")
        fetches()
        return kind(self._host.reshape(())[()])

    def __bool__(self) -> bool:
        if self.size == 0:
            return False
        if self.size > 1:
            raise ValueError("The truth value of an array with more than one element is ambiguous. "
                             "Use a.any() or a.all()")  # fmt: skip
        return self._number(bool)

    def __float__(self) -> float:
        return self._number(float)

    def __int__(self) -> int:
        return self._number(int)

    def __complex__(self) -> complex:
        return self._number(complex)

    def __index__(self) -> int:
        if self.ndim or self.dtype.kind not in "iu":
            raise TypeError("only integer scalar arrays can be converted to a scalar index")
        return self._number(int)

    # ---- copies

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        dtype = np.dtype(dtype)
        if not copy and dtype == self.dtype:
            return self
        return self._compute(_astype, (self._host, dtype, order), {})

    def copy(self, order: str = "C") -> ndarray:
        return self._compute(np.array, (self._host,), {"order": order})

    def flatten(self, order: str = "C") -> ndarray:
        return self._compute(np.ndarray.flatten, (self._host, order), {})

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def fill(self, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError(f"Unsupported type {type(value)}")
        self._change(np.ndarray.fill, self._host, unwrapped(value))

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        if kind not in (None, "stable"):
            raise ValueError(f"kind can only be None or 'stable', got {kind!r}")
        self._change(np.ndarray.sort, self._host, axis, "stable")

    def nonzero(self) -> Any:
        return self._compute(np.nonzero, (self._host,), {})

    # ---- indices

    def __getitem__(self, index: Any) -> Any:
        _fetch_for(index)
        return self._compute(_taken, (self._host, _index(index)), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError(f"Unsupported type {type(value)}")
        if isinstance(value, ndarray) and value.size > 1:
            _fetch_for(index)
        self._change(_put, self._host, _index(index), unwrapped(value))

    # ---- other libraries

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        return Capsule(self.copy() if copy else self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


class Capsule:
    """What goes from one array of the emulated device to another in the place of DLPack's capsule."""

    def __init__(self, array: ndarray) -> None:
        self.array = array


def _pointer(host: np.ndarray) -> memory.MemoryPointer:
    pointer = memory.window_of(host).pointer
    return memory.MemoryPointer(pointer.mem, host.ctypes.data - pointer.mem.ptr)


def _astype(host: np.ndarray, dtype: Any, order: str) -> np.ndarray:
    return host.astype(dtype, order=order)


def _fetch_for(index: Any) -> None:
    """Count what an index costs: a mask is counted on the device, a list or a host's array is uploaded."""
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, StrictArray) and part.dtype.kind == "b":
            fetches()
        elif isinstance(part, np.ndarray | list):
            uploads()


def _upload_for_joining(arrays: Any) -> None:
    """Count what CuPy uploads to join more than 8 arrays of one dtype that are small: addresses, sizes and strides."""
    if len(arrays) > 8 and len({a.dtype for a in arrays}) == 1 and sum(a.nbytes for a in arrays) < len(arrays) << 21:
        alike = len({a.shape for a in arrays}) == 1 and all(a.flags.c_contiguous for a in arrays)
        for _ in range(1 if alike else 3):
            uploads()


def _index(index: Any) -> Any:
    """Return an index for NumPy that takes a view where CuPy takes one: also of a single element."""
    index = index_of(index)
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(np.asarray(p) if isinstance(p, list) else p for p in parts)
    return parts if any(p is Ellipsis for p in parts) else (*parts, Ellipsis)


def _wrapped_around(shape: Any, parts: Any) -> Any:
    """Return an index whose arrays of integers are within range: CuPy wraps those that are not."""
    if not any(isinstance(p, np.ndarray) and p.dtype.kind in "iu" for p in parts):
        return parts
    taken = sum(0 if p is None or p is Ellipsis else (p.ndim if _is_mask(p) else 1) for p in parts)
    axis, result = 0, []
    for p in parts:
        if isinstance(p, np.ndarray) and p.dtype.kind in "iu" and shape[axis]:
            p = p.astype(np.int64) % shape[axis]
        result.append(p)
        axis += 0 if p is None else len(shape) - taken if p is Ellipsis else p.ndim if _is_mask(p) else 1
    return tuple(result)


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype.kind == "b"


def _taken(host: np.ndarray, parts: Any) -> np.ndarray:
    return host[_wrapped_around(host.shape, parts)]


def _put(host: np.ndarray, parts: Any, value: Any) -> None:
    host[_wrapped_around(host.shape, parts)] = value


# ---- the module's functions -----------------------------------------------------------------------------------------


def _shape(shape: Any) -> tuple[int, ...]:
    return (int(shape),) if isinstance(shape, int | np.integer) else tuple(int(n) for n in shape)


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(shape, dtype, order=order)


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    if dtype is None:
        dtype = fill_value.dtype if isinstance(fill_value, ndarray) else np.array(fill_value).dtype
    made = ndarray(_shape(shape), dtype, order=order)
    made.fill(fill_value)
    return made


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 0, dtype, order)


def ones(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 1, dtype, order)


def _like(make: Any) -> Any:
    def like(a: ndarray, *value: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> Any:
        if not isinstance(a, ndarray):
            raise TypeError(f"Unsupported type {type(a)}")
        fortran = a.flags.f_contiguous and not a.flags.c_contiguous and order in "KA"
        return make(
            a.shape if shape is None else shape, *value, dtype=a.dtype if dtype is None else dtype,
            order="F" if fortran or order == "F" else "C",
        )  # fmt: skip

    return like


def array(
    obj: Any, dtype: Any = None, copy: bool = True, order: str = "K", subok: bool = False, ndmin: int = 0, *,
    blocking: bool = False,
) -> ndarray:  # fmt: skip
    if isinstance(obj, ndarray):
        kept = dtype is None or np.dtype(dtype) == obj.dtype
        if kept and not copy and obj.ndim >= ndmin:
            return obj
        return ndarray._compute(_array, (obj._host, dtype, order, ndmin), {})
    if isinstance(obj, list | tuple) and any(isinstance(part, ndarray) for part in obj):
        return Namespace.stack(list(obj)) if dtype is None else Namespace.stack(list(obj)).astype(dtype)
    if not isinstance(obj, ndarray) and hasattr(obj, "__cuda_array_interface__"):
        return array(_from_interface(obj), dtype, copy, order)
    host = np.array(obj, dtype=dtype, order=order, ndmin=ndmin)
    if host.dtype.kind not in "biufcV":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    uploads()
    made = ndarray(
        host.shape, host.dtype, order="F" if host.flags.f_contiguous and not host.flags.c_contiguous else "C"
    )
    made._host[...] = host
    return made


def _array(host: np.ndarray, dtype: Any, order: str, ndmin: int) -> np.ndarray:
    return np.array(host, dtype=dtype, order=order, ndmin=ndmin)


def _from_interface(obj: Any) -> ndarray:
    described = obj.__cuda_array_interface__
    address = described["data"][0]
    shape, dtype = described["shape"], np.dtype(described["typestr"])
    mem = memory.UnownedMemory(address, int(np.prod(shape)) * dtype.itemsize, obj)
    return ndarray(shape, dtype, memory.MemoryPointer(mem, 0), described.get("strides"))


def asarray(
    a: Any, dtype: Any = None, order: str | None = None, *, copy: Any = None, blocking: bool = False
) -> ndarray:
    return array(a, dtype, copy=bool(copy), order=order or "K")


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    if isinstance(a, ndarray) and a.ndim and a.flags.c_contiguous and (dtype is None or a.dtype == dtype):
        return a
    if isinstance(a, ndarray):
        return ndarray._compute(_contiguous, (a._host, dtype), {})
    return array(np.ascontiguousarray(a, dtype))


def _contiguous(host: np.ndarray, dtype: Any) -> np.ndarray:
    made = np.array(host, dtype=dtype, order="C")
    return made if made.ndim else made.reshape(1)


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
    if isinstance(a, ndarray):
        return a.get(stream=stream, order=order, out=out, blocking=blocking)
    return np.asarray(a, order=order)


def copy(a: ndarray, order: str = "K") -> ndarray:
    return a.copy(order)


def arange(*arguments: Any, dtype: Any = None) -> ndarray:
    return ndarray._compute(np.arange, arguments, {} if dtype is None else {"dtype": dtype})


def linspace(*arguments: Any, **options: Any) -> ndarray:
    return ndarray._compute(np.linspace, tuple(map(unwrapped, arguments)), options)


def take(a: ndarray, indices: Any, axis: int | None = None, out: Any = None) -> ndarray:
    if isinstance(indices, np.ndarray | list):
        uploads()
    host = index_of(indices)
    return ndarray._compute(_take, (a._host, host, axis), {} if out is None else {"out": out._host})


def _take(host: np.ndarray, indices: Any, axis: Any, out: Any = None) -> Any:
    return np.take(host, indices, axis, out, mode="wrap")


def from_dlpack(array: Any, *, device: Any = None, copy: Any = None) -> ndarray:
    capsule = array.__dlpack__()
    if not isinstance(capsule, Capsule):
        raise BufferError("the emulated device shares memory with no other library")
    return capsule.array[...]


def get_array_module(*args: Any) -> Any:
    import cupy

    return cupy if any(isinstance(a, ndarray) for a in args) else np


def put_functions(module: Any) -> None:
    """Give a module the functions of cupy."""
    functions = vars(Namespace(ndarray))
    vars(module).update(functions)
    own = (
        arange, array, asarray, ascontiguousarray, asnumpy, copy, empty, from_dlpack, full, get_array_module, linspace,
        ones, take, zeros,
    )  # fmt: skip
    vars(module).update({f.__name__: f for f in own})
    vars(module).update({f"{f.__name__}_like": _like(f) for f in (empty, full, zeros, ones)})
    Namespace.stack = functions["stack"]
    ndarray.take = take  # type: ignore[method-assign]
