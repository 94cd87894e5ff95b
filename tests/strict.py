"""A strict stand-in for CuPy: arrays that live on the host and refuse what CuPy refuses.

It lets a machine without a GPU catch code that would break on one: a formula that passes a NumPy array or a list to a
CuPy function, assumes that a reduction returns a scalar, silently converts to NumPy, or calls a function that CuPy
lacks. ``STRICT`` is the backend: ``Tensor(x, backend=STRICT)``; ``to_numpy`` and ``item`` convert back.
"""

from __future__ import annotations

import numbers
import weakref
from typing import Any

import numpy as np

from tensorlib.arrays.backend import Backend, backend_of
from tensorlib.arrays.capturing import RecordedDraw
from tensorlib.arrays.philox import philox_bits

# ruff: noqa: SIM905  # plain words are easier to read than quoted ones

# Functions for arrays that NumPy and CuPy 14 share. CuPy lacks errstate, block, insert, vecdot.
FUNCTIONS = """
    abs absolute add all allclose amax amin any arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax
    argmin argsort around array array_equal asarray ascontiguousarray atleast_1d atleast_2d bincount bitwise_and
    bitwise_count bitwise_not bitwise_or bitwise_xor broadcast_arrays broadcast_to cbrt ceil clip concatenate conj
    conjugate copy copysign copyto cos cosh count_nonzero cumprod cumsum deg2rad diag diagonal diff divide divmod
    dot einsum empty empty_like equal exp exp2 expand_dims expm1 extract eye flatnonzero flip floor floor_divide
    fmax fmin fmod frexp full full_like greater greater_equal hstack hypot identity inner invert isclose isfinite
    isin isinf isnan kron ldexp left_shift less less_equal lexsort linspace log log10 log1p log2 logaddexp
    logaddexp2 logical_and logical_not logical_or logical_xor matmul max maximum mean median meshgrid min minimum
    mod moveaxis multiply nan_to_num nanmax nanmean nanmin nansum negative nextafter nonzero not_equal ones
    ones_like outer pad partition positive power prod put_along_axis rad2deg ravel reciprocal remainder repeat
    reshape right_shift rint roll round searchsorted sign signbit sin sinc sinh sort split sqrt square squeeze stack
    std subtract sum swapaxes take take_along_axis tan tanh tensordot tile trace transpose tri tril triu true_divide
    trunc unique unravel_index var vdot vstack where zeros zeros_like
""".split()

CONSTANTS = """
    bool bool_ dtype e euler_gamma finfo float16 float32 float64 iinfo inf int16 int32 int64 int8 intp isscalar
    broadcast_shapes can_cast issubdtype nan newaxis pi promote_types result_type s_ uint16 uint32 uint64 uint8
""".split()

CREATES = {"array", "asarray", "ascontiguousarray", "arange", "linspace", "copy"}  # these take lists and host arrays
FETCHING = {"bincount", "extract", "flatnonzero", "nonzero", "unique"}  # the shape of the result depends on values
METHODS = "all any argmax argmin astype clip copy cumsum dot max mean min prod ravel repeat std sum take var".split()
VIEWS = "reshape swapaxes squeeze transpose view diagonal".split()


def unwrapped(x: Any) -> Any:
    """Return an operand for NumPy. Raises TypeError for operands that CuPy's functions refuse."""
    if isinstance(x, StrictArray):
        return x._host
    if isinstance(x, np.ndarray | list):
        raise TypeError(f"Unsupported type {type(x)}")
    return x


TAPE: list[Any] | None = None  # what was called, in order, while a step is recorded; see tests/strict_recorder.py


def computed(compute: Any) -> Any:
    """Return the result of a function of host arrays; while a step is recorded, a replay computes it again in place."""
    y = _arrays(compute())
    if TAPE is not None:
        TAPE.append(lambda: _overwrite(y, compute()))
    return wrapped(y)


def _arrays(y: Any) -> Any:
    if isinstance(y, np.generic):
        return np.asarray(y)
    return type(y)(_arrays(part) for part in y) if isinstance(y, tuple | list) else y


def _overwrite(y: Any, new: Any) -> None:
    if isinstance(y, np.ndarray):
        np.copyto(y, new)
    elif isinstance(y, tuple | list):
        for part, new_part in zip(y, new, strict=True):
            _overwrite(part, new_part)


def written(write: Any) -> None:
    """Write into an array; while a step is recorded, only its replays do."""
    if TAPE is None:
        write()
    else:
        TAPE.append(write)


def refuse_transfer(direction: str) -> None:
    """Raise what CuPy raises for a copy from or to the host while a stream captures."""
    if TAPE is not None:
        raise RuntimeError(f"the current stream is capturing, so {direction} transfers are disallowed")


