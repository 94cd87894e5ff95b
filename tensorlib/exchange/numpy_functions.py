"""NumPy's functions on Tensors: where tensorlib has an op of that name it runs, recorded; everything else is an error.

So a formula written in NumPy can be differentiated as it stands: ``np.exp(x)``, ``np.sum(x, axis=1)``, ``array * x``.
NumPy asks `UfuncOverride` and `array_function`, the protocols of its enhancement proposals 13 and 18.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from inspect import signature
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.engine.recording import is_grad_enabled
from tensorlib.engine.value import Value
from tensorlib.messages import shown
from tensorlib.pytorch_words import EXPRESSIONS

if TYPE_CHECKING:
    from tensorlib.tensor import Tensor

__all__: list[str] = []

# ---- what there is -----------------------------------------------------------------------------------------------

# Functions that have an op: NumPy's arguments in its order, as "NumPy's name=ours" where the names differ. Ours takes
# those that it has a parameter for; each of the others must have one of the values in _NOTHING.
_REDUCTION, _SUM = "a=x axis out keepdims initial where", "a=x axis dtype out keepdims initial where"
_VARIANCE = "a=x axis dtype out ddof keepdims where mean correction"
_FUNCTIONS = {
    "all": _REDUCTION, "amax": _REDUCTION, "amin": _REDUCTION, "any": _REDUCTION, "argmax": _REDUCTION,
    "argmin": _REDUCTION, "max": _REDUCTION, "min": _REDUCTION, "mean": _SUM, "prod": _SUM, "sum": _SUM,
    "std": _VARIANCE, "var": _VARIANCE, "count_nonzero": "a=x axis keepdims", "cumprod": "a=x axis dtype out",
    "cumsum": "a=x axis dtype out", "argsort": "a=x axis kind order stable", "sort": "a=x axis kind order stable",
    "astype": "x dtype copy device", "broadcast_to": "array=x shape subok",
    "clip": "a=x a_min=min a_max=max out min max", "concatenate": "arrays=xs axis out dtype casting",
    "copy": "a=x order subok", "diagonal": "a=x offset axis1 axis2",
    "dot": "a=x b=y out", "expand_dims": "a=x axis", "flip": "m=x axis", "moveaxis": "a=x source destination",
    "full_like": "a=x fill_value dtype order subok shape device", "ones_like": "a=x dtype order subok shape device",
    "outer": "a=x b=y out", "pad": "array=x pad_width mode constant_values", "repeat": "a=x repeats axis",
    "reshape": "a=x shape order copy", "roll": "a=x shift axis", "round": "a=x decimals out",
    "searchsorted": "a=sorted v=values side sorter", "split": "ary=x indices_or_sections axis", "squeeze": "a=x axis",
    "stack": "arrays=xs axis out dtype casting", "swapaxes": "a=x axis1 axis2", "take": "a=x indices axis out mode",
    "take_along_axis": "arr=x indices axis", "tensordot": "a=x b=y axes", "tile": "A=x reps",
    "trace": "a=x offset axis1 axis2 dtype out", "transpose": "a=x axes", "tril": "m=x k", "triu": "m=x k",
    "unstack": "x axis", "where": "condition x y", "zeros_like": "a=x dtype order subok shape device",
    "linalg.matmul": "x1=x x2=y", "linalg.norm": "x ord axis keepdims", "linalg.outer": "x1=x x2=y",
    "linalg.diagonal": "x offset", "linalg.tensordot": "x1=x x2=y axes", "linalg.trace": "x offset dtype",
}  # fmt: skip
_FIXED = {"linalg.diagonal": {"axis1": -2, "axis2": -1}, "linalg.trace": {"axis1": -2, "axis2": -1}}
_NOTHING = {
    "casting": ("same_kind",), "copy": (True,), "kind": ("quicksort", "heapsort", "mergesort", "stable"),
    "mode": ("raise",), "order": ("K", "C"), "stable": (True, False), "subok": (True, False), "where": (True,),
}  # fmt: skip

# What NumPy calls in place of some functions if all but one option are arrays.
_REDUCTIONS = {
    "add": "sum", "logical_and": "all", "logical_or": "any", "maximum": "max", "minimum": "min", "multiply": "prod",
}  # fmt: skip

# Functions that only look at Tensors: at their shapes and dtypes, or at the values of Tensors without history.
_INSPECT = {
    "can_cast", "iscomplexobj", "isrealobj", "may_share_memory", "ndim", "result_type", "shape", "shares_memory",
    "size",
}  # fmt: skip
_COMPARE_OR_SHOW = {
    "allclose", "array2string", "array_equal", "array_equiv", "array_repr", "array_str", "isclose", "save", "savetxt",
    "savez", "savez_compressed",
}  # fmt: skip

# Functions that NumPy and PyTorch call alike.
_AS_IN_PYTORCH = (
    "arccosh", "arcsinh", "arctanh", "copysign", "deg2rad", "fix", "fliplr", "flipud", "float_power", "fmod", "hypot",
    "inner", "nan_to_num", "nansum", "rad2deg", "ravel", "trunc", "vdot",
)  # fmt: skip

# What to write for some functions that have no op of that name, in terms of their arguments x, y or a list xs.
REMEDIES = {name: EXPRESSIONS[name] for name in _AS_IN_PYTORCH} | {
    "add.accumulate": "tl.cumsum(x, axis=0)", "add.reduce": "tl.sum(x, axis=0)", "around": "tl.round(x)",
    "average": "tl.mean(x), with weights w tl.sum(w * x) / tl.sum(w)", "cbrt": "tl.sign(x) * tl.abs(x) ** (1 / 3)",
    "diff": "x[..., 1:] - x[..., :-1]", "fabs": "tl.abs(x)",
    "hstack": "tl.concatenate(xs, axis=1), with axis=0 for one axis", "logaddexp.reduce": "tl.logsumexp(x, axis=0)",
    "maximum.reduce": "tl.max(x, axis=0)", "minimum.reduce": "tl.min(x, axis=0)",
    "multiply.accumulate": "tl.cumprod(x, axis=0)", "multiply.reduce": "tl.prod(x, axis=0)", "positive": "x",
    "rint": "tl.round(x)", "vecdot": "tl.sum(x * y, axis=-1)",
    "vstack": "tl.concatenate(xs, axis=0), with stack for one axis", "where": "tl.where(condition, x, y)",
}  # fmt: skip


# ---- ufuncs ------------------------------------------------------------------------------------------------------


class UfuncOverride:
    """The attribute ``__array_ufunc__`` of Tensor.

    NumPy looks it up on the class. CuPy looks it up on the Tensor, and finds None for a Tensor of its own: this makes
    ``cupy_array * x`` call ``x.__rmul__``. CuPy would otherwise read x through ``__cuda_array_interface__``.
    """

    def __get__(self, x: Tensor | None, kind: type) -> Any:
        if x is None:
            return array_ufunc
        return MethodType(array_ufunc, x) if x.backend.xp is np else None


def array_ufunc(x: Tensor, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
    """Apply a ufunc of NumPy to operands of which `x` is one: run the op of its name, or raise TypeError."""
    name = "abs" if ufunc.__name__ == "absolute" else ufunc.__name__
    if method != "__call__":
        if method == "reduce" and name in _REDUCTIONS and isinstance(options.get("where"), Value):
            _check_unused(f"{name}.{method}", _REDUCTIONS[name], "where", options["where"])  # np.sum(array, where=x)
        raise _no_op(f"{name}.{method}")
    if (out := options.pop("out", None)) is not None:
        return _into(ufunc, inputs, out, options)
    op = vars(_tensorlib()).get(name)
    if op is None:
        raise _no_op(name)
    for option, value in options.items():
        _check_unused(name, name, option, value)
    return op(*inputs)


def _into(ufunc: np.ufunc, inputs: Sequence[Any], out: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Apply a ufunc that writes into an array of the caller, as in ``array -= x``, to Tensors without history."""
    name = ufunc.__name__
    if any(isinstance(array, Value) for array in out):
        raise TypeError(f"np.{name}: out must be an array, because Tensors are values; use the result instead")
    for operand in inputs:
        if isinstance(operand, Value) and operand.needs_grad and is_grad_enabled():
            raise TypeError(
                f"np.{name}: the Tensor of shape {operand.shape} requires a gradient, which the array that it is "
                "written into would not pass on; compute a new Tensor, as in y = array - x, or use x.detach()"
            )
    arrays = [operand.array if isinstance(operand, Value) else operand for operand in inputs]
    plain = {option: value.array if isinstance(value, Value) else value for option, value in options.items()}
    return ufunc(*arrays, out=out if len(out) > 1 else out[0], **plain)


