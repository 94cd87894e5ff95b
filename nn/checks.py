"""Checks of settings, inputs and states, shared by layers, optimizers and schedules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import tensorlib as tl
from tensorlib.messages import kind_of

if TYPE_CHECKING:
    from nn.module import Module
    from tensorlib.engine.value import TensorLike

__all__ = [
    "IncompatibleKeys",
    "by_first_name",
    "check_fraction",
    "check_generator",
    "check_number",
    "check_size",
    "converted_arrays",
    "every_name",
    "fitting_arrays",
    "host_arrays",
    "refuse_several",
    "shape_mismatches",
    "with_width",
]


def check_size(where: str, least: int = 1, **sizes: Any) -> None:
    """Raise TypeError for a size that is not an integer, and ValueError for a bool or a size below `least`."""
    for name, size in sizes.items():
        wanted = f"{where}: {name} must be an integer of at least {least}, got"
        try:
            low = index(size) < least
        except TypeError:
            raise TypeError(f"{wanted} {_shown(size)}") from None
        if low or isinstance(size, bool):
            raise ValueError(f"{wanted} {size}")


def check_fraction(where: str, **fractions: Any) -> None:
    """Raise TypeError for an argument that is not a real number, and ValueError for one outside [0, 1)."""
    for name, p in fractions.items():
        _check_real(where, name, p, "must lie in [0, 1)")
        if not 0 <= p < 1:
            raise ValueError(f"{where}: {name} must lie in [0, 1), got {p}")


def check_number(where: str, above: bool = False, finite: bool = True, **numbers: Any) -> None:
    """Raise ValueError for a negative number or NaN; with `above`, also for 0, and with `finite`, for infinity.

    Raises TypeError for an argument that is not a real number.
    """
    for name, x in numbers.items():
        rule = "must be positive" if above else "must not be negative"
        _check_real(where, name, x, rule)
        if math.isnan(x) or (finite and math.isinf(x)):
            raise ValueError(f"{where}: {name} must be finite, got {x}")
        if not (x > 0 if above else x >= 0):
            raise ValueError(f"{where}: {name} {rule}, got {x}")


def _check_real(where: str, name: str, x: Any, rule: str) -> None:
    if not isinstance(x, Real) or isinstance(x, bool):  # NumPy's scalars are Real; a Tensor is not
        raise TypeError(f"{where}: {name} {rule}, got {_shown(x)}, which is not a number")


def check_generator(where: str, generator: Any) -> None:
    """Raise TypeError unless `generator` is a `tl.Generator` or None."""
    if generator is not None and not isinstance(generator, tl.Generator):
        remedy = f"tl.Generator({generator})" if isinstance(generator, int) else "tl.Generator(seed)"
        raise TypeError(f"{where}: generator must be a tl.Generator, got {_shown(generator)}; pass {remedy}")


def with_width(
    layer: Module, x: TensorLike, width: int, like: tl.Tensor, axes: str = "...", what: str = "x"
) -> tl.Tensor:
    """Return x as a Tensor of shape (axes, width); a list or a number is placed on the backend of `like`.

    Raises ValueError for a different shape, and TypeError unless the dtype is floating.
    """
    if not isinstance(x, tl.Tensor):
        refuse_several(layer, x, what)
        try:
            x = tl.Tensor(x, backend=None if hasattr(x, "dtype") else like.backend)
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).replace("Tensor: data", f"{layer.label()}: {what}")) from None
    right = x.ndim >= 1 if axes == "..." else x.ndim == axes.count(",") + 2
    if not right or x.shape[-1] != width:
        transposed = right and like.shape == (width, x.shape[-1])
        remedy = _width_remedy(layer, x.shape, width, right, what, transposed)
        raise ValueError(f"{layer.label()}: {what} must have shape ({axes}, {width}), got {x.shape}{remedy}")
    if x.dtype.kind != "f":
        raise TypeError(
            f"{layer.label()}: {what} must be of a floating dtype, got {x.dtype}; embed ids, or use x.astype('float32')"
        )
    return x


def refuse_several(layer: Module, x: Any, what: str) -> None:
    """Raise TypeError for several Tensors in place of one, which would become one with another axis."""
    if isinstance(x, tuple | list) and any(isinstance(one, tl.Tensor) for one in x):
        raise TypeError(
            f"{layer.label()}: {what} must be one Tensor or array, got a {type(x).__name__} of {len(x)}; pass one, or "
            "tl.stack(xs)"
        )


def _width_remedy(
    layer: Module, shape: tuple[int, ...], width: int, right_ndim: bool, what: str, transposed: bool
) -> str:
    """Return the end of the message for an input of this shape, "" if it is unclear what is meant.

    transposed: whether the input fits the transpose of the layer's weight.
    """
    if right_ndim and len(shape) > 1 and shape[-2] == width:
        return f"; did you mean {what}.swapaxes(-1, -2)?"
    flat = [axis for axis in range(len(shape) - 1) if math.prod(shape[axis:]) == width]
    if right_ndim and flat:
        return f"; did you mean {what}.flatten({flat[-1]})?"
    if transposed:
        kind, share = type(layer).__name__, "tl.linear(x, embedding.weight.T)"
        return f"; did you mean {kind}({shape[-1]}, {width})? An embedding's weight is shared by {share}"
    if right_ndim and len(shape) > 0:
        return f"; for this {what}, build the {type(layer).__name__} with width {shape[-1]}"
    return "; for a batch of one, pass x[None]" if shape[-1:] == (width,) and len(shape) == 2 else ""


class IncompatibleKeys(NamedTuple):
    """The names that a module has and a loaded state lacks, and those that only the state has."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def every_name(module: Module, prefix: str = "", above: tuple[Module, ...] = ()) -> Iterator[tuple[str, tl.Tensor]]:
    """Yield (path, Tensor) for all Tensors of a module, under each of its paths if it is shared (tied)."""
    for name, value in vars(module).items():
        if isinstance(value, tl.Tensor):
            yield prefix + name, value
    for name, child in module.named_children():
        if not any(child is one for one in above):  # a module may hold one above it
            yield from every_name(child, f"{prefix}{name}.", (*above, module))


