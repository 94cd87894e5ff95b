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
METHODS = "all any argmax argmin astype clip copy cumsum dot max mean min prod ravel repeat std sum take var".split()
VIEWS = "reshape swapaxes squeeze transpose view diagonal".split()


def unwrapped(x: Any) -> Any:
    """Return an operand for NumPy. Raises TypeError for operands that CuPy's functions refuse."""
    if isinstance(x, StrictArray):
        return x._host
    if isinstance(x, np.ndarray | list):
        raise TypeError(f"Unsupported type {type(x)}")
    return x


def wrapped(y: Any) -> Any:
    """Return arrays and NumPy's scalars as StrictArrays: CuPy returns a 0-d array where NumPy returns a scalar."""
    if isinstance(y, np.ndarray | np.generic):
        return StrictArray(np.asarray(y))
    return type(y)(wrapped(part) for part in y) if isinstance(y, tuple | list) else y


def call(array_type: type[StrictArray], function: Any, /, *arguments: Any, **options: Any) -> Any:
    """Call a function of NumPy on arrays of a type, with the restrictions of CuPy's function of that name."""
    for option in ("initial", "order", "subok", "like"):
        if option in options:
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument '{option}'")
    if options.get("kind") not in (None, "stable"):
        raise ValueError(f"kind can only be None or 'stable', got {options['kind']!r}")
    if "out" in options:
        options["out"] = unwrapped(options["out"])
    arguments = tuple(
        [unwrapped(part) for part in a] if isinstance(a, tuple | list) and any(map(is_array, a)) else a
        for a in arguments
    )
    options = {k: unwrapped(v) if is_array(v) else v for k, v in options.items()}
    return array_type._compute(function, [unwrapped(a) if is_array(a) else a for a in arguments], options)


def is_array(x: Any) -> bool:
    return isinstance(x, StrictArray | np.ndarray)


def index_of(index: Any) -> Any:
    """Return an index for NumPy. CuPy takes lists and host arrays here (it uploads them)."""
    if isinstance(index, tuple):
        return tuple(index_of(i) for i in index)
    return index._host if isinstance(index, StrictArray) else index


OWNERS: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # by the id of the host array