# ---- functions ---------------------------------------------------------------------------------------------------


def array_function(
    x: Tensor, function: Callable[..., Any], types: Any, arguments: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    """Call a function of NumPy with arguments among which is `x`: run the op of its name, or raise TypeError."""
    name = ".".join([*function.__module__.split(".")[1:], function.__name__])
    if name in _INSPECT:
        return _on_arrays(function, arguments, options, lambda operand: operand.array)
    if name in _COMPARE_OR_SHOW:
        return _on_arrays(function, arguments, options, np.asarray)
    if name == "einsum":
        return _tensorlib().einsum(*arguments, **{k: v for k, v in options.items() if k != "optimize"})
    if name not in _FUNCTIONS or (name == "where" and len(arguments) == 1):
        raise _no_op(name)
    ours = getattr(_tensorlib(), name.removeprefix("linalg."))
    given = _in_our_words(name, ours, arguments, options)
    if name == "linalg.norm":
        if given.get("ord", 2) is None:  # NumPy's default, which is the norm of the entries
            del given["ord"]
        _check_vector_norm(given)
    return ours(**given, **_FIXED.get(name, {}))


def _on_arrays(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], array_of: Any) -> Any:
    """Call `function` with the arrays of Tensors in their place."""
    plain = [array_of(a) if isinstance(a, Value) else a for a in arguments]
    return function(*plain, **{k: array_of(v) if isinstance(v, Value) else v for k, v in options.items()})


