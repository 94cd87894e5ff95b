"""Named arrays in safetensors files. Loading runs no code from the file, and saving never leaves part of a file."""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tensorlib.engine.value import Value
from tensorlib.messages import kind_of

__all__ = ["load", "load_metadata", "load_with_metadata", "save", "write_atomically"]

_KEY = "tensorlib"  # the one metadata key, which holds JSON, because safetensors writes several keys in random order


def save(tensors: Mapping[str, Any], path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
    """Write named Tensors or arrays, and `metadata`, to a safetensors file atomically.

    Tensors may be on any backend; values are written in C order with their shape and dtype. `metadata` is anything
    that JSON can hold. Files with equal contents have equal bytes.

    Raises TypeError or ValueError if JSON cannot hold the metadata, ImportError if safetensors is not installed,
    FileNotFoundError if the folder does not exist. In each case an earlier file of that name is unchanged.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "f.safetensors")
    ...     tl.save({"w": tl.ones((2, 3))}, path, {"step": 7})
    ...     tl.load(path)["w"].shape, tl.load_metadata(path)
    ((2, 3), {'step': 7})
    """
    if not isinstance(tensors, Mapping):
        raise TypeError(f"save: needs names with their arrays, got {kind_of(tensors)}; pass model.state_dict()")
    _require_safetensors("save")
    from safetensors.numpy import save as serialize

    arrays = {name: _saved_array(name, value) for name, value in tensors.items()}
    try:
        text = json.dumps(dict(metadata or {}), sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"save: metadata that JSON can hold is required; {error}; convert it with float() or str()"
        ) from None
    write_atomically(path, serialize(arrays, {_KEY: text}))


def _saved_array(name: str, value: Any) -> np.ndarray:
    """Return a value of `save` as an array in C order, because safetensors ignores strides."""
    if name == "__metadata__":
        raise ValueError("save: the name __metadata__ belongs to the format; choose another")
    nested = "; save nested dicts under joined names such as 'model.weight'" if isinstance(value, Mapping) else ""
    array = value.backend.to_numpy(value.array) if isinstance(value, Value) else np.asarray(value)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(f"save: {name} must hold real numbers, got {kind_of(value)} of dtype {array.dtype}{nested}")
    return np.ascontiguousarray(array).reshape(array.shape)


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return the arrays in a safetensors file by name, as NumPy arrays with the shapes and dtypes that were saved.

    Raises FileNotFoundError if the file does not exist, ValueError if it is incomplete, damaged or forged or has dtypes
    that NumPy lacks, ImportError if safetensors is not installed.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "f.safetensors")
    ...     tl.save({"w": np.arange(3.0)}, path)
    ...     tl.load(path)
    {'w': array([0., 1., 2.])}
    """
    return load_with_metadata(path)[0]


def load_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the metadata that was passed to `save`, or {} if there was none. Raises the errors of `load`.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "f.safetensors")
    ...     tl.save({}, path, {"step": 7, "loss": 1.5})
    ...     tl.load_metadata(path)
    {'loss': 1.5, 'step': 7}
    """
    return load_with_metadata(path)[1]


def load_with_metadata(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the results of `load` and `load_metadata` after reading the file once. Raises the errors of `load`.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "f.safetensors")
    ...     tl.save({"w": np.arange(3.0)}, path, {"step": 7})
    ...     tl.load_with_metadata(path)
    ({'w': array([0., 1., 2.])}, {'step': 7})
    """
    _require_safetensors("load")
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"load: {os.fspath(path)}: no such file")
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            arrays = {name: _checked(name, file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118  # not a dict
            metadata = _parsed((file.metadata() or {}).get(_KEY, "{}"))
    except (AttributeError, TypeError) as error:  # NumPy has no such dtype
        raise ValueError(f"load: {os.fspath(path)}: dtypes that NumPy has are required; {_line(error)}") from None
    except (SafetensorError, ValueError, KeyError, OSError, RecursionError) as error:
        raise ValueError(f"load: {os.fspath(path)} is damaged or not a safetensors file: {_line(error)}") from None
    return arrays, metadata


def _checked(name: str, array: np.ndarray) -> np.ndarray:
    """Return the array; raise ValueError for a bool that is neither 0 nor 1, which NumPy would compute with."""
    if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
        raise ValueError(f"tensor {name} has bools that are neither 0 nor 1")
    return array


def _parsed(text: str) -> dict[str, Any]:
    """Return the JSON object that `save` wrote; raise ValueError for one that it never writes."""
    metadata = json.loads(
        text, object_pairs_hook=_distinct, parse_float=_finite, parse_constant=_finite
    )  # RecursionError if it is nested too deeply
    if not isinstance(metadata, dict):
        raise ValueError(f"metadata must be a JSON object, got {type(metadata).__name__}")
    return metadata


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("metadata has a key twice")
    return values


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"metadata must have finite numbers, got {text}")
    return number


def _line(error: BaseException) -> str:
    """Return an error's message on one line of moderate length: it may quote anything that the file holds."""
    text = "".join(char if char.isprintable() else " " for char in str(error))
    return text if len(text) <= 300 else f"{text[:300]}..."


def _require_safetensors(operation: str) -> None:
    try:
        import safetensors  # noqa: F401
    except ImportError:
        raise ImportError(f"{operation}: needs the Python package safetensors; pip install safetensors") from None


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that after any interruption it has either its old contents or all of the new ones.

    The data go to a temporary file in the same folder, which is then renamed to `path`, or removed after an exception.

    Raises OSError if the folder does not exist or the data cannot be written.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tl.write_atomically(os.path.join(folder, "notes.txt"), b"text")
    ...     os.listdir(folder)
    ['notes.txt']
    """
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        _replace(temporary, target)
    except BaseException:
        with suppress(OSError):  # which would hide the first error
            os.unlink(temporary)
        raise
    _sync_directory(target.parent)


def _replace(temporary: str, target: Path) -> None:
    """Rename a file over another. On Windows, wait up to ten seconds while a process has the other one open."""
    for tenths in range(101):
        try:
            return os.replace(temporary, target)
        except PermissionError as error:
            # ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION: a reader, an indexer or a virus scanner, which soon ends.
            if getattr(error, "winerror", None) not in (5, 32) or tenths == 100:
                raise
            time.sleep(0.1)


def _sync_directory(path: Path) -> None:
    """Write a directory to disk, where that is possible: a new name survives a power cut only then."""
    try:
        directory = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no directories, and others none that may not be read
        return
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync only files
            raise
    finally:
        os.close(directory)