def by_first_name(
    arrays: Mapping[str, np.ndarray], first_names: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return each array under the first name of its tensor, and a problem for each tied one given with two values."""
    merged: dict[str, np.ndarray] = {}
    problems = []
    for name, array in arrays.items():
        first = first_names.get(name, name)
        if not np.array_equal(merged.setdefault(first, array), array):
            problems.append(f"{name} and {first} are one tensor here (tied), but their values differ")
    return merged, problems


def host_arrays(state: Mapping[str, TensorLike]) -> dict[str, np.ndarray]:
    """Return the values of a state as arrays on the host; raise TypeError or ValueError, with the name, for others."""
    arrays: dict[str, np.ndarray] = {}
    given: Mapping[str, Any] = state
    for name, value in given.items():
        if kind_of(value).startswith("torch."):
            raise TypeError(
                f"load_state_dict: {name} is a {kind_of(value)}; pass x.numpy(), and x.numpy().T for the weights of "
                "Linear, which are (in, out) here and (out, in) in PyTorch"
            )
        try:
            if isinstance(value, tl.Tensor):
                arrays[name] = value.numpy()
            elif hasattr(value, "dtype"):
                arrays[name] = np.asarray(tl.backend_of(value).to_numpy(value))
            else:
                arrays[name] = np.asarray(value)
        except (TypeError, ValueError):
            raise TypeError(f"load_state_dict: {name} must be an array, got {_shown(value)}") from None
    return arrays


def fitting_arrays(
    where: str, state: Mapping[str, TensorLike], types: Mapping[str, tuple[tuple[int, ...], np.dtype]]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the values of a state in the expected dtypes, and a problem for each that does not fit its type.

    Raises TypeError, in the name of `where`, unless `state` is a mapping of names to arrays.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"{where}: the state must be a mapping of names to arrays, got {kind_of(state)}")
    given = host_arrays(state)
    shapes = {name: shape for name, (shape, _) in types.items()}
    problems = shape_mismatches(shapes, {name: array.shape for name, array in given.items()})
    converted, lost = converted_arrays({name: (given[name], types[name][1]) for name in types if name in given})
    return converted, [*problems, *lost]


def converted_arrays(
    arrays: Mapping[str, tuple[np.ndarray, np.dtype]],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return each array in its dtype, and a problem for each whose values that dtype cannot hold."""
    converted, problems = {}, []
    for name, (array, dtype) in arrays.items():
        if array.dtype.kind not in "biuf":
            problems.append(f"{name} must hold real numbers, got dtype {array.dtype}")
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            converted[name] = result = array.astype(dtype, copy=False)
        if dtype.kind == "f":
            lost = array.dtype.kind == "f" and np.isfinite(array) & ~np.isfinite(result)
        else:
            lost = result != array
        if np.any(lost):
            problems.append(f"{name} of dtype {dtype} cannot hold {array[lost].flat[0]}")
    return converted, problems


def shape_mismatches(
    expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], strict: bool = True
) -> list[str]:
    """Return the differences between given and expected shapes. Without `strict`, only common names are compared."""
    missing = [name for name in expected if name not in given] if strict else []
    unexpected = [name for name in given if name not in expected] if strict else []
    problems = [f"missing {name}" for name in missing]
    problems += [f"unexpected {name}" for name in unexpected]
    for name, shape in given.items():
        if name in expected and expected[name] != shape:
            transposed = len(shape) == 2 and shape[::-1] == expected[name]
            remedy = " (its transpose fits: weights are (in, out) here, and (out, in) in PyTorch)" if transposed else ""
            problems.append(f"{name} must have shape {expected[name]}, got {shape}{remedy}")
    prefix = unexpected[0].partition(".")[0] + "." if missing and unexpected else ""
    if prefix and {name.removeprefix(prefix) for name in unexpected} >= set(missing):
        problems.append(f"the names begin with {prefix!r}, which must be removed")
    return problems


def _shown(x: Any) -> str:
    return repr(x) if isinstance(x, int | float | str | tuple | None) else kind_of(x)
