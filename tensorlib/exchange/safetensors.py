"""Arrays by name in safetensors files: no code runs on loading, and a file is either whole or absent."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tensorlib.tensor import Tensor

__all__ = ["load", "load_metadata", "load_with_metadata", "save", "write_atomically"]

_KEY = "tensorlib"  # safetensors orders several metadata keys by chance: one key, holding JSON, keeps bytes the same


def save(tensors: Mapping[str, Any], path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
    """Write Tensors or arrays by name, and `metadata` (what JSON holds), atomically. Equal contents, equal bytes."""
    _require_safetensors("save")
    from safetensors.numpy import save as serialise

    arrays = {}
    for name, value in tensors.items():
        array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
        arrays[name] = np.ascontiguousarray(array).reshape(array.shape)  # safetensors ignores strides
    text = json.dumps(dict(metadata or {}), sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomically(path, serialise(arrays, {_KEY: text}))


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return the arrays in a safetensors file by name. Raises ValueError, naming the file, if it is not whole."""
    return load_with_metadata(path)[0]


def load_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the metadata that `save` was given."""
    return load_with_metadata(path)[1]


def load_with_metadata(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return what `load` and `load_metadata` do, from one reading of the file."""
    _require_safetensors("load")
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"load: {os.fspath(path)}: no such file")
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
            metadata = json.loads((file.metadata() or {}).get(_KEY, "{}"))
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"load: {os.fspath(path)} is not a whole safetensors file: {error}") from None
    return arrays, metadata


def _require_safetensors(operation: str) -> None:
    try:
        import safetensors  # noqa: F401
    except ImportError:
        raise ImportError(f"{operation}: needs the Python package safetensors; pip install safetensors") from None


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that it is there whole or not at all, whatever happens on the way, and leave no temporary."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name survives a power cut only when the directory is written too
    finally:
        os.close(directory)