class StrictArray:
    """An array whose values NumPy cannot read."""

    __slots__ = ("__weakref__", "_host")
    __array_ufunc__ = None
    __array_priority__ = 100

    def __init__(self, host: np.ndarray) -> None:
        self._host = host
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
    T = property(lambda self: self.transpose())

    @classmethod
    def _compute(cls, function: Any, arguments: Any, options: Any) -> Any:
        """Call a function of NumPy on arrays of the host, and return its results as arrays of this kind."""
        return wrapped(function(*arguments, **options))

    @classmethod
    def _change(cls, function: Any, *arguments: Any) -> None:
        """Call a function of NumPy that changes an array of the host in place."""
        function(*arguments)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_namespace__(self, api_version: Any = None) -> Any:
        return xp

    def item(self) -> Any:
        return self._host.item()

    def get(self) -> np.ndarray:
        return self._host.copy()

    def fill(self, value: Any) -> None:
        self._change(np.ndarray.fill, self._host, unwrapped(value))

    def argsort(self, axis: int = -1, kind: Any = None) -> StrictArray:
        return call(type(self), np.argsort, self, axis=axis, kind=kind)

    def __getitem__(self, index: Any) -> StrictArray:
        return wrapped(self._host[index_of(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError(f"Unsupported type {type(value)}")
        self._host[index_of(index)] = value._host if isinstance(value, StrictArray) else value

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
            return self._compute(getattr(np.ndarray, name), (self._host, *arguments), options)
        return call(type(self), getattr(np, name, None) or getattr(np.ndarray, name), self, *arguments, **options)

    method.__name__ = name
    return method


def _operator(name: str, in_place: bool) -> Any:
    def operate(self: StrictArray, *others: Any) -> Any:
        for other in others:
            if isinstance(other, np.ndarray | list):
                raise TypeError(f"Unsupported type {type(other)}")
            if not isinstance(other, StrictArray | numbers.Number | np.generic | bool):
                return NotImplemented
        function, arguments = getattr(np.ndarray, name), (self._host, *map(unwrapped, others))
        if in_place:
            self._change(function, *arguments)
            return self
        return self._compute(function, arguments, {})

    operate.__name__ = name
    return operate


for _name in METHODS:
    setattr(StrictArray, _name, _method(_name, view=False))
for _name in VIEWS:
    setattr(StrictArray, _name, _method(_name, view=True))
StrictArray.astype = lambda self, dtype, copy=True: StrictArray(self._host.astype(dtype, copy=copy))
for _name in "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split():
    for _kind in ("", "r", "i"):
        setattr(StrictArray, f"__{_kind}{_name}__", _operator(f"__{_kind}{_name}__", _kind == "i"))
for _name in "eq ne lt le gt ge neg pos abs invert".split():
    setattr(StrictArray, f"__{_name}__", _operator(f"__{_name}__", False))


class _Function:
    """A function of the namespace: checks and unwraps its arguments, wraps its results."""

    def __init__(self, name: str, kind: type[StrictArray]) -> None:
        self.name, self.__name__, self.function, self.kind = name, name, getattr(np, name), kind

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.name in CREATES:
            arguments = tuple(a._host if isinstance(a, StrictArray) else a for a in arguments)
            return self.kind._compute(self.function, arguments, options)
        if isinstance(self.function, np.ufunc):
            for a in arguments:
                if not isinstance(a, StrictArray | numbers.Number | np.generic):
                    raise TypeError(f"Unsupported type {type(a)}")
        elif arguments and isinstance(arguments[0], np.ndarray):
            raise TypeError(f"Unsupported type {type(arguments[0])}")
        return call(self.kind, self.function, *arguments, **options)

    def at(self, total: StrictArray, index: Any, values: Any) -> None:
        """CuPy has this for add, subtract, maximum, minimum and the bitwise ufuncs."""
        if self.name not in ("add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"):
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        if total.dtype.char not in "iILQefd":
            raise TypeError(f"cupyx.scatter_{self.name} does not support {total.dtype}")
        self.kind._change(self.function.at, total._host, index_of(index), unwrapped(values))

    def reduceat(self, array: StrictArray, indices: Any, axis: int = 0) -> StrictArray:
        """CuPy has this only for add."""
        if self.name != "add":
            raise NotImplementedError(f"`{self.name}.reduceat` is not supported yet")
        return self.kind._compute(self.function.reduceat, (unwrapped(array), unwrapped(indices), axis), {})


class _Grid:
    def __init__(self, kind: type[StrictArray]) -> None:
        self.kind = kind

    def __getitem__(self, index: Any) -> Any:
        return self.kind._compute(np.ogrid.__getitem__, (index,), {})


class Namespace:
    """In the place of the module cupy. A function that CuPy lacks raises AttributeError."""

    def __init__(self, kind: type[StrictArray] = StrictArray) -> None:
        vars(self).update({name: _Function(name, kind) for name in FUNCTIONS})
        vars(self).update({name: getattr(np, name) for name in CONSTANTS})
        self.ndarray, self.ogrid = kind, _Grid(kind)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")


class StrictBackend(Backend):
    """The stand-in as a backend, named "strict"."""

    name = "strict"
    xp: Any

    def asarray(self, values: Any, dtype: Any = None) -> StrictArray:
        return StrictArray(np.array(values._host if isinstance(values, StrictArray) else values, dtype=dtype))

    def to_numpy(self, array: StrictArray) -> np.ndarray:
        return array.get()

    def random_bits(self, key: int, draw: int, count: int, dtype: str = "uint16") -> StrictArray:
        return StrictArray(super().random_bits(key, draw, count, dtype))

    def scatter_add(self, total: StrictArray, index: Any, values: StrictArray) -> None:
        if total.dtype == np.int64:
            total, values = total.view(np.uint64), values.astype(np.int64).view(np.uint64)
        xp.add.at(total, index, values)


xp = Namespace()
STRICT = StrictBackend()
STRICT.xp = xp
backend_of.register(StrictArray, lambda array: STRICT)