def _in_our_words(
    name: str, ours: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call of NumPy's function under the names that our function has for them."""
    names = [word.partition("=") for word in _FUNCTIONS[name].split()]
    positional = [our or numpys for numpys, _, our in names]
    keyword = {numpys: our or numpys for numpys, _, our in names}
    pairs = [*zip(positional, arguments, strict=False), *[(keyword.get(k, k), v) for k, v in options.items()]]
    given: dict[str, Any] = {}
    for word, value in pairs:
        if word in _parameters(ours):
            if value is not np._NoValue:
                given[word] = value
        else:
            _check_unused(name, ours.__name__, word, value)
    return given


@cache
def _parameters(ours: Callable[..., Any]) -> frozenset[str]:
    return frozenset(signature(ours).parameters)


def _check_unused(name: str, ours: str, option: str, value: Any) -> None:
    """Raise TypeError for an option that our op does not have, unless the value means that it is not used."""
    unused = isinstance(value, str | bool) and value in _NOTHING.get(option, ())
    if not (unused or (value is None and option != "where") or value is np._NoValue):
        if option == "dtype":
            first = "x.astype(dtype)"
        elif option == "where" and isinstance(getattr(np, name, None), np.ufunc):
            first = "tl.where(where, result, other) afterwards"
        elif option == "where":
            first = f"tl.{ours}(x[where]), or tl.where(where, x, value) first, with a value that changes nothing"
        else:
            first = f"tl.{ours} without it, or x.numpy()"
        raise TypeError(f"np.{name}: {option}= is not supported for Tensors, got {shown(value)}; use {first}")


def _check_vector_norm(given: Mapping[str, Any]) -> None:
    """Raise TypeError if NumPy's norm would be that of a matrix as a linear map, which is not the norm of its entries.

    Without `ord` it is the norm of the entries.
    """
    axis, ndim = given.get("axis"), np.ndim(given["x"])
    if given.get("ord") is not None and (isinstance(axis, tuple) if axis is not None else ndim != 1):
        raise TypeError(
            f"np.linalg.norm: ord={given['ord']!r} of a matrix is not supported for Tensors, got shape "
            f"{np.shape(given['x'])} and axis={axis}; give one axis, or use tl.norm for the norm of the entries"
        )


def _no_op(name: str) -> TypeError:
    """Return the error for a function of NumPy that has no op."""
    remedy = f"{REMEDIES[name]}, or " if name in REMEDIES else ""
    return TypeError(f"np.{name}: Tensors have no such op; use {remedy}x.numpy() for a value without a gradient")


def _tensorlib() -> Any:
    return sys.modules["tensorlib"]  # by name, because the package imports this file
