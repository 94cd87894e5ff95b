"""States, which map names to arrays: whether one fits a module, an optimizer or an average, and its host arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import tensorlib as tl
from tensorlib.messages import kind_of, shown

if TYPE_CHECKING:
    from nn.module import Module
    from tensorlib.engine.value import TensorLike

__all__ = [
    "IncompatibleKeys",
    "by_first_name",
    "converted_arrays",
    "every_name",
    "fitting_arrays",
    "host_arrays",
    "shape_mismatches",
]


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
        other = merged.setdefault(first, array)
        floating = array.dtype.kind == other.dtype.kind == "f"  # others have no NaN
        if other is not array and not np.array_equal(other, array, equal_nan=floating):
            problems.append(f"{name} and {first} are one tensor here (tied), but their values differ")
    return merged, problems


def host_arrays(where: str, state: Mapping[str, TensorLike], remedy: str = "pass x.numpy()") -> dict[str, np.ndarray]:
    """Return the values of a state as arrays on the host.

    Raises TypeError or ValueError, in the name of `where` and with the name of the value, for values that are no
    arrays. remedy: what to do about a torch.Tensor x.
    """
    arrays: dict[str, np.ndarray] = {}
    given: Mapping[str, Any] = state
    for name, value in given.items():
        if kind_of(value).startswith("torch."):
            raise TypeError(f"{where}: {name} is a {kind_of(value)}; {remedy}")
        try:
            if isinstance(value, tl.Tensor):
                arrays[name] = value.numpy()
            elif hasattr(value, "dtype"):
                arrays[name] = np.asarray(tl.backend_of(value).to_numpy(value))
            else:
                arrays[name] = np.asarray(value)
                if not arrays[name].ndim and arrays[name].dtype.kind not in "biufc":  # NumPy takes None and a dict, too
                    raise TypeError
        except (TypeError, ValueError):
            given_value = kind_of(value) if isinstance(value, list | tuple | dict) else shown(value)
            raise TypeError(f"{where}: {name} must be an array, got {given_value}") from None
    return arrays


def fitting_arrays(
    where: str, state: Mapping[str, TensorLike], types: Mapping[str, tuple[tuple[int, ...], np.dtype]]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the values of a state in the expected dtypes, and a problem for each that does not fit its type.

    Raises TypeError, in the name of `where`, unless `state` is a mapping of names to arrays.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"{where}: the state must be a mapping of names to arrays, got {kind_of(state)}")
    given = host_arrays(where, state)
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