def wrapped(y: Any) -> Any:
    """Return arrays and NumPy's scalars as StrictArrays: CuPy returns a 0-d array where NumPy returns a scalar."""
    if isinstance(y, np.ndarray | np.generic):
        return StrictArray(np.asarray(y))
    return type(y)(wrapped(part) for part in y) if isinstance(y, tuple | list) else y


def call(function: Any, *arguments: Any, **options: Any) -> Any:
    """Call a function of NumPy on StrictArrays, with the restrictions of CuPy's function of that name."""
    for option in ("initial", "order", "subok", "like"):
        if option in options:
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument '{option}'")
    if options.get("kind") not in (None, "stable"):
        raise ValueError(f"kind can only be None or 'stable', got {options['kind']!r}")
    if function.__name__ in FETCHING:
        refuse_transfer("D2H")
    if "out" in options:
        options["out"] = unwrapped(options["out"])
    arguments = tuple(
        [unwrapped(part) for part in a] if isinstance(a, tuple | list) and any(map(is_array, a)) else a
        for a in arguments
    )
    options = {k: unwrapped(v) if is_array(v) else v for k, v in options.items()}
    arguments = tuple(unwrapped(a) if is_array(a) else a for a in arguments)
    if "out" in options:
        written(lambda: function(*arguments, **options))
        return wrapped(options["out"])
    return computed(lambda: function(*arguments, **options))


def is_array(x: Any) -> bool:
    return isinstance(x, StrictArray | np.ndarray)


def index_of(index: Any) -> Any:
    """Return an index for NumPy. CuPy takes lists and host arrays here (it uploads them)."""
    if isinstance(index, tuple):
        return tuple(index_of(i) for i in index)
    if isinstance(index, list | np.ndarray):
        refuse_transfer("H2D")
    return index._host if isinstance(index, StrictArray) else index


MADE: list[np.ndarray] | None = None  # the memory of new arrays, while it is that of recorded steps


def owner_of(host: np.ndarray) -> np.ndarray:
    return host if not isinstance(host.base, np.ndarray) else owner_of(host.base)


OWNERS: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # by the id of the host array


class StrictArray:
    """An array whose values NumPy cannot read."""

    __slots__ = ("__weakref__", "_host")
    __array_ufunc__ = None
    __array_priority__ = 100

    def __init__(self, host: np.ndarray) -> None:
        self._host = host
        if MADE is not None and id(owner_of(host)) not in OWNERS:
            MADE.append(owner_of(host))
        if host.base is None:
            OWNERS[id(host)] = self

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    base = property(lambda self: None if self._host.base is None else OWNERS.get(id(self._host.base)))
    T = property(lambda self: StrictArray(self._host.T))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_namespace__(self, api_version: Any = None) -> Any:
        return xp

    def item(self) -> Any:
        refuse_transfer("D2H")
        return self._host.item()

    def get(self) -> np.ndarray:
        refuse_transfer("D2H")
        return self._host.copy()

    def fill(self, value: Any) -> None:
        written(lambda: self._host.fill(unwrapped(value)))

    def argsort(self, axis: int = -1, kind: Any = None) -> StrictArray:
        return call(np.argsort, self, axis=axis, kind=kind)

    def __getitem__(self, index: Any) -> StrictArray:
        given = index_of(index)
        if any(getattr(part, "dtype", None) == bool for part in (given if isinstance(given, tuple) else (given,))):
            refuse_transfer("D2H")  # the mask's values determine the shape
        return computed(lambda: self._host[given])

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError(f"Unsupported type {type(value)}")
        given, new = index_of(index), value._host if isinstance(value, StrictArray) else value
        written(lambda: self._host.__setitem__(given, new))

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def _refuse(self, *_: Any) -> Any:
        raise TypeError("this would silently wait for the GPU; use .item() if that is intended")

    __bool__ = __float__ = __int__ = __complex__ = __index__ = _refuse

    def __repr__(self) -> str:
        return f"StrictArray({self._host!r})"

    __hash__ = None  # type: ignore[assignment]  # like arrays


def _method(name: str, view: bool) -> Any:
    def method(self: StrictArray, *arguments: Any, **options: Any) -> Any:
        if view:  # shapes and axes: plain Python values, tuples among them
            return computed(lambda: getattr(self._host, name)(*arguments, **options))
        return call(getattr(np, name, None) or getattr(np.ndarray, name), self, *arguments, **options)

    method.__name__ = name
    return method


