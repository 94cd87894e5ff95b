"""A digest of what a file of tensors holds, by which a damaged file is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["digest"]


def digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> str:
    """Return a digest of the tensors' names, dtypes, shapes and values, and of the metadata, as yet without digest."""
    arrays = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}  # at least one-dimensional
    if metadata.get("format") == 1:
        hasher = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    else:  # first everything that says how many bytes follow, so that no two files have the same sequence of bytes
        described = {name: [array.dtype.str, tensors[name].shape] for name, array in arrays.items()}
        hasher = hashlib.sha256(json.dumps([metadata, described], sort_keys=True).encode())
    for name, array in arrays.items():
        if metadata.get("format") == 1:
            hasher.update(f"{name} {array.dtype.str} {array.shape}".encode())
        hasher.update(array.reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()