def _operator(name: str, in_place: bool) -> Any:
    def operate(self: StrictArray, *others: Any) -> Any:
        for other in others:
            if isinstance(other, np.ndarray | list):
                raise TypeError(f"Unsupported type {type(other)}")
            if not isinstance(other, StrictArray | numbers.Number | np.generic | bool):
                return NotImplemented
        given = [unwrapped(other) for other in others]
        if in_place:
            written(lambda: getattr(self._host, name)(*given))
            return self
        return computed(lambda: getattr(self._host, name)(*given))

    operate.__name__ = name
    return operate


for _name in METHODS:
    setattr(StrictArray, _name, _method(_name, view=False))
for _name in VIEWS:
    setattr(StrictArray, _name, _method(_name, view=True))
StrictArray.astype = lambda self, dtype, copy=True: computed(lambda: self._host.astype(dtype, copy=copy))
for _name in "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split():
    for _kind in ("", "r", "i"):
        setattr(StrictArray, f"__{_kind}{_name}__", _operator(f"__{_kind}{_name}__", _kind == "i"))
for _name in "eq ne lt le gt ge neg pos abs invert".split():
    setattr(StrictArray, f"__{_name}__", _operator(f"__{_name}__", False))


class _Function:
    """A function of the namespace: checks and unwraps its arguments, wraps its results."""

    def __init__(self, name: str) -> None:
        self.name, self.function = name, getattr(np, name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.name in CREATES:
            if self.name in ("array", "asarray") and not isinstance(arguments[0], StrictArray):
                refuse_transfer("H2D")
            arguments = tuple(a._host if isinstance(a, StrictArray) else a for a in arguments)
            return computed(lambda: self.function(*arguments, **options))
        if isinstance(self.function, np.ufunc):
            for a in arguments:
                if not isinstance(a, StrictArray | numbers.Number | np.generic):
                    raise TypeError(f"Unsupported type {type(a)}")
        elif arguments and isinstance(arguments[0], np.ndarray):
            raise TypeError(f"Unsupported type {type(arguments[0])}")
        return call(self.function, *arguments, **options)

    def at(self, total: StrictArray, index: Any, values: Any) -> None:
        """CuPy has this for add, subtract, maximum, minimum and the bitwise ufuncs."""
        if self.name not in ("add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"):
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        if total.dtype.char not in "iILQefd":
            raise TypeError(f"cupyx.scatter_{self.name} does not support {total.dtype}")
        given = index_of(index)
        written(lambda: self.function.at(total._host, given, unwrapped(values)))

    def reduceat(self, array: StrictArray, indices: Any, axis: int = 0) -> StrictArray:
        """CuPy has this only for add."""
        if self.name != "add":
            raise NotImplementedError(f"`{self.name}.reduceat` is not supported yet")
        return computed(lambda: self.function.reduceat(unwrapped(array), unwrapped(indices), axis=axis))


class _Grid:
    def __getitem__(self, index: Any) -> Any:
        return wrapped(np.ogrid[index])


class Namespace:
    """In the place of the module cupy. A function that CuPy lacks raises AttributeError."""

    def __init__(self) -> None:
        vars(self).update({name: _Function(name) for name in FUNCTIONS})
        vars(self).update({name: getattr(np, name) for name in CONSTANTS})
        self.ndarray, self.ogrid = StrictArray, _Grid()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")


class StrictBackend(Backend):
    """The stand-in as a backend, named "strict"."""

    name = "strict"
    xp: Any

    def asarray(self, values: Any, dtype: Any = None) -> StrictArray:
        if not isinstance(values, StrictArray):
            if not isinstance(values, bool | int | float | np.generic):
                refuse_transfer("H2D")
            return StrictArray(np.array(values, dtype=dtype))
        host = values._host
        return computed(lambda: np.array(host, dtype=dtype))

    def to_numpy(self, array: StrictArray) -> np.ndarray:
        return array.get()

    def random_bits(self, key: int, draw: int, count: int, dtype: str = "uint16") -> StrictArray:
        if not isinstance(draw, RecordedDraw):
            return StrictArray(super().random_bits(key, draw, count, dtype))
        return computed(lambda: philox_bits(*_read(draw), 0, count, dtype))

    def scatter_add(self, total: StrictArray, index: Any, values: StrictArray) -> None:
        if total.dtype == np.int64:
            total, values = total.view(np.uint64), values.astype(np.int64).view(np.uint64)
        xp.add.at(total, index, values)


def _read(draw: RecordedDraw) -> tuple[int, int]:
    """Return (key, draw) as a kernel reads them at a replay."""
    low, high, draws = (int(word) for word in draw.slot._host)
    return low | high << 64, draws + draw.offset


xp = Namespace()
STRICT = StrictBackend()
STRICT.xp = xp
backend_of.register(StrictArray, lambda array: STRICT)
